"""The index saved beside loads and commits: right as of its end, never in the way, never for another file."""

import os
import threading
from contextlib import closing
from pathlib import Path
from threading import Lock

import pytest

from zeo_core.ids import pack_id
from zeo_core.transaction import ObjectWrite, PreparedTransaction, TransactionMetadata
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file import storage as storage_module
from zeo_server.storages.file.generation import Generation
from zeo_server.storages.file.index import Entries, Index, add_entry
from zeo_server.storages.file.reader import Descriptor, Reader
from zeo_server.storages.file.saving import IndexSaver


def commit(storage: FileStorage, number: int) -> None:
    oid = pack_id(number)
    write = ObjectWrite(oid, storage.current_tid(oid) or bytes(8), b"x" * 1000)
    storage.publish(storage.write_group([PreparedTransaction(TransactionMetadata(), (write,))]))


@pytest.fixture
def generation(tmp_path: Path) -> Generation:
    path = tmp_path / "Data.fs"
    path.write_bytes(b"FS30")
    index = Index()
    entries: Entries = {}
    add_entry(entries, pack_id(7), 4)
    index.update(entries)
    return Generation(Reader(str(path), Descriptor(str(path), os.O_RDONLY)), index, 100)


def test_it_saves_while_the_storage_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "_SAVE_INDEX_AFTER_BYTES", 20_000)
    with closing(FileStorage(tmp_path / "Data.fs")) as storage:
        for number in range(1, 60):
            commit(storage, number)
        for thread in threading.enumerate():
            if thread.name.startswith("zeod saves"):
                thread.join()
        index, end = Index.load(str(tmp_path / "Data.fs.index"))
        assert 20_000 < end <= storage.byte_size()
        assert all(index.position(pack_id(number)) for number in range(1, len(index) + 1))
        assert len(index) > 15
    with closing(FileStorage(tmp_path / "Data.fs", read_only=True)) as storage:
        assert len(storage) == 59


def test_nothing_is_saved_twice(tmp_path: Path, generation: Generation) -> None:
    path = tmp_path / "index"
    saver = IndexSaver(str(path), 0, 50, Lock(), lambda: generation)
    saver.save()
    assert Index.load(str(path))[1] == saver.saved_end == 100
    path.unlink()
    saver.save()
    assert not path.exists()
    saver.forget()
    saver.save()
    assert path.exists()


def test_an_index_of_a_file_that_was_replaced_is_thrown_away(tmp_path: Path, generation: Generation) -> None:
    path = tmp_path / "index"
    answers = iter([generation, None])
    IndexSaver(str(path), 0, 50, Lock(), lambda: next(answers)).save()
    assert not path.exists()
    assert not (tmp_path / "index_tmp").exists()


def test_a_closed_storage_saves_nothing(tmp_path: Path) -> None:
    IndexSaver(str(tmp_path / "index"), 0, 50, Lock(), lambda: None).save()
    assert not (tmp_path / "index").exists()


def test_a_failure_is_a_warning(tmp_path: Path, generation: Generation, caplog: pytest.LogCaptureFixture) -> None:
    IndexSaver(str(tmp_path / "missing" / "index"), 0, 50, Lock(), lambda: generation).save()
    assert "could not be saved" in caplog.text


def test_a_save_begins_only_after_enough_was_added(tmp_path: Path, generation: Generation) -> None:
    saver = IndexSaver(str(tmp_path / "index"), 60, 50, Lock(), lambda: generation)
    before = threading.active_count()
    saver.grown(110)
    assert threading.active_count() == before
    saver.grown(111)
    for thread in threading.enumerate():
        if thread.name.startswith("zeod saves"):
            thread.join()
    assert saver.saved_end == 100
