"""Blobs: their modes, their life in transactions, and that no data is lost or left behind."""

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import transaction

from tests.client.objects import Node, Session, state_of
from zeo_client.blob import Blob
from zeo_client.db import DB
from zeo_core.errors import BlobError, ConflictError, InvalidObjectReference, OpenedBlobError, POSKeyError, Unsupported
from zeo_core.storage import Transacts
from zeo_server.storages.demo import DemoStorage
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage


@pytest.fixture(params=["file", "demo"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Transacts:
    opened = FileStorage(tmp_path / "Data.fs", blob_dir=tmp_path / "blobs")
    if request.param == "demo":
        return DemoStorage(base=opened)
    return opened


@pytest.fixture
def db(storage: Transacts) -> Iterator[DB]:
    with DB(storage) as opened:
        yield opened
        transaction.abort()


def read(blob: Blob, mode: str = "r") -> bytes:
    with blob.open(mode) as file:
        return file.read()


def write(blob: Blob, data: bytes, mode: str = "w") -> None:
    with blob.open(mode) as file:
        file.write(data)


def temporary(db: DB) -> list[str]:
    """Return the names of the files that belong to no committed transaction."""
    return os.listdir(db.storage.temporaryDirectory())  # type: ignore[attr-defined]


def test_the_modes_of_a_new_blob() -> None:
    blob = Blob()
    assert read(blob) == b""
    write(blob, b"first line\n")
    write(blob, b"second", "a")
    assert read(blob) == b"first line\nsecond"
    write(blob, b"FIRST", "r+")
    assert read(blob) == b"FIRST line\nsecond"
    write(blob, b"new")
    assert read(blob) == b"new"
    with pytest.raises(ValueError, match=r"mode 'x': .* r, w, r\+, a, c"):
        blob.open("x")
    with pytest.raises(BlobError, match="Uncommitted changes"):
        blob.open("c")
    with pytest.raises(BlobError, match="Uncommitted changes"):
        blob.committed()


def test_many_readers_or_one_writer() -> None:
    blob = Blob(b"data")
    with blob.open() as one, blob.open() as two:
        assert one.read() == two.read() == b"data"
        assert blob.opened()
        for attempt in (lambda: blob.open("w"), lambda: blob.open("a"), lambda: blob.consumeFile("any")):
            with pytest.raises(BlobError, match="Already opened for reading"):
                attempt()
    assert not blob.opened()
    with blob.open("a"):
        for attempt in (blob.open, lambda: blob.open("w"), lambda: blob.consumeFile("any")):
            with pytest.raises(BlobError, match="Already opened for writing"):
                attempt()
    assert not blob.opened()


def test_it_cannot_be_subclassed() -> None:
    with pytest.raises(TypeError, match="cannot be subclassed"):
        type("Mine", (Blob,), {})()


def test_the_file_of_a_forgotten_blob_is_removed() -> None:
    blob = Blob(b"data")
    path = blob._p_blob_uncommitted
    assert path is not None
    assert os.path.exists(path)
    del blob
    gc.collect()
    assert not os.path.exists(path)


def test_the_file_of_a_blob_goes_with_its_process_but_not_with_a_fork_of_it(tmp_path: Path) -> None:
    code = (
        "import os, sys; from zeo_client import Blob; blob = Blob(b'data'); path = blob._p_blob_uncommitted\n"
        "if os.fork() == 0: sys.exit()\n"
        "os.wait(); assert os.path.exists(path), 'the fork removed it'; print(path)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.startswith(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_a_file_is_consumed_without_a_copy(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"consumed")
    inode = source.stat().st_ino
    blob = Blob(b"before")
    blob.consumeFile(source)
    assert not source.exists()
    assert read(blob) == b"consumed"
    assert os.stat(str(blob._p_blob_uncommitted)).st_ino == inode


def test_a_file_that_cannot_be_renamed_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"consumed")
    rename = os.rename

    def another_file_system(old: str, new: str) -> None:
        if old == str(source):
            raise OSError("another file system")
        rename(old, new)

    monkeypatch.setattr(os, "rename", another_file_system)
    blob = Blob()
    blob.consumeFile(source)
    assert not source.exists()
    assert read(blob) == b"consumed"


def test_a_file_that_cannot_be_consumed_changes_nothing(tmp_path: Path) -> None:
    blob, other = Blob(b"before"), Blob()
    for each in (blob, other):
        with pytest.raises(FileNotFoundError, match="missing"):
            each.consumeFile(tmp_path / "missing")
    assert read(blob) == b"before"
    assert other._p_blob_uncommitted is None
    assert read(other) == b""


def test_a_committed_blob_is_read_by_all_and_changed_by_one(db: DB, ann: Session, bob: Session) -> None:
    ann.root["blob"] = blob = Blob(b"one")
    ann.root["empty"] = Blob()
    ann.commit()
    assert temporary(db) == []
    bob.manager.begin()
    assert read(bob.root["blob"]) == b"one"
    assert read(bob.root["empty"]) == b""
    write(blob, b" two", "a")
    assert read(blob) == b"one two"
    assert read(bob.root["blob"]) == b"one"
    ann.commit()
    assert read(bob.root["blob"]) == b"one"  # in the transaction that bob is in
    bob.manager.begin()
    assert read(bob.root["blob"]) == b"one two"
    assert Path(blob.committed()).read_bytes() == read(blob, "c") == b"one two"
    assert not os.access(blob.committed(), os.W_OK) or os.geteuid() == 0
    assert temporary(db) == []


def test_a_reader_of_the_committed_data_outlives_the_transaction(ann: Session) -> None:
    ann.root["blob"] = blob = Blob(b"one")
    ann.commit()
    with blob.open("c") as file:
        write(blob, b"two")
        ann.commit()
        assert file.read() == b"one"


def test_an_abort_removes_what_was_not_committed(db: DB, ann: Session) -> None:
    ann.root["blob"] = blob = Blob(b"one")
    ann.commit()
    write(blob, b"two")
    with blob.open() as reader:
        ann.manager.abort()
        assert reader.closed
    assert read(blob) == b"one"
    assert temporary(db) == []


def test_a_new_blob_survives_an_abort_with_its_data(ann: Session) -> None:
    ann.root["blob"] = blob = Blob(b"one")
    ann.manager.abort()
    assert (blob._p_oid, blob._p_jar) == (None, None)
    assert read(blob) == b"one"
    ann.root["blob"] = blob
    ann.commit()
    assert read(blob) == b"one"


def test_data_that_went_with_a_failed_transaction_are_not_taken_for_an_empty_file(
    db: DB, ann: Session, bob: Session
) -> None:
    """The storage has taken the file over when a later object turns out to conflict."""
    ann.root["node"] = Node()
    ann.commit()
    bob.manager.begin()
    bob.root["node"].x = 1
    bob.commit()
    ann.root["blob"] = blob = Blob(b"one")
    ann.root["node"].x = 2
    with pytest.raises(ConflictError):
        ann.commit()
    ann.manager.abort()
    assert temporary(db) == []
    with pytest.raises(BlobError, match="went with a transaction that was aborted"):
        blob.open()
    ann.root["again"] = blob
    with pytest.raises(BlobError, match="went with a transaction that was aborted"):
        ann.commit()
    ann.manager.abort()
    write(blob, b"two")
    ann.root["again"] = blob
    ann.commit()
    assert read(blob) == b"two"


def test_savepoints_keep_each_state(db: DB, ann: Session) -> None:
    ann.root["old"] = old = Blob(b"one")
    ann.commit()
    write(old, b" two", "a")
    ann.root["new"] = new = Blob(b"new")
    first = ann.manager.savepoint()
    assert (read(old), read(new)) == (b"one two", b"new")
    with pytest.raises(BlobError, match="Uncommitted changes"):
        old.committed()
    write(old, b" three", "a")
    write(new, b"newer")
    second = ann.manager.savepoint()
    old._p_changed = True  # without new data
    write(new, b"newest")
    second.rollback()
    assert (read(old), read(new)) == (b"one two three", b"newer")
    first.rollback()
    assert (read(old), read(new)) == (b"one two", b"new")
    write(new, b"!", "a")
    ann.commit()
    assert temporary(db) == []
    assert (read(old, "c"), read(new, "c")) == (b"one two", b"new!")


def test_what_is_aborted_after_a_savepoint_is_gone(db: DB, ann: Session) -> None:
    ann.root["old"] = old = Blob(b"one")
    ann.commit()
    write(old, b"two")
    ann.root["new"] = new = Blob(b"new")
    ann.manager.savepoint()
    ann.manager.abort()
    assert temporary(db) == []
    assert read(old) == b"one"
    with pytest.raises(BlobError, match="went with a transaction that was aborted"):
        new.open()


def test_a_new_blob_that_was_never_written_survives_an_abort(ann: Session) -> None:
    ann.root["blob"] = blob = Blob()
    ann.manager.abort()
    assert read(blob) == b""


def test_two_who_change_a_blob_conflict(ann: Session, bob: Session) -> None:
    ann.root["blob"] = Blob(b"one")
    ann.commit()
    bob.manager.begin()
    write(bob.root["blob"], b"bob's")
    write(ann.root["blob"], b"ann's")
    bob.commit()
    with pytest.raises(ConflictError, match=r"class ZODB\.blob\.Blob"):
        ann.commit()
    ann.manager.abort()
    assert read(ann.root["blob"]) == b"bob's"


@pytest.mark.parametrize("mode", ["r", "a"])
def test_an_open_blob_is_not_committed(ann: Session, mode: str) -> None:
    ann.root["blob"] = blob = Blob(b"one")
    with blob.open(mode) as file:
        with pytest.raises(OpenedBlobError, match="0x01 is open; close its files"):
            ann.commit()
        file.close()
    ann.manager.abort()
    ann.root["blob"] = blob
    ann.commit()
    with blob.open():
        ann.root["other"] = 1
        ann.commit()  # it is not changed itself


def test_a_blob_marked_as_changed_without_new_data_is_not_stored(ann: Session) -> None:
    ann.root["blob"] = blob = Blob(b"one")
    ann.commit()
    serial = blob._p_serial
    blob._p_changed = True
    ann.commit()
    assert (blob._p_serial, blob._p_changed) == (serial, False)
    assert read(blob) == b"one"


def test_an_open_blob_does_not_become_a_ghost(ann: Session) -> None:
    ann.root["blob"] = blob = Blob(b"one")
    ann.commit()
    with blob.open() as file:
        ann.conn.cacheMinimize()
        assert state_of(blob) == "clean"
        assert file.read() == b"one"
    ann.conn.cacheMinimize()
    assert state_of(blob) == "ghost"
    assert read(blob, "c") == b"one"


def test_a_storage_without_blobs_says_so() -> None:
    with DB(MappingStorage()) as db:
        user = Session(db)
        user.root["blob"] = Blob(b"one")
        with pytest.raises(Unsupported, match=r"Storing Blobs in .* is not supported"):
            user.commit()
        user.manager.abort()


def test_a_blob_whose_file_is_lost_says_so(ann: Session) -> None:
    ann.root["blob"] = blob = Blob(b"one")
    ann.commit()
    os.unlink(blob.committed())
    for attempt in (blob.open, blob.committed, lambda: blob.open("c"), lambda: blob.open("a")):
        with pytest.raises(POSKeyError):
            attempt()
    assert blob._p_blob_uncommitted is None
    write(blob, b"two")
    ann.commit()
    assert read(blob) == b"two"


def test_zodbs_own_class_is_refused(ann: Session) -> None:
    from ZODB.blob import Blob as ZODBsBlob

    ann.root["blob"] = ZODBsBlob()
    with pytest.raises(InvalidObjectReference, match=r"use zeo_client\.Blob"):
        ann.commit()
    ann.manager.abort()


def test_blobs_are_read_where_zodb_is_not_imported(db: DB, ann: Session) -> None:
    ann.root["blob"] = Blob(b"one")
    ann.root["class"] = Blob
    ann.commit()
    record = ann.conn._snapshot.load(ann.root["blob"]._p_oid)[0]
    assert record == b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N."
    code = (
        "import sys; from zeo_client.serialize import ObjectReader; from zeo_client.broken import find_class;"
        f"ghost = ObjectReader(None, {{}}, find_class).ghost(b'12345678', {record!r});"
        "assert type(ghost).__module__ == 'zeo_client.blob'; assert 'ZODB' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
