"""The directory that processes share as a disk cache: which file in it is the one in use, and who may replace it.

A file that is found damaged is never repaired, and its name is never used again: SQLite finds a file's log by name, so
that a process which still holds the damaged file would, on closing it, remove the log of a new one under the old name.
So the files are numbered, and the highest number is the one to open. Beside them:

    lock             held, by flock, while a file is opened or replaced
    N.cache          the revisions, see `zeo_client.cache.revision_file`, with SQLite's N.cache-wal and N.cache-shm
    N.cache-users    held shared by every process that uses file N
    N.cache-copying-...   is there while a process copies from the log into file N
"""

import contextlib
import fcntl
import glob
import os
import re
from collections.abc import Iterator

__all__ = ["CacheDirectory"]

_FILE = re.compile(r"(\d{1,18})\.cache")


class CacheDirectory:
    """The files of one cache, in the directory `path`, which is made if it is missing. OSError if it cannot be."""

    def __init__(self, path: str) -> None:
        self.path = path
        os.makedirs(path, mode=0o700, exist_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from opening and replacing files meanwhile."""
        with open(os.path.join(self.path, "lock"), "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def current(self) -> str | None:
        """Return the file in use; None if there is none. Under the lock, as the rest."""
        numbers = self._numbers()
        return self._name(numbers[-1]) if numbers else None

    def following(self) -> str:
        """Return the name for a new file. It replaces the others once it is there, see `discard_older`."""
        numbers = self._numbers()
        return self._name(numbers[-1] + 1 if numbers else 1)

    def discard_older(self) -> None:
        """Remove all files but the one in use, which takes their numbers for good.

        A process that has one open goes on with it alone, until its next connection.
        """
        for number in self._numbers()[:-1]:
            file = self._name(number)
            for name in [*glob.glob(f"{glob.escape(file)}-*"), file]:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name)

    def _numbers(self) -> list[int]:
        found = map(_FILE.fullmatch, os.listdir(self.path))
        return sorted(int(name.group(1)) for name in found if name is not None)

    def _name(self, number: int) -> str:
        return os.path.join(self.path, f"{number}.cache")
