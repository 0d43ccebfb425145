"""The bytes of a packed file."""

import os
from pathlib import Path

import pytest

from tests.server.storages.file.build import File
from tests.server.storages.file.graphs import node
from tests.server.storages.file.test_asof import reader_of, scanned
from tests.server.storages.file.test_kept import objects
from zeo_core.errors import FileFormatError, StorageFullError
from zeo_core.ids import pack_id
from zeo_server.storages.file.asof import headers
from zeo_server.storages.file.kept import Kept
from zeo_server.storages.file.log import Window
from zeo_server.storages.file.packed import Output, PackedFile
from zeo_server.storages.file.reader import Descriptor


def output_of(directory: Path) -> Output:
    path = str(directory / "Data.fs.pack")
    return Output(path, Descriptor(path, os.O_RDWR | os.O_CREAT))


class Packed:
    """A file packed up to a tid, in one go."""

    def __init__(self, directory: Path, file: File, tid: int, *, gc: bool = True) -> None:
        self.path = directory / "Data.fs.pack"
        self.descriptor = Descriptor(str(self.path), os.O_RDWR | os.O_CREAT)
        output = Output(str(self.path), self.descriptor)
        reader = reader_of(directory, file.content)
        end = len(file.content)
        as_of = scanned(reader, tid, end)
        self.kept = Kept(reader, as_of, gc=gc)
        self.kept.add_roots()
        window = Window(reader.descriptor, end)
        for header in headers(reader.path, window, as_of.boundary, end):
            if header.status != b"u":
                self.kept.examine(window, header)
        list(self.kept.mark())
        self.file = PackedFile(reader, as_of, self.kept, output)
        for attempt in range(2):  # the second time all the same
            if attempt:
                self.file.start_over()
            list(self.file.copy_packed())
            list(self.file.copy_rest(end))
        output.sync()

    @property
    def content(self) -> bytes:
        return self.path.read_bytes()


def tid_gap(file: File) -> File:
    """Let a transaction be missing."""
    file.starts.append(0)
    file.records.append([])
    return file


def test_old_revisions_go_and_pointers_move(tmp_path: Path) -> None:
    metadata = (b"user", b"words", b"")
    one, two, three = node(1), node(2), node()
    old = File(b"FS21").add(*objects((0, one), (1, three)), metadata=metadata).add(*objects((1, two), (2, three)))
    old.add(*objects((1, three), (0, node()))).add(*objects((1, old.records[2][0]))).add(*objects((0, node(2))))
    packed = Packed(tmp_path, old, 2)
    new = File(b"FS21").add(*objects((0, one)), metadata=metadata, status=b"p")
    new.add(*objects((1, two), (2, three)), status=b"p")
    new.add(*objects((1, three), (0, node()))).add(*objects((1, new.records[2][0]))).add(*objects((0, node(2))))
    assert packed.content == new.content
    assert packed.file.distance == len(old.content) - len(new.content)
    assert [packed.file.index.position(pack_id(number)) for number in range(3)] == [
        new.current[pack_id(number)] for number in range(3)
    ]


def test_repeated_data_are_written_out_before_the_boundary(tmp_path: Path) -> None:
    old = File().add(*objects((0, node(1)), (1, node()))).add(*objects((0, node())))
    old.add(*objects((0, old.records[0][0])))
    new = tid_gap(File().add(*objects((1, node())), status=b"p"))
    new.add(*objects((0, node(1))), status=b"p")
    assert Packed(tmp_path, old, 3).content == new.content


def test_a_record_that_is_only_repeated_is_on_no_chain(tmp_path: Path) -> None:
    old = File().add(*objects((0, node(1)), (1, node()))).add(*objects((0, node())))
    old.add(*objects((0, old.records[0][0])))
    packed = Packed(tmp_path, old, 2)
    new = File().add(*objects((0, node(1)), (1, node())), status=b"p")
    new.current.clear()
    new.add(*objects((0, node())), status=b"p")
    new.add(*objects((0, new.records[0][0])))
    assert packed.content == new.content


