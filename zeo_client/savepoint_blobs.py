"""The blobs of a transaction's savepoints: each savepoint's files are kept, so that all of them can be gone back to."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable

from zeo_core.errors import StorageError

__all__ = ["SavepointBlobs"]

_PREFIX = "savepoint"


class SavepointBlobs:
    """Files by the position of their records in the spool. They are in a directory below the one that `parent` returns.

    That is best where the storage keeps the files of unfinished transactions: to commit them is to rename them then.
    """

    def __init__(self, parent: Callable[[], str]) -> None:
        self._parent = parent
        self._directory: str | None = None
        self._paths: dict[int, str] = {}
        self._count = 0

    def take(self, position: int, path: str) -> None:
        """Take the file `path` over; StorageError if that cannot be."""
        try:
            if self._directory is None:
                self._directory = tempfile.mkdtemp(prefix=_PREFIX, dir=self._parent())
            self._count += 1
            kept = os.path.join(self._directory, f"{self._count}.spb")
            shutil.move(path, kept)
        except OSError as error:
            raise StorageError(f"cannot keep the blob {path} for a savepoint: {error}") from error
        self._paths[position] = kept

    def path(self, position: int) -> str | None:
        """Return the path of the file that belongs to the record at `position`."""
        return self._paths.get(position)

    def cut(self, end: int) -> None:
        """Remove the files of the records from `end` on."""
        for position in [position for position in self._paths if position >= end]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._paths.pop(position))

    def close(self) -> None:
        """Remove all files that nobody has taken over."""
        directory, self._directory, self._paths = self._directory, None, {}
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)
