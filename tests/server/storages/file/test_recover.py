"""Opening files that a crash, another program or a mistake has left."""

import logging
import os
import random
from pathlib import Path

import pytest

from tests.server.storages.file.build import File
from zeo_core.errors import FileFormatError
from zeo_core.ids import ZERO_TID, pack_id, tid_from_time
from zeo_server.storages.file.index import Index
from zeo_server.storages.file.reader import Descriptor, Reader
from zeo_server.storages.file.recover import Contents, read_contents

A, B, C = pack_id(1), pack_id(2), pack_id(3)


def open_file(directory: Path, content: bytes | None = None, *, read_only: bool = False) -> Contents:
    path = directory / "Data.fs"
    if content is not None:
        path.write_bytes(content)
    return read_contents(Reader(str(path), Descriptor(str(path), os.O_RDONLY)), read_only=read_only)


def save_index(directory: Path, index: Index, end: int) -> None:
    (directory / "Data.fs.index").write_bytes(b"".join(index.saved(end)))


def three() -> File:
    """Return a file of three transactions, of which the last two could have been one group."""
    file = File().add((A, b"a1"), (B, b"b1"), metadata=(b"user", b"", b""))
    return file.add((A, b"a2" * 20)).add((B, b"b3"), (C, b"c3"), metadata=(b"", b"what", b""))


def assert_is_prefix(directory: Path, contents: Contents, file: File, count: int) -> None:
    """Assert that exactly the first `count` transactions of `file` are there, and that the rest was kept."""
    assert contents.last_tid == pack_id(count)
    assert contents.end == ([*file.starts, len(file.content)])[count]
    expected = File()
    for number in range(count):
        start, end = [*file.starts, len(file.content)][number : number + 2]
        expected.content += file.content[start:end]
        for oid in (A, B, C):
            for position in file.records[number]:
                if file.content[position : position + 8] == oid:
                    expected.current[oid] = position
    assert {oid: contents.index.position(oid) for oid in expected.current} == expected.current
    assert len(contents.index) == len(expected.current)
    assert (directory / "Data.fs").read_bytes()[4:] == expected.content[4:]


def test_a_whole_file_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = three()
    contents = open_file(tmp_path, file.content)
    assert_is_prefix(tmp_path, contents, file, 3)
    assert contents.scanned == len(file.content) - 4
    assert os.listdir(tmp_path) == ["Data.fs"]
    assert caplog.messages == []


def test_a_file_of_python_2_is_read(tmp_path: Path) -> None:
    assert open_file(tmp_path, File(b"FS21").add((A, b"a")).content).last_tid == pack_id(1)


@pytest.mark.parametrize("content", [b"", b"FS", b"FS40" + bytes(100), b"\x89PNG" + bytes(100)])
def test_what_is_no_data_fs_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(FileFormatError, match=r"Data\.fs: damaged at byte 0: no Data\.fs"):
        open_file(tmp_path, content)
    assert (tmp_path / "Data.fs").read_bytes() == content


def test_a_file_that_is_being_made_is_empty_for_readers(tmp_path: Path) -> None:
    for content in (b"", b"FS"):
        assert open_file(tmp_path, content, read_only=True).last_tid == ZERO_TID


