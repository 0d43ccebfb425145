"""What a pack keeps, on logs built by hand."""

from pathlib import Path

import pytest

from tests.server.storages.file.build import File
from tests.server.storages.file.graphs import node, record
from tests.server.storages.file.test_asof import reader_of, scanned
from zeo_core.errors import FileFormatError, RecordFormatError, StorageError
from zeo_core.ids import pack_id
from zeo_server.storages.file.asof import headers
from zeo_server.storages.file.kept import Kept
from zeo_server.storages.file.log import Window


def kept(directory: Path, file: File, tid: int, *, gc: bool = True) -> list[int]:
    """Return the positions that a pack of `file` up to `tid` keeps."""
    reader = reader_of(directory, file.content)
    as_of = scanned(reader, tid, len(file.content))
    found = Kept(reader, as_of, gc=gc)
    found.add_roots()
    window = Window(reader.descriptor, len(file.content))
    for header in headers(reader.path, window, as_of.boundary, len(file.content)):
        found.examine(window, header)
    for _ in found.mark():
        pass
    return list(found.positions)


def objects(*contents: tuple[int, bytes | int]) -> list[tuple[bytes, bytes | int]]:
    return [(pack_id(number), data) for number, data in contents]


def test_the_current_records_of_what_the_root_leads_to(tmp_path: Path) -> None:
    file = File().add(*objects((0, node(1)), (1, node(2)), (2, node(1)), (3, node(1)))).add(*objects((1, node(2))))
    first, second = file.records
    assert kept(tmp_path, file, 2) == [first[0], first[2], second[0]]
    assert kept(tmp_path, file, 2, gc=False) == [first[0], first[2], first[3], second[0]]


def test_what_later_records_refer_to_and_are_revisions_of(tmp_path: Path) -> None:
    contents = [(0, node()), (1, node(2)), (2, node()), (3, node(4)), (4, node()), (5, node())]
    file = File().add(*objects(*contents)).add(*objects((0, node(1)), (3, node())))
    assert kept(tmp_path, file, 1) == file.records[0][:5]


def test_where_later_back_pointers_lead(tmp_path: Path) -> None:
    file = File().add(*objects((0, node(1)), (1, node(2)), (2, node()), (3, node())))
    file.add(*objects((1, node(3))))
    file.add(*objects((1, file.records[0][1])))
    assert kept(tmp_path, file, 2) == [*file.records[0], file.records[1][0]]
    assert kept(tmp_path, file, 2, gc=False) == [*file.records[0], file.records[1][0]]


def test_a_back_pointer_to_a_deletion_keeps_nothing(tmp_path: Path) -> None:
    file = File().add(*objects((0, node()), (1, node()))).add(*objects((1, 0)))
    file.add(*objects((1, file.records[1][0])))
    assert kept(tmp_path, file, 2) == [file.records[0][0], file.records[1][0]]


def test_references_of_large_and_of_repeating_records_are_followed(tmp_path: Path) -> None:
    file = File().add(*objects((0, node(1)), (1, node(2, text="x" * 9000)), (2, node()), (3, node())))
    file.add(*objects((0, node(3)))).add(*objects((0, file.records[0][0])))
    assert kept(tmp_path, file, 3) == [*file.records[0][1:3], file.records[2][0]]


def test_a_missing_object_is_named_with_who_refers_to_it(tmp_path: Path) -> None:
    file = File().add(*objects((0, node(1)), (1, node(2))))
    with pytest.raises(StorageError, match=r"0x01 refers, .* byte \d+, to 0x02, .* not there"):
        kept(tmp_path, file, 1)
    later = File().add(*objects((0, node()))).add(*objects((0, node(7))))
    with pytest.raises(StorageError, match="0x07"):
        kept(tmp_path, later, 1)


def test_what_exists_only_later_is_not_missing(tmp_path: Path) -> None:
    file = (
        File().add(*objects((0, node(1)), (1, node()))).add(*objects((1, 0))).add(*objects((1, node(2)), (2, node())))
    )
    assert kept(tmp_path, file, 2) == [file.records[0][0], file.records[1][0]]


def test_a_deleted_object_must_not_be_referred_to(tmp_path: Path) -> None:
    file = File().add(*objects((0, node(1)), (1, node()))).add(*objects((1, 0)))
    with pytest.raises(StorageError, match="0x01 is deleted"):
        kept(tmp_path, file, 2)


def test_without_a_root_everything_would_go(tmp_path: Path) -> None:
    file = File().add(*objects((1, node())))
    with pytest.raises(StorageError, match="no root"):
        kept(tmp_path, file, 1)
    assert kept(tmp_path, file, 1, gc=False) == file.records[0]


@pytest.mark.parametrize("data", [b"no pickle", b"{unknown}x", record(b"short")])
def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, data: bytes) -> None:
    file = File().add(*objects((0, node(7)), (7, data)))
    with pytest.raises(RecordFormatError, match=f"0x07 .* byte {file.records[0][1]}"):
        kept(tmp_path, file, 1)
    assert kept(tmp_path, file, 1, gc=False) == file.records[0]


def test_damage_is_named(tmp_path: Path) -> None:
    file = File().add(*objects((0, node()))).add(*objects((0, node())))
    file.content = file.patched(file.records[1][0] + 24, bytes(8))
    with pytest.raises(FileFormatError, match=f"byte {file.records[1][0]}"):
        kept(tmp_path, file, 1)
