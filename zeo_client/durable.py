"""What makes bytes survive a power cut, on the client: of its files, only what the blob cache keeps has to.

Nothing else in zeo_client calls os.fsync (tests/test_layout.py looks). OSError as the system gives it.
"""

import os

__all__ = ["sync_file"]


def sync_file(file: str | int) -> None:
    """Bring the contents of a file, given by its path or its descriptor, to disk."""
    if isinstance(file, int):
        os.fsync(file)
        return
    fd = os.open(file, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
