"""Laying out and writing groups: the bytes, and what a failing disk leaves."""

import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.storages.file.build import File
from zeo_core.errors import StorageClosedError, StorageError, StorageFullError
from zeo_core.ids import ZERO_TID, Oid, Tid, pack_id, unpack_id
from zeo_core.transaction import ObjectWrite, PreparedTransaction, TransactionMetadata
from zeo_server.storages.file import writer as writer_module
from zeo_server.storages.file.format import STATUS_OFFSET
from zeo_server.storages.file.index import Index
from zeo_server.storages.file.log import Log
from zeo_server.storages.file.reader import Descriptor, Reader
from zeo_server.storages.file.writer import FileGroup, Writer, lay_out

A, B = pack_id(1), pack_id(2)


def prepared(
    *objects: tuple[Oid, bytes], metadata: tuple[bytes, bytes, bytes] = (b"", b"", b"")
) -> PreparedTransaction:
    writes = tuple(ObjectWrite(oid, ZERO_TID, data) for oid, data in objects)
    return PreparedTransaction(TransactionMetadata(*metadata), writes)


def writer_of(path: Path, content: bytes = b"FS30") -> Writer:
    path.write_bytes(content)
    return Writer(str(path), Descriptor(str(path), os.O_RDWR), len(content), ZERO_TID)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Make the system refuse writes beyond `size`, as a full disk does: the first part is written, the rest is not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# 1900: no later than any tid, so that each tid is the successor of the last.
_BEFORE_ALL_TIDS_S = -2208988800.0

oids = st.one_of(st.integers(0, 8), st.integers(2**16 - 2, 2**16 + 2), st.integers(0, 2**64 - 1)).map(pack_id)
objects = st.dictionaries(oids, st.binary(max_size=19).map(lambda data: b"." + data), max_size=5)
texts = st.tuples(*[st.binary(max_size=9)] * 3)


@settings(max_examples=50)
@given(st.lists(st.tuples(objects, texts), max_size=5))
def test_a_group_is_laid_out_as_the_format_says(
    content: list[tuple[dict[Oid, bytes], tuple[bytes, bytes, bytes]]],
) -> None:
    expected, index, position, last_tid, laid = File(), Index(), 4, ZERO_TID, b""
    for number, (data, metadata) in enumerate(content, 1):
        transaction = prepared(*data.items(), metadata=metadata)
        layout = lay_out([transaction], position, pack_id(number - 1), _BEFORE_ALL_TIDS_S, index)
        index.update(layout.group.entries)
        laid += b"".join(piece if isinstance(piece, bytes) else piece.read() for piece in layout.pieces)
        position, last_tid = layout.group.end, layout.group.tids[-1]
        expected.add(*data.items(), status=b"c", metadata=metadata)
        assert layout.marks == [(expected.starts[-1] + STATUS_OFFSET, b" ")]
        assert layout.group.oids == [tuple(data)]
    assert laid == expected.content[4:]
    assert position == len(expected.content)
    assert last_tid == expected.last_tid
    assert {oid: index.position(oid) for oid in expected.current} == expected.current


def test_tids_of_a_group_grow_from_the_clock_or_the_last() -> None:
    group = lay_out([prepared()] * 3, 4, ZERO_TID, 1e9, Index()).group
    numbers = [unpack_id(tid) for tid in group.tids]
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    ahead = pack_id(numbers[0] + 2**40)
    assert lay_out([prepared()], 4, ahead, 1e9, Index()).group.tids == [pack_id(unpack_id(ahead) + 1)]


