"""What makes bytes survive a power cut: fsync, and renames that are on disk when they return.

Nothing else in zeod calls os.fsync (tests/test_layout.py looks): whoever wants to know what is on disk when reads the
callers of this module. Everything raises OSError as the system gives it; the caller knows what the failure means.
"""

import os
from collections.abc import Iterable
from contextlib import suppress

__all__ = ["make_directories", "replace_file", "sync_data", "sync_directory", "sync_file", "write_file", "write_new"]


def sync_file(fd: int) -> None:
    """Bring a file's data and all of its metadata to disk."""
    os.fsync(fd)


def sync_data(fd: int) -> None:
    """Bring a file's data to disk, and of its metadata what is needed to read them back: its length.

    Where there is no fdatasync (macOS) it is a whole fsync.
    """
    getattr(os, "fdatasync", os.fsync)(fd)


def sync_directory(path: str) -> None:
    """Bring the names in the directory of the file `path` to disk: a new or renamed file is not safe before."""
    fd = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directories(path: str) -> None:
    """Make a directory, and what is missing above it, if it is not there; the names are on disk when this returns."""
    path = os.path.abspath(path)
    if os.path.isdir(path):
        return
    make_directories(os.path.dirname(path))
    try:
        os.mkdir(path)
    except FileExistsError:  # somebody else has made it meanwhile, or it is no directory
        if not os.path.isdir(path):
            raise
    sync_directory(path)


def replace_file(source: str, target: str) -> None:
    """Rename `source`, whose data the caller has synced, over `target`; the rename is on disk when this returns."""
    os.replace(source, target)
    sync_directory(target)


def write_new(path: str, blocks: Iterable[bytes]) -> None:
    """Make a file of `blocks`, its data on disk but not yet its name; on failure it is gone."""
    try:
        with open(path, "wb") as file:
            file.writelines(blocks)
            file.flush()
            sync_file(file.fileno())
    except BaseException:
        _discard(path)
        raise


def write_file(path: str, blocks: Iterable[bytes], temporary: str) -> None:
    """Replace `path` by a file made of `blocks`: a crash leaves the old file or the new one, never a part.

    The new file is built under the name `temporary` in the same directory, which is gone afterwards, also on failure.
    """
    write_new(temporary, blocks)
    try:
        replace_file(temporary, path)
    except BaseException:
        _discard(temporary)
        raise


def _discard(path: str) -> None:
    with suppress(OSError):  # the failure that brought us here is the one to tell
        os.unlink(path)
