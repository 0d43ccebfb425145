"""The files in which a client of a server keeps blobs: a cache of its own, or the very directory of the server.

A cache is laid out as ZEO's clients lay theirs out, so that they can share it, and so can any number of processes:

    .layout                         "zeocache"
    tmp/                            files that are no cached blobs: uncommitted ones, and downloads under way
    217/.lock                       held while a blob of this directory is fetched, put there or removed
    217/34.03c8b1a2b3c4d5e6.blob    the blob of the oid 34 * 997 + 217 that transaction 03c8b1a2b3c4d5e6 wrote
    check_size.lock                 held while the cache is brought down to its size
    check_size.attempt              made by who wanted to do that and found the lock held

A file has its name only when it is whole and on disk; it never changes then (lesson B19). Whoever opens one by
`openCommittedBlobFile` holds a lock on it, shared with other readers, while it is open: what is locked, or was used
just now, is not removed.
"""

import contextlib
import fcntl
import logging
import os
import stat
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from typing import IO, NamedTuple

from zeo_client.durable import sync_file
from zeo_core.blob_layout import MARKER, SUFFIX
from zeo_core.errors import StorageError
from zeo_core.ids import Oid, Tid

__all__ = ["ABANDONED_AFTER_S", "BUCKETS", "GRACE_S", "BlobCache", "hold_open", "move"]

logger = logging.getLogger(__name__)

BUCKETS = 997
"""Directories of a cache, as in ZEO's."""

GRACE_S = 10.0
"""For so long after its last use a blob stays, since somebody may have its name and be about to open it."""

ABANDONED_AFTER_S = 24 * 3600
"""Files under tmp/ that are older than this belong to processes that are gone."""

_LAYOUT = "zeocache"
_READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


class _Cached(NamedTuple):
    used_s: float
    size: int
    path: str