def test_a_written_group_is_finished_and_closed_up(tmp_path: Path) -> None:
    writer, index = writer_of(tmp_path / "Data.fs"), Index()
    first = writer.write([prepared((A, b"a")), prepared((B, b"b"))], index)
    index.update(first.entries)
    second = writer.write([prepared((A, b"aa"))], index)
    content = (tmp_path / "Data.fs").read_bytes()
    assert len(content) == second.end
    expected = File().add((A, b"a")).add((B, b"b")).add((A, b"aa"))
    tids: list[Tid] = [*first.tids, *second.tids]
    for start, records, tid in zip(expected.starts, expected.records, tids, strict=True):
        expected.content = expected.patched(start, tid)
        expected.content = expected.patched(records[0] + 8, tid)
    assert content == expected.content


def test_spooled_data_are_read_only_when_they_are_written(tmp_path: Path) -> None:
    class Spooled:
        reads = 0

        def __len__(self) -> int:
            return 3

        def read(self) -> bytes:
            self.reads += 1
            return b"aaa"

    spooled = Spooled()
    transaction = PreparedTransaction(
        TransactionMetadata(), (ObjectWrite(A, ZERO_TID, spooled), ObjectWrite(B, ZERO_TID, b"b"))
    )
    writer, index = writer_of(tmp_path / "Data.fs"), Index()
    layout = lay_out([transaction], 4, ZERO_TID, 1e9, index)
    assert spooled.reads == 0
    group = writer.write([transaction], index)
    assert (spooled.reads, group.end) == (1, layout.group.end)
    expected = File().add((A, b"aaa"), (B, b"b"))
    assert len((tmp_path / "Data.fs").read_bytes()) == len(expected.content)
    assert b"aaa" in (tmp_path / "Data.fs").read_bytes()


def test_an_empty_group_writes_nothing(tmp_path: Path) -> None:
    writer = writer_of(tmp_path / "Data.fs")
    assert writer.write([], Index()) == FileGroup([], [], {}, 4)
    assert (tmp_path / "Data.fs").read_bytes() == b"FS30"
    assert writer.write([prepared((A, b"a"))], Index()).tids


def test_a_large_group_is_written_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = [prepared(*((pack_id(number), b"x" * number) for number in range(1, 60)))] * 2
    writer_of(tmp_path / "whole").write(group, Index())
    monkeypatch.setattr(writer_module, "_BLOCK_BYTES", 100)
    writer_of(tmp_path / "blocks").write(group, Index())
    whole, blocks = ((tmp_path / name).read_bytes() for name in ("whole", "blocks"))
    assert len(whole) == len(blocks)
    assert whole.count(b"x" * 59) == blocks.count(b"x" * 59) == 2


@pytest.mark.parametrize("room", [0, 1, 30, 150])
def test_a_write_that_fails_half_way_is_taken_back(tmp_path: Path, room: int) -> None:
    path = tmp_path / "Data.fs"
    writer = writer_of(path)
    writer.write([prepared((A, b"kept"))], Index())
    before = path.read_bytes()
    with file_size_limit(len(before) + room), pytest.raises(StorageError, match=r"Data\.fs: File too large"):
        writer.write([prepared((A, b"x" * 1000))], Index())
    assert path.read_bytes() == before
    group = writer.write([prepared((B, b"afterwards"))], Index())
    assert len(path.read_bytes()) == group.end


def test_a_full_disk_is_a_storage_full_error() -> None:
    writer = Writer("/dev/full", Descriptor("/dev/full", os.O_RDWR), 4, ZERO_TID)
    with pytest.raises(StorageFullError, match="/dev/full: No space left"):
        writer.write([prepared((A, b"a"))], Index())
    # a device cannot be cut back to its length, so what is in it is unknown
    with pytest.raises(StorageClosedError, match="could not be taken back"):
        writer.write([prepared((A, b"a"))], Index())


def test_after_a_failed_sync_nothing_is_written_any_more() -> None:
    writer = Writer(os.devnull, Descriptor(os.devnull, os.O_RDWR), 4, ZERO_TID)
    with pytest.raises(StorageError, match="/dev/null: Invalid argument"):
        writer.write([prepared((A, b"a"))], Index())
    with pytest.raises(StorageClosedError, match="on its way to disk"):
        writer.write([prepared((A, b"a"))], Index())


