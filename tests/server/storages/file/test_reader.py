"""Single records: found, followed, and refused when they are not what they have to be."""

import os
from pathlib import Path

import pytest

from tests.server.storages.file.build import File
from zeo_core.errors import FileFormatError, POSKeyError
from zeo_core.ids import MAX_TID, pack_id
from zeo_server.storages.file.reader import Descriptor, Reader, RecordHeader

A, B = pack_id(1), pack_id(2)
T1, T2, T3, T4, T5 = map(pack_id, range(1, 6))


def reader_of(tmp_path: Path, content: bytes) -> Reader:
    path = tmp_path / "Data.fs"
    path.write_bytes(content)
    return Reader(str(path), Descriptor(str(path), os.O_RDONLY))


@pytest.fixture
def undone() -> File:
    """A was created, changed, its change undone, its creation undone; then a repetition of that repetition."""
    file = File().add((A, b"first"), metadata=(b"user", b"description", b"extension"))
    file.add((A, b"second"), (B, b"b"))
    file.add((A, file.records[0][0]))
    file.add((A, 0))
    return file.add((A, file.records[2][0]))


def test_load_before_follows_previous_and_back_pointers(tmp_path: Path, undone: File) -> None:
    reader, last = reader_of(tmp_path, undone.content), undone.current[A]
    assert reader.load_before(A, MAX_TID, last) == (b"first", T5, None)
    assert reader.load_before(A, T4, last) == (b"first", T3, T4)
    assert reader.load_before(A, T3, last) == (b"second", T2, T3)
    assert reader.load_before(A, T2, last) == (b"first", T1, T2)
    assert reader.load_before(A, T1, last) is None
    with pytest.raises(POSKeyError):
        reader.load_before(A, T5, last)


def test_load_serial_follows_them_too(tmp_path: Path, undone: File) -> None:
    reader, last = reader_of(tmp_path, undone.content), undone.current[A]
    loaded = [reader.load_serial(A, tid, last) for tid in (T1, T2, T3, T5)]
    assert loaded == [b"first", b"second", b"first", b"first"]
    for tid in (T4, MAX_TID, bytes(8)):
        with pytest.raises(POSKeyError):
            reader.load_serial(A, tid, last)


def test_revisions_tell_the_size_of_what_is_repeated(tmp_path: Path, undone: File) -> None:
    entries = reader_of(tmp_path, undone.content).revisions(A, 10, undone.current[A])
    assert [(entry.tid, entry.size) for entry in entries] == [(T5, 5), (T4, 0), (T3, 5), (T2, 6), (T1, 5)]
    metadata = entries[-1].metadata
    assert (metadata.user, metadata.description, metadata.extension) == (b"user", b"description", b"extension")


def test_headers_and_tids(tmp_path: Path, undone: File) -> None:
    reader, first = reader_of(tmp_path, undone.content), undone.records[0][0]
    assert reader.tid_at(A, undone.current[A]) == T5
    assert reader.header(A, first) == RecordHeader(T1, 0, 4, 5, None)
    assert reader.header(A, undone.records[2][0]) == RecordHeader(T3, undone.records[1][0], undone.starts[2], 0, first)


def test_two_records_of_one_object_in_a_transaction_count_as_the_last(tmp_path: Path) -> None:
    file = File().add((A, b"old")).add((A, b"early"), (A, b"late"))
    reader = reader_of(tmp_path, file.content)
    assert reader.load_before(A, MAX_TID, file.current[A]) == (b"late", T2, None)
    assert reader.load_before(A, T2, file.current[A]) == (b"old", T1, T2)
    assert reader.load_serial(A, T2, file.current[A]) == b"late"


@pytest.mark.parametrize("size", [4053, 4054, 4055, 9000])
def test_data_may_be_larger_than_the_page_read_first(tmp_path: Path, size: int) -> None:
    file = File().add((A, b"x" * size)).add((B, b"next"))
    reader = reader_of(tmp_path, file.content)
    assert reader.load_before(A, MAX_TID, file.current[A]) == (b"x" * size, T1, None)
    assert reader.data(A, file.current[A]) == b"x" * size


def test_the_first_revision_says_whether_there_may_have_been_others(tmp_path: Path) -> None:
    file = File().add((A, b"first"), status=b"p").add((A, b"second"), (B, b"b")).add((B, 0))
    reader = reader_of(tmp_path, file.content)
    assert reader.first_revision(A, file.current[A]) == (T1, True)
    assert reader.first_revision(B, file.current[B]) == (T2, False)


def test_damaged_records_are_named_by_file_and_position(tmp_path: Path) -> None:
    file = File().add((A, b"first")).add((A, b"second"))
    here = file.current[A]
    damages = {
        "another oid": file.patched(here, B),
        "a version": file.patched(here + 32, b"\0\1"),
        "a pointer forward": file.patched(here + 16, pack_id(here)),
        "no data": file.content[: here + 44],
        "no whole header": file.content[: here + 30],
        "nothing": file.content[: here - 30],
        "too much data": file.patched(here + 34, pack_id(2**40)),
    }
    for name, content in damages.items():
        reader = reader_of(tmp_path, content)
        # Only who goes on to the previous record looks at the pointer to it.
        before = T2 if name == "a pointer forward" else MAX_TID
        with pytest.raises(FileFormatError) as caught:
            reader.load_before(A, before, here)
        assert caught.value.path == str(tmp_path / "Data.fs"), name
        assert here <= caught.value.position <= here + 42, name
    with pytest.raises(FileFormatError):
        reader_of(tmp_path, damages["another oid"]).tid_at(A, here)


def test_back_pointers_that_lead_forward_are_damage(tmp_path: Path) -> None:
    file = File().add((A, b"first"))
    file.add((A, 10_000))
    with pytest.raises(FileFormatError, match="not earlier"):
        reader_of(tmp_path, file.content).load_before(A, MAX_TID, file.current[A])


def test_a_descriptor_is_closed_when_nobody_reads_through_it(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, File().content)
    fd = reader.descriptor.fd
    os.fstat(fd)
    del reader
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_file_that_cannot_be_opened_leaves_nothing_to_close(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Descriptor(str(tmp_path / "missing"), os.O_RDONLY)
