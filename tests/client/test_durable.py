"""Bringing a file to disk."""

import os
from pathlib import Path

import pytest

from zeo_client.durable import sync_file


def test_a_file_that_may_only_be_read_is_synced(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"data")
    path.chmod(0o400)
    sync_file(str(path))
    assert path.read_bytes() == b"data"


def test_an_open_file_is_synced(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        sync_file(file.fileno())
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync_file(file_number_of_none())


def file_number_of_none() -> int:
    """Return a number that is no open file's."""
    return max(int(name) for name in os.listdir("/proc/self/fd")) + 100


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sync_file(str(tmp_path / "x"))
