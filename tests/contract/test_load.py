"""The contract of loading, in the words of zeo_core.storage."""

import pytest

from tests.contract.storages import Txn, commit
from zeo_core.errors import ClientDisconnected, POSKeyError, StorageError
from zeo_core.ids import MAX_TID, ROOT_OID, ZERO_TID, pack_id, successor
from zeo_core.storage import Transacts
from zeo_core.zodb import ZODBStorage

A, B, UNKNOWN = pack_id(1), pack_id(2), pack_id(99)


def test_it_says_that_it_keeps_the_contract(storage: ZODBStorage) -> None:
    assert isinstance(storage, Transacts)


def test_an_empty_storage(storage: ZODBStorage) -> None:
    assert storage.last_tid() == ZERO_TID
    assert storage.object_count() == len(storage) == 0
    assert storage
    assert not storage.read_only()
    assert not storage.isReadOnly()
    assert storage.name() == storage.getName()


@pytest.mark.parametrize("oid", [ROOT_OID, UNKNOWN, b"\xff" * 8])
def test_an_unknown_object_is_a_key_error_that_names_it(storage: ZODBStorage, oid: bytes) -> None:
    commit(storage, {A: b"a"})
    for call in (
        lambda: storage.load_before(oid, MAX_TID),
        lambda: storage.load_serial(oid, storage.last_tid()),
        lambda: storage.revisions(oid, 1),
        lambda: storage.load(oid),
        lambda: storage.getTid(oid),
    ):
        with pytest.raises(POSKeyError) as caught:
            call()
        assert caught.value.oid == oid


def test_a_committed_object_loads_under_every_name(storage: ZODBStorage) -> None:
    tid = commit(storage, {A: b"data"})
    assert storage.load_before(A, successor(tid)) == (b"data", tid, None)
    assert storage.loadBefore(A, MAX_TID) == (b"data", tid, None)
    assert storage.load(A) == (b"data", tid)
    assert storage.load_serial(A, tid) == storage.loadSerial(A, tid) == b"data"
    assert storage.getTid(A) == tid
    assert storage.last_tid() == storage.lastTransaction() == tid
    assert len(storage) == 1


def test_before_its_creation_an_object_is_none_not_an_error(storage: ZODBStorage) -> None:
    first = commit(storage, {A: b"a"})
    second = commit(storage, {B: b"b"})
    assert storage.load_before(B, second) is None
    assert storage.load_before(B, successor(first)) is None
    assert storage.load_before(B, ZERO_TID) is None


def test_each_revision_is_found_by_the_tids_it_was_current_at(storage: ZODBStorage) -> None:
    tids = [commit(storage, {A: b"%d" % number, B: b"other"}) for number in range(5)]
    ends = [*tids[1:], None]
    for number, (tid, end) in enumerate(zip(tids, ends, strict=True)):
        expected = (b"%d" % number, tid, end)
        assert storage.load_before(A, successor(tid)) == expected
        assert storage.load_before(A, end or MAX_TID) == expected
        assert storage.load_serial(A, tid) == b"%d" % number
    assert storage.load_before(A, tids[0]) is None


def test_a_serial_that_did_not_write_the_object_is_a_key_error(storage: ZODBStorage) -> None:
    first = commit(storage, {A: b"a"})
    second = commit(storage, {B: b"b"})
    for tid in (second, successor(first), ZERO_TID, MAX_TID):
        with pytest.raises(POSKeyError):
            storage.load_serial(A, tid)


@pytest.mark.parametrize("size", [1, 4053, 4054, 4055, 70_000, 3_000_000])
def test_data_of_all_sizes_come_back(storage: ZODBStorage, size: int) -> None:
    record = bytes(range(256)) * (size // 256) + bytes(size % 256)
    tid = commit(storage, {A: record, B: b"next"})
    assert storage.load(A) == (record, tid)
    assert storage.load_serial(A, tid) == record
    assert storage.load(B) == (b"next", tid)


def test_revisions_tell_the_history_newest_first(storage: ZODBStorage) -> None:
    tids = [
        commit(storage, {A: b"x" * (number + 1)}, txn=Txn(f"user {number}", b"caf\xc3\xa9", {"key": number}))
        for number in range(3)
    ]
    entries = storage.revisions(A, 10)
    assert [entry.tid for entry in entries] == tids[::-1]
    assert [entry.size for entry in entries] == [3, 2, 1]
    assert [entry.metadata.user for entry in entries] == [b"user 2", b"user 1", b"user 0"]
    assert entries[0].metadata.description == b"caf\xc3\xa9"
    assert storage.revisions(A, 2) == entries[:2]
    assert storage.revisions(A, 0) == []
    described = storage.history(A, 1)
    assert [line["tid"] for line in described] == [tids[-1]]
    assert described[0]["size"] == 3


def test_close_may_be_repeated_and_ends_loading(storage: ZODBStorage) -> None:
    commit(storage, {A: b"a"})
    storage.close()
    storage.close()
    with pytest.raises((StorageError, ClientDisconnected)):
        storage.load_before(pack_id(50), MAX_TID)
