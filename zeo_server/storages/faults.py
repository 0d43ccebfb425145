"""What a failed call of the system on a storage's file is to those who use the storage."""

import errno

from zeo_core.errors import StorageError, StorageFullError

__all__ = ["failure"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # what the system calls a file that cannot grow


def failure(path: str, error: OSError) -> StorageError:
    """Return the error that tells of a failed call on the file at `path`; a StorageFullError if there was no room."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return StorageFullError(path, reason)
    return StorageError(f"{path}: {reason}")
