"""What makes bytes survive a power cut, on the client: of its files, only what the blob cache keeps has to.

Nothing else in zeo_client calls os.fsync (tests/test_layout.py looks). OSError as the system gives it.
"""

import os

__all__ = ["sync_file"]


def sync_file(path: str) -> None:
    """Bring a file's contents to disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
