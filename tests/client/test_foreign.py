"""ZODB's storages under our DB. Over a network, with ZEO's client, see tests/interop/test_pairs.py."""

from binascii import b2a_base64
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import ZODB
import ZODB.FileStorage
import ZODB.MappingStorage
import ZODB.POSException
from transaction import TransactionManager
from ZODB.tests.hexstorage import HexStorage
from ZODB.tests.MVCCMappingStorage import MVCCMappingStorage
from ZODB.tests.test_storage import MinimalMemoryStorage

from tests.client.objects import Node
from zeo_client.db import DB
from zeo_client.foreign import BlobForeignStorage, ForeignStorage, contract_of
from zeo_core.errors import (
    ConflictError,
    MultipleUndoErrors,
    POSKeyError,
    ReadConflictError,
    ReadOnlyError,
    StorageTransactionError,
    UndoError,
)
from zeo_core.ids import MAX_TID, ROOT_OID, ZERO_TID, pack_id
from zeo_core.storage import Transacts, TransactsBlobs
from zeo_core.transaction import TransactionMetadata
from zeo_server.storages.mapping import MappingStorage


class Txn:
    """A transaction as our DB gives it to storages."""

    user = "ann"
    description = "a note"
    extension: dict[str, Any] = {}  # noqa: RUF012 - as plain as can be


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "Data.fs")


@pytest.fixture
def theirs(path: str, tmp_path: Path) -> Iterator[Any]:
    with closing(ZODB.FileStorage.FileStorage(path, blob_dir=str(tmp_path / "blobs"))) as storage:
        yield storage


def commit(storage: Any, *writes: tuple[bytes, bytes, bytes]) -> bytes:
    txn = Txn()
    storage.tpc_begin(txn)
    for oid, serial, data in writes:
        storage.store(oid, serial, data, "", txn)
    storage.tpc_vote(txn)
    tid: bytes = storage.tpc_finish(txn)
    return tid


def test_a_storage_of_ours_is_taken_as_it_is() -> None:
    storage = MappingStorage()
    assert contract_of(storage) is storage


def test_a_storage_of_others_is_made_to_keep_the_contract(theirs: Any) -> None:
    storage = contract_of(theirs)
    assert isinstance(storage, BlobForeignStorage)
    assert isinstance(storage, TransactsBlobs)
    plain = contract_of(ZODB.MappingStorage.MappingStorage())
    assert isinstance(plain, ForeignStorage)
    assert isinstance(plain, Transacts)
    assert not isinstance(plain, TransactsBlobs)
    assert bool(plain)
    assert len(plain) == 0