@pytest.mark.parametrize("indexed", [False, True])
def test_cut_at_any_byte_the_whole_transactions_before_it_are_there(
    tmp_path: Path, indexed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    file = three()
    caplog.set_level(logging.WARNING)
    for size in range(file.starts[1], len(file.content)):
        if indexed:
            save_index(tmp_path, open_file(tmp_path, file.content[: file.starts[1]]).index, file.starts[1])
        caplog.clear()
        contents = open_file(tmp_path, file.content[:size])
        count = 1 if size < file.starts[2] else 2
        assert_is_prefix(tmp_path, contents, file, count)
        lost = file.content[contents.end : size]
        kept = tmp_path / "Data.fs.tr0"
        assert kept.exists() == bool(lost)
        if lost:
            assert kept.read_bytes() == lost
            kept.unlink()
            assert len(caplog.messages) == 1
            assert f"Data.fs: {len(lost)} bytes cut off at byte {contents.end}, since it ends" in caplog.messages[0]


@pytest.mark.parametrize(("statuses", "count"), [(b"cc", 1), (b"c ", 1), (b" c", 2), (b"  ", 3), (b"up", 3)])
def test_unfinished_transactions_are_cut_off_with_all_behind_them(tmp_path: Path, statuses: bytes, count: int) -> None:
    file = three()
    for start, status in zip(file.starts[1:], statuses, strict=True):
        file.content = file.patched(start + 16, bytes([status]))
    contents = open_file(tmp_path, file.content)
    if statuses == b"up":
        assert contents.index.position(A) == file.records[0][0]
        assert contents.end == len(file.content)
    else:
        assert_is_prefix(tmp_path, contents, file, count)
    for size in range(file.starts[1], len(file.content)):
        cut = open_file(tmp_path, file.content[:size], read_only=True)
        assert cut.end == min(file.starts[2] if size >= file.starts[2] else file.starts[1], contents.end)


def test_pages_written_out_of_order_leave_no_part_of_an_unfinished_group(tmp_path: Path) -> None:
    file = File().add((A, b"kept" * 300))
    kept = len(file.content)
    for number in range(4):
        file.add((B, b"x" * (300 * number + 5)), (C, b"y" * 500), status=b"c")
    chance = random.Random(42)
    for _ in range(150):
        torn = bytearray(file.content[: chance.randrange(kept, len(file.content) + 1)])
        for page in range(0, len(torn), 512):
            if chance.random() < 0.4:
                torn[max(page, kept) : page + 512] = bytes(len(torn[max(page, kept) : page + 512]))
        contents = open_file(tmp_path, bytes(torn))
        assert (contents.end, contents.last_tid) == (kept, pack_id(1))
        assert (tmp_path / "Data.fs").read_bytes() == file.content[:kept]


def test_kept_tails_are_numbered(tmp_path: Path) -> None:
    file = three()
    for number in range(3):
        open_file(tmp_path, file.content[: -1 - number])
    sizes = [(tmp_path / f"Data.fs.tr{number}").stat().st_size for number in range(3)]
    whole = len(file.content) - file.starts[2]
    assert sizes == [whole - 1, whole - 2, whole - 3]


def test_a_large_tail_is_kept_whole(tmp_path: Path) -> None:
    file = three()
    tail = random.Random(1).randbytes(2_500_000)
    open_file(tmp_path, file.content + bytes(8) + tail)
    assert (tmp_path / "Data.fs.tr0").read_bytes() == bytes(8) + tail


def test_read_only_cuts_nothing_and_stops_at_the_last_whole_transaction(tmp_path: Path) -> None:
    file = three()
    for content in (file.content[:-1], file.patched(file.starts[2] + 16, b"c")):
        contents = open_file(tmp_path, content, read_only=True)
        assert (contents.end, contents.last_tid) == (file.starts[2], pack_id(2))
        assert (tmp_path / "Data.fs").read_bytes() == content
        assert os.listdir(tmp_path) == ["Data.fs"]


def test_damage_before_a_finished_transaction_is_reported_and_nothing_is_cut(tmp_path: Path) -> None:
    file = three()
    start, record = file.starts[1], file.records[1][0]
    end = file.starts[2]
    damages = {
        "an unknown status": (start + 16, b"x", start),
        "a status of an unfinished transaction": (start, bytes(16) + b"c", start),
        "zeros in place of the header": (start, bytes(23), start),
        "a length too long": (start + 8, pack_id(2**40), start),
        "a length a little too long": (start + 8, pack_id(end - start), start),
        "a length too short": (start + 8, pack_id(5), start),
        "another repeated length": (end - 8, pack_id(17), start),
        "a record of another transaction": (record + 24, pack_id(4), record),
        "a version in a record": (record + 32, b"\0\1", record),
        "a record too long": (record + 34, pack_id(500), start),
        "a record too short": (record + 34, pack_id(2), record + 44),
    }
    for name, (position, data, reported) in damages.items():
        content = file.patched(position, data)
        with pytest.raises(FileFormatError) as caught:
            open_file(tmp_path, content)
        assert caught.value.position == reported, name
        assert caught.value.path == str(tmp_path / "Data.fs")
        assert (tmp_path / "Data.fs").read_bytes() == content
    assert os.listdir(tmp_path) == ["Data.fs"]


def test_a_damaged_last_transaction_whose_lengths_agree_is_not_cut(tmp_path: Path) -> None:
    file = three()
    with pytest.raises(FileFormatError):
        open_file(tmp_path, file.patched(file.records[2][0] + 24, pack_id(4)))
    with pytest.raises(FileFormatError, match="follows at byte"):
        open_file(tmp_path, File().add((A, b"x")).add().patched(4 + 16, b"x"))


def test_a_finished_transaction_is_found_behind_a_large_gap(tmp_path: Path) -> None:
    file = File().add((A, b"1")).add((A, bytes(3_000_000))).add((A, b"3"))
    with pytest.raises(FileFormatError, match=f"follows at byte {file.starts[2]}"):
        open_file(tmp_path, file.patched(file.starts[1], bytes(23)))


def test_an_index_saves_the_scan_of_what_it_covers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = three()
    for count, end in enumerate([*file.starts, len(file.content)]):
        save_index(tmp_path, open_file(tmp_path, file.content[:end]).index, end)
        contents = open_file(tmp_path, file.content)
        assert_is_prefix(tmp_path, contents, file, 3)
        assert contents.scanned == len(file.content) - end, count
        (tmp_path / "Data.fs.index").unlink()
    assert caplog.messages == []


def test_an_index_that_is_not_this_files_is_ignored_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = three()
    other = File().add((C, b"another"), (B, b"database")).add((A, b"with" * 16)).add((B, b"b3"), (C, b"c3"))
    longer = three().add((A, b"newer"))
    cases = {
        "longer": (open_file(tmp_path, longer.content).index, len(longer.content)),
        "other": (open_file(tmp_path, other.content).index, len(other.content)),
        "within": (open_file(tmp_path, file.content).index, file.starts[2] + 5),
        "stale": (open_file(tmp_path, file.content[: file.starts[1]]).index, len(file.content)),
        "empty": (Index(), len(file.content)),
        "before the file": (Index(), 2),
    }
    for name, (index, end) in cases.items():
        caplog.clear()
        save_index(tmp_path, index, end)
        contents = open_file(tmp_path, file.content)
        assert_is_prefix(tmp_path, contents, file, 3)
        assert contents.scanned == len(file.content) - 4, name
        assert len(caplog.messages) == 1, name
        assert "Data.fs.index: not used" in caplog.messages[0]


def test_a_damaged_index_is_ignored_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "Data.fs.index").write_bytes(b"no index")
    assert_is_prefix(tmp_path, open_file(tmp_path, three().content), three(), 3)
    assert "no index" in caplog.messages[0]
    (tmp_path / "Data.fs.index").unlink()
    (tmp_path / "Data.fs.index").mkdir()
    assert_is_prefix(tmp_path, open_file(tmp_path, three().content), three(), 3)


