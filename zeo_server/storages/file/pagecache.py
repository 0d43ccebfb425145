"""Reads that never wait for the disk: from the page cache, or not at all.

Linux can be asked for that (RWF_NOWAIT, preadv2(2)): a read whose pages are not in memory fails with EAGAIN, which is
BlockingIOError. A read that is there in part gives that part. Not every file system supports it.
"""

import os

__all__ = ["can_tell", "pread_cached"]


def can_tell(fd: int) -> bool:
    """Tell whether the system can read this file from the page cache alone."""
    flag = getattr(os, "RWF_NOWAIT", None)
    if flag is None:
        return False
    try:
        os.preadv(fd, [bytearray(1)], 0, flag)
    except BlockingIOError:
        return True
    except OSError:  # EOPNOTSUPP
        return False
    return True


def pread_cached(fd: int, count: int, position: int) -> bytes:
    """Return `count` bytes at `position`, fewer at the end of the file; BlockingIOError if not all are in memory."""
    buffer = bytearray(count)
    got = os.preadv(fd, [buffer], position, os.RWF_NOWAIT)
    while got < count:
        # The end of the file, or of what is in memory: the next read tells which.
        with memoryview(buffer) as view:
            more = os.preadv(fd, [view[got:]], position + got, os.RWF_NOWAIT)
        if not more:
            del buffer[got:]
            break
        got += more
    return bytes(buffer)