@pytest.mark.parametrize(("what", "text"), [(object(), "no storage"), (MVCCMappingStorage(), "IMVCCStorage")])
def test_what_cannot_be_used_is_refused(what: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        contract_of(what)


@pytest.mark.parametrize(
    "make", [ZODB.MappingStorage.MappingStorage, lambda: HexStorage(ZODB.MappingStorage.MappingStorage())]
)
def test_zodbs_db_reads_what_ours_wrote_and_the_other_way_round(make: Any) -> None:
    storage = make()
    ours = DB(storage)
    with ours.transaction("by ours") as conn:
        conn.root()["node"] = Node(value=1)
    zodbs = ZODB.DB(storage)
    with zodbs.transaction() as conn:
        assert conn.root()["node"].value == 1
        conn.root()["node"].value = 2
    with ours.transaction() as conn:
        assert conn.root()["node"].value == 2
    zodbs.close()


def test_two_connections_see_each_others_commits_and_conflict(theirs: Any) -> None:
    with DB(theirs) as db:
        one, two = TransactionManager(), TransactionManager()
        first, second = db.open(one), db.open(two)
        first.root()["node"] = Node(value=1)
        one.commit()
        assert "node" not in second.root()
        two.begin()
        second.root()["node"].value = 2
        first.root()["node"].value = 3
        one.commit()
        with pytest.raises(ConflictError) as caught:
            two.commit()
        assert caught.value.oid == first.root()["node"]._p_oid
        assert caught.value.serials is not None
        assert "Node" in str(caught.value)
        two.abort()
        assert second.root()["node"].value == 3
        second.readCurrent(second.root()["node"])
        second.root()["other"] = 1
        first.root()["node"].value = 4
        one.commit()
        with pytest.raises(ReadConflictError):
            two.commit()
        two.abort()


def test_reading_by_every_name(theirs: Any) -> None:
    storage = contract_of(theirs)
    oid = storage.new_oid()
    first = commit(storage, (oid, ZERO_TID, b"one"))
    second = commit(storage, (oid, first, b"two"))
    assert storage.last_tid() == second
    assert storage.load_before(oid, second) == (b"one", first, second)
    assert storage.load_before(oid, MAX_TID) == (b"two", second, None)
    assert storage.load_before(oid, first) is None
    assert storage.load_serial(oid, first) == b"one"
    assert storage.load(oid) == (b"two", second)  # type: ignore[attr-defined]
    lines = storage.revisions(oid, 5)
    assert [line.tid for line in lines] == [second, first]
    assert lines[0].metadata == TransactionMetadata(b"ann", b"a note")
    assert storage.object_count() == 1
    assert storage.byte_size() == theirs.getSize()
    assert storage.name() == theirs.getName()
    assert not storage.read_only()


def test_a_missing_object_is_our_error_and_zodbs(theirs: Any) -> None:
    storage = contract_of(theirs)
    for call in (storage.load_before, storage.load_serial):
        with pytest.raises(POSKeyError) as caught:
            call(pack_id(7), MAX_TID)
        assert caught.value.oid == pack_id(7)
        assert isinstance(caught.value, ZODB.POSException.POSKeyError)
    with pytest.raises(POSKeyError):
        storage.load(pack_id(7))  # type: ignore[attr-defined]


def test_a_plain_key_error_is_a_missing_object_too() -> None:
    storage = contract_of(MinimalMemoryStorage())
    with pytest.raises(POSKeyError) as caught:
        storage.load_before(pack_id(7), MAX_TID)
    assert caught.value.oid == pack_id(7)
    with DB(storage) as db, db.transaction() as conn:
        assert list(conn.root()) == []


def test_a_transaction_that_is_not_in_progress_is_refused(theirs: Any) -> None:
    storage = contract_of(theirs)
    txn = Txn()
    with pytest.raises(StorageTransactionError):
        storage.store(ROOT_OID, ZERO_TID, b"data", "", txn)
    storage.tpc_abort(txn)
    storage.tpc_begin(txn)
    with pytest.raises(StorageTransactionError):
        storage.tpc_vote(Txn())
    storage.tpc_abort(txn)
    with pytest.raises(StorageTransactionError):
        storage.tpc_finish(txn)
    commit(storage, (storage.new_oid(), ZERO_TID, b"data"))


def test_read_only(path: str) -> None:
    with closing(ZODB.FileStorage.FileStorage(path)) as made:
        DB(made)
    with closing(ZODB.FileStorage.FileStorage(path, read_only=True)) as storage, DB(storage) as db:
        with pytest.raises(ReadOnlyError), db.transaction() as conn:
            conn.root()["x"] = 1
        assert db.storage.read_only()


def test_undo_and_its_refusal(theirs: Any) -> None:
    storage = contract_of(theirs)
    oid = storage.new_oid()
    first = commit(storage, (oid, ZERO_TID, b"one"))
    second = commit(storage, (oid, first, b"two"))
    log = storage.undoLog(0, 10)  # type: ignore[attr-defined]
    txn = Txn()
    storage.tpc_begin(txn)
    assert storage.undo(log[0]["id"], txn)[1] == [oid]  # type: ignore[attr-defined]
    storage.tpc_vote(txn)
    third = storage.tpc_finish(txn)
    assert storage.load_before(oid, MAX_TID) == (b"one", third, None)
    assert log[0]["description"] == b"a note"
    commit(storage, (oid, third, b"three"))
    storage.tpc_begin(txn)
    with pytest.raises(MultipleUndoErrors) as caught:
        storage.undo(log[1]["id"], txn)  # type: ignore[attr-defined]
    assert caught.value.oid == oid
    with pytest.raises(UndoError):
        storage.undo(b2a_base64(pack_id(7), newline=False), txn)  # type: ignore[attr-defined]
    storage.tpc_abort(txn)
    assert storage.load_serial(oid, second) == b"two"


def test_pack_follows_references(theirs: Any) -> None:
    with DB(theirs) as db:
        with db.transaction() as conn:
            conn.root()["kept"] = Node(value=Node())
            conn.root()["gone"] = Node()
        with db.transaction() as conn:
            gone, inner = conn.root()["gone"]._p_oid, conn.root()["kept"].value._p_oid
            del conn.root()["gone"]
        db.storage.pack(9e9)  # type: ignore[attr-defined]
        with pytest.raises(POSKeyError):
            db.storage.load_before(gone, MAX_TID)
        assert db.storage.load_before(inner, MAX_TID) is not None


def test_blobs(theirs: Any) -> None:
    storage = contract_of(theirs)
    assert isinstance(storage, TransactsBlobs)
    source = Path(storage.temporaryDirectory(), "source")
    source.write_bytes(b"a blob")
    oid, txn = storage.new_oid(), Txn()
    storage.tpc_begin(txn)
    storage.storeBlob(oid, ZERO_TID, b"record", str(source), "", txn)
    storage.tpc_vote(txn)
    tid = storage.tpc_finish(txn)
    assert not source.exists()
    assert Path(storage.loadBlob(oid, tid)).read_bytes() == b"a blob"
    with storage.openCommittedBlobFile(oid, tid) as opened:
        assert opened.read() == b"a blob"
    with pytest.raises(POSKeyError):
        storage.loadBlob(oid, ZERO_TID)
