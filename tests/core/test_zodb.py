"""ZODB's names over the contract: a small storage of the test's own, and MappingStorage under ZODB's DB."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import transaction
import ZODB
import ZODB.interfaces
from persistent.mapping import PersistentMapping

from zeo_core.errors import ConflictError, POSKeyError, ReadConflictError
from zeo_core.ids import MAX_TID, ROOT_OID, ZERO_TID, Oid, Tid, next_tid, pack_id, successor, tid_to_time
from zeo_core.storage import InvalidationSink
from zeo_core.transaction import HistoryEntry, Revision, TransactionMetadata
from zeo_core.zodb import ZODBStorage
from zeo_server.storages.mapping import MappingStorage

OID = pack_id(1)
T1 = next_tid(ZERO_TID, 1e9)
T2 = next_tid(T1, 2e9)


class Fixed(ZODBStorage):
    """One object with two revisions, another that is to be created; writes are noted down."""

    def __init__(self) -> None:
        self.noted: list[tuple[Any, ...]] = []
        self.sinks: list[InvalidationSink] = []

    def name(self) -> str:
        return "fixed"

    def read_only(self) -> bool:
        return True

    def last_tid(self) -> Tid:
        return T2

    def load_before(self, oid: Oid, tid: Tid) -> Revision | None:
        if oid == ROOT_OID:
            return None
        if oid != OID:
            raise POSKeyError(oid)
        if tid > T2:
            return Revision(b"two", T2, None)
        return Revision(b"one", T1, T2) if tid > T1 else None

    def load_serial(self, oid: Oid, tid: Tid) -> bytes:
        return {(OID, T1): b"one", (OID, T2): b"two"}[oid, tid]

    def revisions(self, oid: Oid, size: int) -> list[HistoryEntry]:
        metadata = TransactionMetadata(b"user", b"what was done")
        return [HistoryEntry(T2, metadata, 3), HistoryEntry(T1, metadata, 3)][:size]

    def object_count(self) -> int:
        return 0

    def byte_size(self) -> int:
        return 6

    def close(self) -> None:
        self.noted.append(("close",))

    def new_oid(self) -> Oid:
        return pack_id(2)

    def tpc_begin(self, transaction: Any) -> None:
        self.noted.append(("begin", transaction))

    def store(self, oid: Oid, serial: Tid, data: bytes, version: str, transaction: Any) -> None:
        self.noted.append(("store", oid, serial, data, version, transaction))

    def check_current(self, oid: Oid, serial: Tid, transaction: Any) -> None:
        self.noted.append(("check", oid, serial, transaction))

    def tpc_vote(self, transaction: Any) -> Sequence[Oid]:
        return ()

    def tpc_finish(self, transaction: Any, announce: Callable[[Tid], None] | None = None) -> Tid:
        return T2

    def tpc_abort(self, transaction: Any) -> None:
        self.noted.append(("abort", transaction))

    def register_sink(self, sink: InvalidationSink) -> None:
        self.sinks.append(sink)


@pytest.fixture
def fixed() -> Fixed:
    return Fixed()


def test_each_name_is_that_of_the_contract(fixed: Fixed) -> None:
    assert fixed.getName() == fixed.sortKey() == "fixed"
    assert fixed.isReadOnly() is True
    assert fixed.getSize() == 6
    assert fixed.lastTransaction() == T2
    assert fixed.supportsUndo() is False
    assert fixed.loadSerial(OID, T1) == b"one"


def test_an_empty_storage_is_not_false(fixed: Fixed) -> None:
    assert len(fixed) == 0
    assert fixed


def test_loads(fixed: Fixed) -> None:
    assert fixed.load(OID) == fixed.load(OID, "") == (b"two", T2)
    assert fixed.getTid(OID) == T2
    revision = fixed.loadBefore(OID, T2)
    assert revision is not None
    data, serial, end = revision
    assert (data, serial, end) == (b"one", T1, T2)
    assert fixed.loadBefore(OID, T1) is None
    assert fixed.loadBefore(OID, successor(T2)) == fixed.loadBefore(OID, MAX_TID) == (b"two", T2, None)


@pytest.mark.parametrize("oid", [ROOT_OID, pack_id(5)])
def test_an_object_without_a_current_revision_is_a_key_error(fixed: Fixed, oid: Oid) -> None:
    for ask in (fixed.load, fixed.getTid):
        with pytest.raises(POSKeyError) as caught:
            ask(oid)
        assert caught.value.oid == oid


def test_history_is_made_of_zodbs_dictionaries(fixed: Fixed) -> None:
    [newest] = fixed.history(OID)
    assert newest == {
        "time": tid_to_time(T2),
        "tid": T2,
        "user_name": b"user",
        "description": b"what was done",
        "size": 3,
    }
    assert [entry["tid"] for entry in fixed.history(OID, 10)] == [T2, T1]


def test_checks_and_the_db_are_passed_on(fixed: Fixed) -> None:
    class Sink:
        def invalidate(self, tid: Tid, oids: Sequence[Oid]) -> None:
            """Take note."""

        def invalidateCache(self) -> None:  # noqa: N802 - ZODB's name
            """Take note."""

    sink = Sink()
    fixed.registerDB(sink)
    fixed.checkCurrentSerialInTransaction(OID, T2, "the transaction")
    assert fixed.sinks == [sink]
    assert fixed.noted == [("check", OID, T2, "the transaction")]


def test_what_zodbs_interface_asks_for_is_there(fixed: Fixed) -> None:
    missing = {name for name in ZODB.interfaces.IStorage.names(all=True) if not callable(getattr(fixed, name, None))}
    assert missing == {"pack"}  # that comes with an issue of its own


# -- under ZODB's own DB ----------------------------------------------------------------------------------------------


@pytest.fixture
def db() -> Iterator[ZODB.DB]:
    db = ZODB.DB(MappingStorage())
    yield db
    db.close()


def test_zodb_keeps_its_objects_in_a_storage_of_ours(db: ZODB.DB) -> None:
    with db.transaction("first") as connection:
        connection.root()["mapping"] = PersistentMapping(a=1)
    with db.transaction("second") as connection:
        connection.root()["mapping"]["a"] += 1
        oid = connection.root()["mapping"]._p_oid
    connection = db.open()
    try:
        assert dict(connection.root()["mapping"]) == {"a": 2}
        assert connection.root()["mapping"]._p_serial == db.storage.getTid(oid) == db.storage.lastTransaction()
        assert [entry["description"] for entry in db.storage.history(oid, 5)] == [b"second", b"first"]
    finally:
        connection.close()
    assert len(db.storage) == 2
    assert db.getName() == db.storage.getName() == "Mapping Storage"


def test_two_connections_of_zodb_conflict_and_see_each_other(db: ZODB.DB) -> None:
    managers = [transaction.TransactionManager() for _ in range(2)]
    one, two = [db.open(manager) for manager in managers]
    one.root()["n"] = 1
    two.root()["n"] = 2
    managers[0].commit()
    with pytest.raises(ConflictError) as caught:
        managers[1].commit()
    assert caught.value.oid == ROOT_OID
    assert caught.value.class_name == "persistent.mapping.PersistentMapping"
    managers[1].abort()
    assert two.root()["n"] == 1


def test_zodbs_read_current_is_checked(db: ZODB.DB) -> None:
    with db.transaction() as connection:
        connection.root()["other"] = PersistentMapping()
    managers = [transaction.TransactionManager() for _ in range(2)]
    one, two = [db.open(manager) for manager in managers]
    two.root()["other"]["x"] = 1
    two.readCurrent(two.root())  # loaded by now: ZODB takes no note of a ghost
    one.root()["n"] = 1
    managers[0].commit()
    with pytest.raises(ReadConflictError):
        managers[1].commit()
    managers[1].abort()


def test_zodb_sees_the_past(db: ZODB.DB) -> None:
    with db.transaction() as connection:
        connection.root()["n"] = 1
    before = db.storage.lastTransaction()
    with db.transaction() as connection:
        connection.root()["n"] = 2
    past = db.open(at=before)
    try:
        assert past.root()["n"] == 1
    finally:
        past.close()
