"""Room that is taken on the disk: what it does to the file, to the disk, and to those who come later."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures_small_disk import SmallDisk
from zeo_core.errors import StorageFullError
from zeo_server.storages.file import room as room_module
from zeo_server.storages.file.reader import Descriptor
from zeo_server.storages.file.room import AHEAD_BYTES, Room

CONTENT = b"FS30" + bytes(96)


def room_of(path: Path) -> tuple[Room, Descriptor]:
    path.write_bytes(CONTENT)
    descriptor = Descriptor(str(path), os.O_RDWR)
    return Room(str(path), descriptor, len(CONTENT)), descriptor


def blocks_bytes(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_room_is_taken_behind_the_end_and_the_file_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    room, _ = room_of(path)
    room.take(1_000_000)
    assert path.read_bytes() == CONTENT
    assert blocks_bytes(path) >= 1_000_000
    assert room.end >= 1_000_000
    room.give_back(len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert blocks_bytes(path) < 100_000
    assert room.end == len(CONTENT)


def test_more_than_is_asked_for_is_taken_at_once(tmp_path: Path) -> None:
    room, _ = room_of(tmp_path / "Data.fs")
    room.take(1000)
    taken = room.end
    assert taken == len(CONTENT) + AHEAD_BYTES
    room.take(taken)
    assert room.end == taken
    room.take(taken + 1)
    assert room.end == taken + AHEAD_BYTES


def test_what_was_appended_is_taken_back_and_the_room_stays(tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    room, descriptor = room_of(path)
    room.take(1_000_000)
    taken = room.end
    os.pwrite(descriptor.fd, b"x" * 5000, len(CONTENT))
    room.cut_back(len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert room.end == taken
    assert blocks_bytes(path) >= 1_000_000


def test_room_that_was_taken_is_there_when_the_disk_is_full(small_disk: Callable[[int], SmallDisk]) -> None:
    disk = small_disk(16)
    room, descriptor = room_of(disk.path / "Data.fs")
    room.take(5_000_000)
    disk.fill()
    assert os.pwrite(descriptor.fd, b"x" * (5_000_000 - len(CONTENT)), len(CONTENT)) == 5_000_000 - len(CONTENT)


def test_a_full_disk_is_said_and_nothing_is_taken(small_disk: Callable[[int], SmallDisk]) -> None:
    disk = small_disk(16)
    room, _ = room_of(disk.path / "Data.fs")
    free = disk.room()
    with pytest.raises(StorageFullError, match=r"Data\.fs: .*\d+ bytes to store, \d+ free"):
        room.take(20 << 20)
    assert disk.room() == free
    disk.fill(leave_bytes=3 << 20)
    room.take(1 << 20)  # less is taken ahead where little is left
    assert disk.room() > 1 << 20
    with pytest.raises(StorageFullError):
        room.take(3 << 20)
    disk.free()
    room.take(3 << 20)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_room_cannot_be_taken_it_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def cannot(fd: int, start: int, count: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(room_module, "_ALLOCATE", cannot)  # the system's call, of a file system without it
    path = tmp_path / "Data.fs"
    room, _ = room_of(path)
    room.take(1_000_000)
    assert blocks_bytes(path) < 100_000
    with pytest.raises(StorageFullError):
        room.take(1 << 60)


def test_a_system_that_finds_no_blocks_says_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, start: int, count: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(room_module, "_ALLOCATE", full)
    room, _ = room_of(tmp_path / "Data.fs")
    with pytest.raises(StorageFullError, match="quota"):
        room.take(1000)