class BlobCache:
    """A directory of blobs at `path`, brought down to `max_bytes` from time to time if that is given.

    It is looked at when `check_percent` of that has come in, and brought down to so much below it. StorageError if the
    directory cannot be used.
    """

    def __init__(self, path: str, max_bytes: int | None = None, check_percent: int = 10) -> None:
        self.path = os.path.abspath(path)
        self.temporary = os.path.join(self.path, "tmp")
        if max_bytes is not None and not 0 <= check_percent < 100:
            raise ValueError(f"blob_cache_size_check is {check_percent}, and must be a percentage from 0 to 99")
        self._max_bytes = max_bytes
        self._check_bytes = 0 if max_bytes is None else max_bytes * check_percent // 100
        self._lock = threading.Lock()
        self._new_bytes = 0
        self._checking: threading.Thread | None = None
        self._closed = False
        try:
            os.makedirs(self.temporary, exist_ok=True)
            self._mark()
            self._clean()
        except OSError as error:
            raise StorageError(f"{error.filename or self.path}: {error.strerror or error}") from error
        self.check()

    def path_of(self, oid: Oid, tid: Tid) -> str:
        """Return where the blob of `oid` that `tid` wrote is, or would be."""
        number, bucket = divmod(int.from_bytes(oid, "big"), BUCKETS)
        return os.path.join(self.path, str(bucket), f"{number}.{tid.hex()}{SUFFIX}")

    def find(self, oid: Oid, tid: Tid) -> str | None:
        """Return the path of a blob that is here, and count that as a use; None if it is not."""
        path = self.path_of(oid, tid)
        try:
            os.utime(path, (time.time(), os.stat(path).st_mtime))
        except FileNotFoundError:
            return None
        except OSError:  # the file of another user, which may be read all the same
            pass
        return path

    @contextlib.contextmanager
    def locked(self, path: str) -> Iterator[None]:
        """Keep others, threads and processes, from fetching or removing `path`, a path of a blob, meanwhile."""
        directory = os.path.dirname(path)
        os.makedirs(directory, exist_ok=True)
        with _lock_file(os.path.join(directory, ".lock"), wait=True):
            yield

    def new_file(self) -> tuple[IO[bytes], str]:
        """Return a new temporary file and its path."""
        fd, path = tempfile.mkstemp(dir=self.temporary)
        return open(fd, "wb", buffering=0), path

    def take(self, _oid: Oid, source: str) -> str:
        """Take a file over, to be kept or removed later; return its new path."""
        return move(source, self.temporary, "", "")

    def keep(self, temporary: str, path: str) -> None:
        """Give a whole, synced temporary file its name; under its lock."""
        found = os.stat(temporary)
        readers = os.stat(os.path.dirname(path)).st_mode & _READABLE  # whoever shares the directory may read the file
        os.chmod(temporary, stat.S_IMODE(found.st_mode) & ~_WRITABLE | readers)
        os.rename(temporary, path)
        with self._lock:
            self._new_bytes += found.st_size
            enough = self._max_bytes is not None and self._new_bytes > self._check_bytes
        if enough:
            self.check()

    def sync(self, temporary: str | int) -> None:
        """Bring a temporary file, or its descriptor, to disk: a power cut must not leave a cached blob with a hole."""
        sync_file(temporary)

    def check(self) -> None:
        """Bring the cache down to its size, in a thread, if it has one and nobody is at it."""
        with self._lock:
            self._new_bytes = 0
            busy = self._checking is not None and self._checking.is_alive()
            if self._max_bytes is None or busy or self._closed:
                return
            target = max(self._max_bytes - self._check_bytes, 0)
            self._checking = threading.Thread(
                target=self._reduce, args=(target,), name=f"zeod blob cache {self.path}", daemon=True
            )
            self._checking.start()

    def close(self) -> None:
        """End the thread that may be at work."""
        with self._lock:
            self._closed = True
            checking = self._checking
        if checking is not None:
            checking.join()

    # -- bringing it down -------------------------------------------------------------------------------------------

    def _reduce(self, target: int) -> None:
        attempt = os.path.join(self.path, "check_size.attempt")
        try:
            with _lock_file(os.path.join(self.path, "check_size.lock"), wait=False):
                again = True
                while again and not self._closed:
                    self._remove_oldest(target)
                    again = _removed(attempt)
        except BlockingIOError:
            with contextlib.suppress(OSError), open(attempt, "w"):
                pass  # whoever is at it looks once more
        except OSError as error:
            logger.warning("%s: the blob cache was not brought down to its size: %s", self.path, error)

    def _remove_oldest(self, target: int) -> None:
        found = sorted(self._cached())
        size = sum(each.size for each in found)
        for each in found:
            if size <= target or self._closed:
                return
            if self._remove(each):
                size -= each.size

    def _cached(self) -> Iterator[_Cached]:
        for bucket in os.listdir(self.path):
            if bucket.isdecimal():
                with os.scandir(os.path.join(self.path, bucket)) as entries:
                    for entry in entries:
                        if entry.name.endswith(SUFFIX):
                            with contextlib.suppress(FileNotFoundError):
                                found = entry.stat(follow_symlinks=False)
                                yield _Cached(found.st_atime, found.st_size, entry.path)

    def _remove(self, cached: _Cached) -> bool:
        """Remove a blob, unless it is in use; tell whether it is gone."""
        if time.time() - cached.used_s < GRACE_S:
            return False
        try:
            with (
                _lock_file(os.path.join(os.path.dirname(cached.path), ".lock"), wait=False),
                open(cached.path, "rb") as file,
            ):
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file.fileno()).st_atime > cached.used_s:
                    return False
                os.unlink(cached.path)
        except BlockingIOError:
            return False
        except FileNotFoundError:
            pass  # a client of ZEO's that shares the cache was quicker
        return True

    # -- opening ------------------------------------------------------------------------------------------------------

    def _mark(self) -> None:
        marker = os.path.join(self.path, MARKER)
        try:
            with open(marker, "x", encoding="ascii") as file:
                file.write(_LAYOUT)
        except FileExistsError:
            with open(marker, encoding="utf-8", errors="replace") as file:
                marked = file.read(100).strip()
            if marked not in (_LAYOUT, ""):  # another process may be about to write it
                raise StorageError(
                    f"{self.path}: its layout is {marked}, that of a server's directory; to share it with the server,"
                    " say shared_blob_dir, or name a directory of your own for the cache"
                ) from None

    def _clean(self) -> None:
        oldest = time.time() - ABANDONED_AFTER_S
        for name in os.listdir(self.temporary):
            path = os.path.join(self.temporary, name)
            with contextlib.suppress(OSError):
                if os.lstat(path).st_ctime < oldest:
                    os.unlink(path)


def hold_open(file: IO[bytes]) -> None:
    """Mark an open cached blob as in use until it is closed."""
    with contextlib.suppress(OSError):  # it is being removed, and can be read all the same; or no locks are to be had
        fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)


def move(source: str, directory: str, prefix: str, suffix: str) -> str:
    """Move a file into `directory` under a new name, copying it only where it must be; return its new path."""
    path = os.path.join(directory, f"{prefix}{uuid.uuid4().hex}{suffix}")
    try:
        os.rename(source, path)
    except OSError:
        # Whatever the reason, a copy is worth a try; if it fails too, its reason is the one to tell.
        try:
            _copy(source, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            raise
        os.unlink(source)
    return path


def _copy(source: str, target: str) -> None:
    with open(source, "rb") as file, open(target, "xb") as copy:
        while block := file.read(1 << 20):
            copy.write(block)


@contextlib.contextmanager
def _lock_file(path: str, *, wait: bool) -> Iterator[None]:
    """Hold the lock that zc.lockfile would take on this file; BlockingIOError if another has it and `wait` is false."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


def _removed(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True
