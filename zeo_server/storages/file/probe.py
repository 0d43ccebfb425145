"""Whether a Data.fs could be opened, without making, changing or holding anything."""

import os

from zeo_core.errors import StorageError
from zeo_server.storages.file.storage import FileStorage, is_missing, lock

__all__ = ["probe_file"]


def probe_file(
    path: str, *, create: bool = False, read_only: bool = False, blob_dir: str | None = None, **_options: object
) -> None:
    """Raise what FileStorage would with these options; FileLockedError if another process has the file open."""
    path = os.path.abspath(path)
    for each in (path, blob_dir) if blob_dir else (path,):
        _probe_directory(os.path.dirname(os.path.abspath(each)), read_only)
    if is_missing(path, create=create):
        if read_only:
            raise StorageError(f"{path}: does not exist, and is to be read only")
        return
    FileStorage(path, read_only=True).close()
    if not read_only:
        if not os.access(path, os.W_OK):
            raise StorageError(f"{path}: may not be written")
        if os.path.exists(path + ".lock"):
            lock(path).close()


def _probe_directory(path: str, read_only: bool) -> None:
    if not os.access(path, os.X_OK if read_only else os.W_OK | os.X_OK):
        raise StorageError(f"{path}: no such directory, or no files can be made there")
