"""Files that are whole after a crash."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from zeo_server.storages import durable


def test_syncs_take_an_open_file_and_tell_of_failures(tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        file.write(b"data")
        file.flush()
        durable.sync_data(file.fileno())
        durable.sync_file(file.fileno())
    durable.sync_directory(str(tmp_path / "file"))
    with open(os.devnull, "wb") as device:
        for sync in (durable.sync_data, durable.sync_file):
            with pytest.raises(OSError, match="Invalid argument"):
                sync(device.fileno())
    with pytest.raises(FileNotFoundError):
        durable.sync_directory(str(tmp_path / "nowhere" / "file"))


def test_a_relative_name_stands_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    durable.write_file("name", [b"data"], "name.tmp")
    assert os.listdir(tmp_path) == ["name"]


def test_replace_takes_the_name_over(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    durable.replace_file(str(new), str(old))
    assert old.read_bytes() == b"new"
    assert not new.exists()


def test_a_file_is_replaced_by_its_blocks(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for blocks in ([b"one", b"two"], []):
        durable.write_file(str(path), blocks, str(tmp_path / "temporary"))
        assert path.read_bytes() == b"".join(blocks)
        assert os.listdir(tmp_path) == ["file"]


def test_a_failure_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def blocks() -> Iterator[bytes]:
        yield b"new"
        raise KeyError("half way")

    with pytest.raises(KeyError):
        durable.write_file(str(path), blocks(), str(tmp_path / "temporary"))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_temporary_file_of_an_earlier_crash_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "temporary").write_bytes(b"longer than the new one")
    durable.write_file(str(tmp_path / "file"), [b"new"], str(tmp_path / "temporary"))
    assert (tmp_path / "file").read_bytes() == b"new"


def test_directories_are_made_as_far_as_they_are_missing(tmp_path: Path) -> None:
    durable.make_directories(str(tmp_path / "one" / "two"))
    durable.make_directories(str(tmp_path / "one" / "two"))
    assert (tmp_path / "one" / "two").is_dir()
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="file"):
            durable.make_directories(str(path))
