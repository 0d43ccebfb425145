"""New files: byte for byte those they are copies of, and not there before they are complete."""

from pathlib import Path

import pytest

from tests.server.storages.file.build import File
from tests.server.storages.file.damaged import zodb_file
from zeo_core.errors import StorageError
from zeo_core.ids import pack_id
from zeo_core.transaction import RecordedObject, TransactionMetadata
from zeo_server.storages.file import FileStorage, fresh
from zeo_server.storages.file.fresh import FreshFile

A, B = pack_id(1), pack_id(2)
T1, T2, T3 = map(pack_id, range(1, 4))
NOTHING = TransactionMetadata()


def copied(source: Path, target: Path) -> bytes:
    storage = FileStorage(source, read_only=True)
    with FreshFile(str(target)) as copy:
        for one in storage.transactions():
            copy.add(one.tid, one.status, one.metadata, one.records)
        copy.complete()
    storage.close()
    return target.read_bytes()


@pytest.mark.parametrize("block", [1, 300, 4 << 20])
def test_a_copy_is_the_same_file(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh, "_BLOCK_BYTES", block)
    content = zodb_file(tmp_path / "Data.fs")
    assert copied(tmp_path / "Data.fs", tmp_path / "Copy.fs") == content
    file = File().add((A, b"1"), metadata=(b"u", b"d", b"")).add((A, b"2"), (B, b"b"), status=b"p").add((B, 0))
    file.add((A, file.records[0][0])).add()
    (tmp_path / "Built.fs").write_bytes(file.content)
    assert copied(tmp_path / "Built.fs", tmp_path / "Other.fs") == file.content


def test_a_record_repeats_only_equal_data(tmp_path: Path) -> None:
    with FreshFile(str(tmp_path / "Data.fs")) as made:
        made.add(T1, b" ", NOTHING, [RecordedObject(A, T1, b"one", None)])
        made.add(T2, b" ", NOTHING, [RecordedObject(A, T2, b"two", T1), RecordedObject(B, T2, b"b", T1)])
        made.complete()
    storage = FileStorage(tmp_path / "Data.fs", read_only=True)
    assert (storage.load_serial(A, T2), storage.load_serial(B, T2)) == (b"two", b"b")
    storage.close()


def test_what_is_not_completed_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    with FreshFile(str(path)) as made:
        made.add(T2, b" ", NOTHING, [RecordedObject(A, T2, b"one", None)])
        with pytest.raises(StorageError, match="is not later than"):
            made.add(T2, b" ", NOTHING, [])
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"mine")
    with pytest.raises(StorageError, match="exists already"):
        FreshFile(str(path))
    assert path.read_bytes() == b"mine"
    with pytest.raises(StorageError, match="No such file"):
        FreshFile(str(tmp_path / "none" / "Data.fs"))