def test_an_index_is_not_misled_by_undone_and_empty_transactions(tmp_path: Path) -> None:
    file = three().add((A, b"undone"), status=b"u").add()
    index = open_file(tmp_path, file.content).index
    assert index.position(A) == file.records[1][0]
    save_index(tmp_path, index, len(file.content))
    contents = open_file(tmp_path, file.content)
    assert (contents.scanned, contents.last_tid) == (0, pack_id(5))


def test_tids_that_do_not_grow_or_lie_in_the_future_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = three()
    contents = open_file(tmp_path, file.patched(file.starts[1], pack_id(1000)))
    assert contents.last_tid == pack_id(1000)
    assert "tids do not grow" in caplog.messages[0]
    caplog.clear()
    future = tid_from_time(4e9)
    for position in (file.starts[2], *(record + 8 for record in file.records[2])):
        file.content = file.patched(position, future)
    assert open_file(tmp_path, file.content).last_tid == future
    assert "from the future" in caplog.messages[0]


@pytest.mark.parametrize(
    ("offset", "data", "reason"),
    [
        (8, pack_id(2), "another tid"),
        (0, pack_id(3), "points to byte 31, which has none of it"),
        (23, b"\x2a", "points to byte 42, which has none of it"),
    ],
    ids=["tid", "oid", "previous record"],
)
def test_damaged_records_of_the_last_transaction_are_refused(
    tmp_path: Path, offset: int, data: bytes, reason: str
) -> None:
    file = File().add((A, b"a1"), metadata=(b"user", b"", b"")).add((B, b"b2")).add((A, b"a3"), (B, b"b3"))
    position = file.records[2][0]
    with pytest.raises(FileFormatError, match=reason) as caught:
        open_file(tmp_path, file.patched(position + offset, data))
    assert caught.value.position == position
    file.add((C, b"c4"))  # an earlier one is looked at when it is read
    assert open_file(tmp_path, file.patched(position + offset, data)).last_tid == pack_id(4)


def test_a_back_pointer_of_the_last_transaction_is_not_taken_for_data(tmp_path: Path) -> None:
    file = File().add((A, b"a1"))
    file.add((A, file.records[0][0]))
    position = file.records[1][0]
    with pytest.raises(FileFormatError, match="are a back pointer") as caught:
        open_file(tmp_path, file.patched(position + 41, b"\x08"))
    assert caught.value.position == position
