"""Bringing a file to disk."""

from pathlib import Path

import pytest

from zeo_client.durable import sync_file


def test_a_file_that_may_only_be_read_is_synced(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"data")
    path.chmod(0o400)
    sync_file(str(path))
    assert path.read_bytes() == b"data"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sync_file(str(tmp_path / "x"))
