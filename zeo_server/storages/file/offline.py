"""Packing a Data.fs that no process has open: what `zeofs pack` does."""

import os
from collections.abc import Generator
from contextlib import closing

from zeo_core.errors import StorageError
from zeo_core.storage import Progress
from zeo_server.storages.file.storage import FileStorage

__all__ = ["pack"]


def pack(
    path: str, time_s: float, *, gc: bool = True, keep_old: bool = True, blob_dir: str | None = None
) -> Generator[Progress, None, None]:
    """Pack the file at `path` up to a time in seconds since the Unix epoch; see FileStorage.pack_steps.

    With `blob_dir`, the blobs there go with the records that they belong to.

    FileLockedError if a process has it open, StorageError if there is none.
    """
    if not os.path.exists(path):
        raise StorageError(f"{path}: there is no such file")
    with closing(FileStorage(path, blob_dir=blob_dir)) as storage:
        yield from storage.pack_steps(time_s, gc=gc, keep_old=keep_old)