def test_deletions_before_the_boundary_go(tmp_path: Path) -> None:
    old = File().add(*objects((0, node()), (1, node()))).add(*objects((1, 0)))
    old.add(*objects((1, old.records[0][1]))).add(*objects((1, old.records[1][0])))
    new = File().add(*objects((0, node()), (1, node())), status=b"p").add(status=b"p")
    new.current.pop(pack_id(1))
    new.add(*objects((1, new.records[0][1]))).add(*objects((1, 0)))
    assert Packed(tmp_path, old, 2).content == new.content


def test_deletions_before_the_boundary_stay_without_garbage_collection(tmp_path: Path) -> None:
    old = File().add(*objects((0, node()), (1, node()), (2, node()))).add(*objects((1, 0)))
    old.add(*objects((1, node(2))))
    new = File().add(*objects((0, node()), (2, node())), status=b"p").add(*objects((1, 0)), status=b"p")
    new.add(*objects((1, node(2))))
    assert Packed(tmp_path, old, 2, gc=False).content == new.content


def test_the_first_transaction_stays_if_it_never_had_records(tmp_path: Path) -> None:
    old = File().add(metadata=(b"", b"mark", b"")).add(*objects((0, node()))).add(*objects((0, node())))
    new = tid_gap(File().add(metadata=(b"", b"mark", b""), status=b"p")).add(*objects((0, node())), status=b"p")
    assert Packed(tmp_path, old, 3).content == new.content


def test_undone_transactions_behind_the_boundary_stay_and_count_for_nothing(tmp_path: Path) -> None:
    old = File().add(*objects((0, node()), (1, node(9)))).add(*objects((0, node(1))), status=b"u")
    packed = Packed(tmp_path, old, 1)
    new = File().add(*objects((0, node()), (1, 0)), status=b"p").add(*objects((0, node(1))), status=b"u")
    assert packed.content == new.content
    assert packed.file.index.position(pack_id(0)) == new.records[0][0]


def test_the_last_transaction_before_the_boundary_and_the_highest_oid_stay(tmp_path: Path) -> None:
    old = File().add(*objects((0, node()), (5, node()))).add(*objects((4, node())), metadata=(b"u", b"d", b""))
    new = File().add(*objects((0, node())), status=b"p")
    new.add(*objects((5, 0)), metadata=(b"u", b"d", b""), status=b"p")
    assert Packed(tmp_path, old, 2).content == new.content


def test_a_log_without_objects_before_the_boundary(tmp_path: Path) -> None:
    old = File().add(metadata=(b"u", b"", b"")).add(*objects((0, node())))
    new = File().add(metadata=(b"u", b"", b""), status=b"p").add(*objects((0, node())))
    assert Packed(tmp_path, old, 1).content == new.content


def test_damage_is_named(tmp_path: Path) -> None:
    old = File().add(*objects((0, node()))).add(*objects((0, node())))
    packed = Packed(tmp_path, old, 1)
    reader = reader_of(tmp_path, old.patched(old.records[1][0] + 24, bytes(8)))
    broken = PackedFile(reader, scanned(reader, 1, len(old.content)), packed.kept, output_of(tmp_path))
    list(broken.copy_packed())
    with pytest.raises(FileFormatError, match=f"byte {old.records[1][0]}"):
        list(broken.copy_rest(len(old.content)))


def test_output_changes_what_is_written_and_what_is_not_yet(tmp_path: Path) -> None:
    output = output_of(tmp_path)
    output.append(b"head")
    output.change(0, b"HE")
    output.append(bytes(3 << 20))
    output.append(b"tail")
    output.change(2, b"AD")
    output.change(output.position - 4, b"TA")
    output.sync()
    content = (tmp_path / "Data.fs.pack").read_bytes()
    assert (content[:4], content[-4:], len(content)) == (b"HEAD", b"TAil", (3 << 20) + 8)


def test_output_leaves_room(tmp_path: Path) -> None:
    output = output_of(tmp_path)
    output.check_room(1)
    with pytest.raises(StorageFullError, match=r"Data\.fs\.pack.*nothing was packed"):
        output.check_room(1 << 62)