def test_a_finishing_that_is_interrupted_takes_the_group_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "Data.fs"
    writer = writer_of(path)
    writer.write([prepared((A, b"kept"))], Index())
    before = path.read_bytes()
    syncs: list[int] = []

    def interrupted(fd: int) -> None:
        syncs.append(fd)
        if len(syncs) == 2:
            raise KeyboardInterrupt  # as a signal would, between the marking and the second sync

    monkeypatch.setattr(os, "fdatasync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        writer.write([prepared((A, b"lost"))] * 2, Index())
    assert path.read_bytes() == before
    with pytest.raises(StorageClosedError):
        writer.write([prepared((A, b"refused"))], Index())


def test_a_group_that_cannot_be_laid_out_leaves_the_writer_usable(tmp_path: Path) -> None:
    writer = writer_of(tmp_path / "Data.fs")
    with pytest.raises(AttributeError):
        writer.write([prepared((A, "text"))], Index())  # type: ignore[arg-type]
    assert writer.write([prepared((A, b"a"))], Index()).tids


def test_a_closed_writer_gives_the_first_reason(tmp_path: Path) -> None:
    writer = writer_of(tmp_path / "Data.fs")
    writer.close("first")
    writer.close("second")
    with pytest.raises(StorageClosedError, match="first"):
        writer.write([], Index())


def test_what_was_anticipated_is_finished_and_nothing_else_is_written(tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    writer, index = writer_of(path), Index()
    expected = prepared((A, b"a"), metadata=(b"user", b"", b""))
    writer.anticipate(expected, index)
    before = path.read_bytes()
    assert before[4 + STATUS_OFFSET : 5 + STATUS_OFFSET] == b"c"
    assert writer.end == 4
    group = writer.write([expected], index)
    after = path.read_bytes()
    assert writer.end == group.end == len(after)
    assert after == before[: 4 + STATUS_OFFSET] + b" " + before[5 + STATUS_OFFSET :]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["expected", "equal", "other", "two", "nothing"]), st.integers(1, 300)), max_size=6
    )
)
def test_whatever_is_written_after_an_anticipation_the_file_has_that_and_no_more(steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "Data.fs")
        writer, index, written = writer_of(path), Index(), []
        for number, (what, size) in enumerate(steps):
            anticipated = prepared((A, b"x" * size))
            writer.anticipate(anticipated, index)
            groups = {
                "expected": [anticipated],
                "equal": [prepared((A, b"x" * size))],  # not the same object, so it may be another client's
                "other": [prepared((B, b"y" * (size // 2 + 1)))],
                "two": [anticipated, prepared((B, b"z" * number + b"z"))],
                "nothing": [],
            }
            group = writer.write(groups[what], index)
            index.update(group.entries)
            written += [[(oid, data) for oid, _, data, _, _ in transaction.writes] for transaction in groups[what]]
            assert path.stat().st_size == writer.end
            reader = Reader(str(path), Descriptor(str(path), os.O_RDONLY))
            log = Log(reader, writer.end).transactions(None, None)
            assert [[(oid, data) for oid, _, data, _ in transaction.records] for transaction in log] == written


def test_an_anticipation_that_fails_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    writer = writer_of(path)
    transaction = prepared((A, b"x" * 1000))
    with file_size_limit(100), pytest.raises(StorageError, match=r"Data\.fs: File too large"):
        writer.anticipate(transaction, Index())
    assert path.read_bytes() == b"FS30"
    group = writer.write([transaction], Index())
    assert len(path.read_bytes()) == group.end


def test_what_was_anticipated_in_vain_goes_when_the_writer_leaves(tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    writer = writer_of(path)
    writer.anticipate(prepared((A, b"a")), Index())
    writer.leave()
    assert path.read_bytes() == b"FS30"
