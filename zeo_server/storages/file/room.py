"""Room on the disk for what was promised: blocks behind the end of Data.fs that belong to it already.

A vote promises that the finish will not fail for lack of space, so the space is taken at the vote. The file's length
does not change by that: whoever reads the file, ZODB among them, sees nothing of it, and what a crash leaves is used
by the next commits. Linux has this (fallocate(2) with FALLOC_FL_KEEP_SIZE) on its usual file systems; where it is not
to be had, room is only looked for, and another program may take it in between.
"""

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from threading import Lock
from typing import Final

from zeo_core.errors import StorageFullError
from zeo_server.storages.faults import failure
from zeo_server.storages.file.reader import Descriptor

__all__ = ["AHEAD_BYTES", "Room"]

AHEAD_BYTES: Final = 4 << 20
"""Taken at once where there is plenty: the call needs 50 us, for one block as for a thousand (measured on ext4)."""

_SLACK_BYTES: Final = 1 << 20  # not to be taken by us: the directory's, the index's and the file system's own needs
_KEEP_SIZE: Final = 1  # FALLOC_FL_KEEP_SIZE of linux/falloc.h
_CANNOT: Final = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EINVAL}

_Allocate = Callable[[int, int, int], None]


def _system_call() -> _Allocate | None:
    """Return what takes blocks for (descriptor, start, count) and raises OSError, None if this system cannot."""
    if sys.platform != "linux":
        return None
    try:
        # os.posix_fallocate changes the length, and zero bytes at the end of a Data.fs are damage to those who read it.
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate64
    except AttributeError:
        return None
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

    def allocate(fd: int, start: int, count: int) -> None:
        while fallocate(fd, _KEEP_SIZE, start, count):
            number = ctypes.get_errno()
            if number != errno.EINTR:
                raise OSError(number, os.strerror(number))

    return allocate


_ALLOCATE: Final = _system_call()


class Room:
    """The room of one open Data.fs. Votes ask for it in one thread, writes that fail give it back in another."""

    def __init__(self, path: str, descriptor: Descriptor, end: int) -> None:
        """Nothing is taken behind `end`, as far as is known."""
        self._path = path
        self._descriptor = descriptor
        self._lock = Lock()
        self._end = end  # up to here blocks are taken
        self._allocate = _ALLOCATE

    @property
    def end(self) -> int:
        """Up to where the file can grow for sure."""
        return self._end

    def take(self, end: int) -> None:
        """See to it that the file can grow to `end`; StorageFullError if it cannot, and nothing more is taken then."""
        if end <= self._end:
            return
        with self._lock:
            self._take(end)

    def _take(self, end: int) -> None:
        missing = end - self._end
        if missing <= 0:
            return
        status = os.fstatvfs(self._descriptor.fd)
        free = status.f_bavail * status.f_frsize
        if free < missing + _SLACK_BYTES:
            # Before the call, which would take all there is before it fails.
            raise StorageFullError(self._path, f"{missing} bytes to store, {free} free")
        if self._allocate is None:
            return
        taken = max(missing, min(AHEAD_BYTES, free // 16))
        try:
            self._allocate(self._descriptor.fd, self._end, taken)
        except OSError as error:
            if error.errno in _CANNOT:
                self._allocate = None
                return
            raise failure(self._path, error) from error
        self._end += taken

    def give_back(self, end: int) -> None:
        """Let go of what is behind `end`, and of the file's bytes there if it has grown over it; OSError."""
        with self._lock:
            os.ftruncate(self._descriptor.fd, end)
            self._end = end

    def cut_back(self, end: int) -> None:
        """Take the file's bytes behind `end` back; the room stays taken, since others were promised it. OSError."""
        with self._lock:
            os.ftruncate(self._descriptor.fd, end)
            taken, self._end = self._end - end, end
            if taken > 0 and self._allocate is not None:
                # A promise that cannot be kept any more is found out by the write that wants the room.
                try:
                    self._allocate(self._descriptor.fd, end, taken)
                except OSError:
                    return
                self._end += taken
