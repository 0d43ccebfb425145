"""Dividing a log at a pack time."""

import os
from pathlib import Path

import pytest

from tests.server.storages.file.build import File
from zeo_core.errors import FileFormatError
from zeo_core.ids import pack_id
from zeo_server.storages.file.asof import AsOf
from zeo_server.storages.file.reader import Descriptor, Reader

A, B = pack_id(1), pack_id(2)


def reader_of(directory: Path, content: bytes) -> Reader:
    path = directory / "Data.fs"
    path.write_bytes(content)
    return Reader(str(path), Descriptor(str(path), os.O_RDONLY))


def scanned(reader: Reader, tid: int, end: int) -> AsOf:
    as_of = AsOf.empty()
    assert [position <= end for position in as_of.scan(reader, pack_id(tid), end)].count(False) == 0
    return as_of


def test_the_boundary_is_behind_the_last_transaction_that_is_not_later(tmp_path: Path) -> None:
    file = File().add((A, b"1"), (B, b"1")).add((A, b"2")).add((A, b"3"))
    reader = reader_of(tmp_path, file.content)
    as_of = scanned(reader, 2, len(file.content))
    assert as_of.boundary == file.starts[2]
    assert as_of.last is not None
    assert as_of.last.position == file.starts[1]
    assert [as_of.current.position(oid) for oid in (A, B)] == [file.records[1][0], file.records[0][1]]
    assert not as_of.is_packed
    assert scanned(reader, 9, file.starts[2]).boundary == file.starts[2]


def test_an_earlier_pack_shows(tmp_path: Path) -> None:
    file = File().add((A, b"1"), status=b"p").add((A, b"2"))
    reader = reader_of(tmp_path, file.content)
    assert scanned(reader, 1, len(file.content)).is_packed
    assert not scanned(reader, 2, len(file.content)).is_packed
    assert scanned(reader, 0, len(file.content)).is_packed
    assert AsOf.empty().is_packed


def test_undone_transactions_have_no_records(tmp_path: Path) -> None:
    file = File().add((A, b"1")).add((A, b"2"), status=b"u")
    as_of = scanned(reader_of(tmp_path, file.content), 9, len(file.content))
    assert as_of.current.position(A) == file.records[0][0]
    assert as_of.boundary == len(file.content)


@pytest.mark.parametrize("offset", [8, 16, -8])
def test_damage_is_named(tmp_path: Path, offset: int) -> None:
    file = File().add((A, b"1")).add((A, b"2"))
    place = file.starts[1] + offset
    reader = reader_of(tmp_path, file.patched(place, b"\xff"))
    with pytest.raises(FileFormatError, match="damaged at byte"):
        scanned(reader, 9, len(file.content))


def test_an_end_inside_a_header_is_damage(tmp_path: Path) -> None:
    file = File().add((A, b"1"))
    reader = reader_of(tmp_path, file.content + b"12345")
    with pytest.raises(FileFormatError, match="header"):
        scanned(reader, 9, len(file.content) + 5)
