"""`small_disk`: a file system of a few megabytes, to be filled.

    disk = small_disk(16)            # megabytes, mounted in tmp_path
    disk.fill()                      # nothing is free any more ...
    disk.free()                      # ... and it is again

A file system of its own needs the right to mount one. Who has not got it runs the tests under
`unshare --user --map-root-user --mount`.
"""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

__all__ = ["SmallDisk", "small_disk"]

_BLOCK_BYTES = 1 << 16


class SmallDisk:
    """A mounted file system; what fills it is one file of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self, leave_bytes: int = 0) -> None:
        """Take all the room there is, as another program would, but for `leave_bytes`."""
        with self._filler.open("ab", buffering=0) as file:
            while (room := self.room()) > leave_bytes:
                with contextlib.suppress(OSError):  # less than a block: the next look says how much
                    file.write(bytes(min(_BLOCK_BYTES, room - leave_bytes)))

    def free(self) -> None:
        """Give the room back."""
        self._filler.unlink()

    def room(self) -> int:
        """How many bytes are free."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], SmallDisk]]:
    """Mount file systems of so many megabytes."""
    mounted: list[Path] = []

    def mount(megabytes: int) -> SmallDisk:
        path = tmp_path / f"disk-{len(mounted)}"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "zeod-test", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mounting a file system is not allowed here: {done.stderr.strip()}")
        mounted.append(path)
        return SmallDisk(path)

    yield mount
    for path in mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
