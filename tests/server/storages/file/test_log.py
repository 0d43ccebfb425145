"""Walking a file: windows, order, damage."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.storages.file.build import File
from zeo_core.errors import FileFormatError
from zeo_core.ids import pack_id
from zeo_core.transaction import RecordedObject
from zeo_server.storages.file.log import Log, Window
from zeo_server.storages.file.reader import Descriptor, Reader

A, B = pack_id(1), pack_id(2)
T1, T2, T3, T4 = map(pack_id, range(1, 5))


def log_of(tmp_path: Path, content: bytes, end: int | None = None) -> Log:
    path = tmp_path / "Data.fs"
    path.write_bytes(content)
    return Log(Reader(str(path), Descriptor(str(path), os.O_RDONLY)), len(content) if end is None else end)


def records_of(log: Log) -> list[RecordedObject]:
    return [record for transaction in log.transactions(None, None) for record in transaction.records]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30))), st.integers(0, 60), st.integers(1, 10))
def test_a_window_shows_the_file_and_no_more(
    tmp_path_factory: pytest.TempPathFactory, reads: list[tuple[int, int]], limit: int, size: int
) -> None:
    path = tmp_path_factory.mktemp("window") / "file"
    content = bytes(range(50))
    path.write_bytes(content)
    window = Window(Descriptor(str(path), os.O_RDONLY), limit, size)
    for position, count in reads:
        assert window.bytes_at(position, count) == content[:limit][position : position + count]
        expected = content[:limit][position : position + 8]
        assert window.length_at(position) == (int.from_bytes(expected, "big") if len(expected) == 8 else None)


def test_records_tell_what_they_repeat(tmp_path: Path) -> None:
    file = File().add((A, b"first"), metadata=(b"u", b"dd", b"eee")).add((A, b"second"))
    file.add((A, file.records[0][0]), (B, b"b"), status=b"p").add((A, 0))
    walked = [(t.tid, t.status, list(t.records)) for t in log_of(tmp_path, file.content).transactions(None, None)]
    assert walked == [
        (T1, b" ", [RecordedObject(A, T1, b"first", None)]),
        (T2, b" ", [RecordedObject(A, T2, b"second", None)]),
        (T3, b"p", [RecordedObject(A, T3, b"first", T1), RecordedObject(B, T3, b"b", None)]),
        (T4, b" ", [RecordedObject(A, T4, None, None)]),
    ]
    first = next(log_of(tmp_path, file.content).transactions(None, None)).metadata
    assert (first.user, first.description, first.extension) == (b"u", b"dd", b"eee")


def test_a_repeated_deletion_is_a_deletion(tmp_path: Path) -> None:
    file = File().add((A, b"first")).add((A, 0))
    file.add((A, file.records[1][0]))
    last = next(log_of(tmp_path, file.content).transactions(T3, None))
    assert list(last.records) == [RecordedObject(A, T3, None, T2)]


def test_undone_transactions_are_passed_over(tmp_path: Path) -> None:
    file = File().add((A, b"1")).add((A, b"2"), status=b"u").add((A, b"3"))
    assert [t.tid for t in log_of(tmp_path, file.content).transactions(None, None)] == [T1, T3]


def test_headers_come_backwards_to_the_first(tmp_path: Path) -> None:
    file = File().add((A, b"1")).add().add((A, b"x" * 5000))
    log = log_of(tmp_path, file.content)
    assert [header.position for header in log.headers_backwards()] == file.starts[::-1]
    assert list(log_of(tmp_path, b"FS30").headers_backwards()) == []


def test_nothing_beyond_the_end_is_walked(tmp_path: Path) -> None:
    file = File().add((A, b"1")).add((A, b"2"))
    log = log_of(tmp_path, file.content, file.starts[1])
    assert [t.tid for t in log.transactions(None, None)] == [T1]
    assert [header.tid for header in log.headers_backwards()] == [T1]
    assert list(log_of(tmp_path, b"FS30").transactions(T1, T2)) == []


@pytest.mark.parametrize("start", [T1, T2, T3, T4])
def test_large_records_between_small_ones(tmp_path: Path, start: bytes) -> None:
    file = File().add((A, b"1"))
    for _ in range(3):
        file.add((A, b"x" * 1_500_000), (B, b"small"))
    walked = [(t.tid, [r.oid for r in t.records]) for t in log_of(tmp_path, file.content).transactions(start, None)]
    assert walked == [(T1, [A]), (T2, [A, B]), (T3, [A, B]), (T4, [A, B])][int(start[7]) - 1 :]


def test_damage_is_named_by_its_position(tmp_path: Path) -> None:
    file = File().add((A, b"1")).add((A, b"2"))
    second, record = file.starts[1], file.records[1][0]
    for content, position in (
        (file.patched(second + 16, b"x"), second),
        (file.patched(second + 8, pack_id(10)), second),
        (file.patched(record + 24, pack_id(4)), record),
        (file.patched(record + 34, pack_id(400)), record),
    ):
        with pytest.raises(FileFormatError) as caught:
            records_of(log_of(tmp_path, content))
        assert caught.value.position == position
    for tail in (bytes(8), pack_id(22), pack_id(2**60), pack_id(len(file.content) - second - 9)):
        with pytest.raises(FileFormatError):
            list(log_of(tmp_path, file.patched(len(file.content) - 8, tail)).headers_backwards())
