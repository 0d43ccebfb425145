"""Reads from the page cache alone: right to the byte when they answer, BlockingIOError when the disk would be asked."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from zeo_server.storages.file.pagecache import can_tell, pread_cached

SIZE = 5 * 4096 + 100


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(bytes(number % 251 for number in range(SIZE)))
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)  # only clean pages can be dropped from memory
    yield fd
    os.close(fd)


def is_forgotten(fd: int) -> bool:
    """Have the system drop the file's pages, which it may put off; tell whether the pages are gone."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        pread_cached(fd, 42, 8000)
    except BlockingIOError:
        return True
    return False


@pytest.mark.parametrize(
    ("position", "count"), [(0, 42), (4090, 42), (0, SIZE), (SIZE - 10, 42), (SIZE, 42), (SIZE + 9, 1)]
)
def test_what_is_in_memory_is_read_as_pread_does(file: int, position: int, count: int) -> None:
    expected = os.pread(file, count, position)
    assert pread_cached(file, count, position) == expected


def test_what_is_not_in_memory_is_refused_until_somebody_has_read_it(file: int) -> None:
    if not can_tell(file):
        assert sys.platform != "linux" or file_system_of(file) not in ("ext4", "xfs", "btrfs")
        return
    assert any(is_forgotten(file) for _ in range(1000))
    assert can_tell(file)
    expected = os.pread(file, 42, 8000)
    assert pread_cached(file, 42, 8000) == expected


def file_system_of(fd: int) -> str:
    command = ["stat", "--file-system", "--format=%T", f"/proc/self/fd/{fd}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, pass_fds=[fd]).stdout.strip()


def test_a_pipe_cannot_tell() -> None:
    reading, writing = os.pipe()
    assert not can_tell(reading)
    os.close(reading)
    os.close(writing)
