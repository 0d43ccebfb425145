"""Which layout a blob directory has: what zeo_core.blob_layout tells of, looked up in the directory."""

import os

from zeo_core.blob_layout import MARKER, Layout, chosen

__all__ = ["choose", "find_beside"]


def find_beside(path: str) -> str | None:
    """Return the blob directory of the Data.fs at `path` if it is at a usual place and has its marker, else None.

    Usual are `Data.fs.blobs`, `blobs` and `blobstorage` beside the file, and `blobstorage` beside its directory.
    """
    directory = os.path.dirname(os.path.abspath(path))
    parent = os.path.dirname(directory)
    places = [os.path.abspath(path) + ".blobs", *(os.path.join(directory, name) for name in ("blobs", "blobstorage"))]
    for place in [*places, os.path.join(parent, "blobstorage")]:
        if os.path.exists(os.path.join(place, MARKER)):
            return os.path.relpath(place) if not os.path.isabs(path) else place
    return None


def choose(path: str, wanted: str | None = None) -> Layout:
    """Return the layout of the blob directory at `path`, which need not exist yet; StorageError as in `chosen`."""
    marked = _marked(path)
    return chosen(path, marked, in_use=marked is None and _in_use(path), wanted=wanted)


def _marked(path: str) -> str | None:
    try:
        with open(os.path.join(path, MARKER), encoding="utf-8", errors="replace") as file:
            return file.read(100).strip()
    except FileNotFoundError:
        return None


def _in_use(path: str) -> bool:
    try:
        return any(not name.startswith(".") for name in os.listdir(path))
    except FileNotFoundError:
        return False
