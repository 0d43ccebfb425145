import time
from datetime import datetime

import pytest

from zeo_core.errors import StorageError, StorageTransactionError
from zeo_core.ids import ZERO_TID, pack_id, tid_from_time
from zeo_core.transaction import ObjectWrite, TransactionMetadata, extension_map
from zeo_server.commit.phases import Phase, Step
from zeo_server.commit.transaction import (
    METADATA_MAX_BYTES,
    OBJECT_OVERHEAD_BYTES,
    RESTORED_AHEAD_MAX_S,
    ServerTransaction,
    metadata_from_wire,
)
from zeo_server.limits import Limits

A, B, C = pack_id(1), pack_id(2), pack_id(3)
T1, T2 = pack_id(1001), pack_id(1002)


class Nobody:
    awaiting = 0

    def hold(self) -> None:
        pass

    def release(self) -> None:
        pass

    def send_later(self, frame: bytes) -> None:
        pass

    def send(self, frame: bytes) -> None:
        pass

    def disconnect(self, reason: str) -> None:
        pass


def begun(max_bytes: int = 10_000) -> ServerTransaction:
    return ServerTransaction(Nobody(), 7, Limits(transaction_max_bytes=max_bytes))


def test_what_is_staged_is_what_is_prepared() -> None:
    transaction = begun()
    transaction.store(A, ZERO_TID, b"one")
    transaction.store(B, ZERO_TID, b"two")
    transaction.check(A, ZERO_TID)
    assert transaction.prepared().writes == (ObjectWrite(A, ZERO_TID, b"one"), ObjectWrite(B, ZERO_TID, b"two"))
    assert transaction.prepared().metadata == TransactionMetadata()
    assert transaction.checks == {A: ZERO_TID}


def test_the_last_record_of_an_oid_wins_and_is_counted_once() -> None:
    transaction = begun()
    transaction.store(A, ZERO_TID, b"x" * 1000)
    transaction.store(A, ZERO_TID, b"yy")
    assert transaction.prepared().writes == (ObjectWrite(A, ZERO_TID, b"yy"),)
    assert transaction.size_bytes == 2 + OBJECT_OVERHEAD_BYTES


def test_nothing_is_staged_after_the_vote() -> None:
    transaction = begun()
    transaction.move(Step.VOTE)
    with pytest.raises(StorageTransactionError, match="store is not possible"):
        transaction.store(A, ZERO_TID, b"late")
    with pytest.raises(StorageTransactionError):
        transaction.check(A, ZERO_TID)
    assert transaction.phase is Phase.WAITING


def test_a_doomed_transaction_keeps_its_first_error_and_nothing_else() -> None:
    transaction = begun()
    transaction.store(A, ZERO_TID, b"one")
    first = StorageError("first")
    transaction.doom(first)
    transaction.doom(StorageError("second"))
    transaction.store(B, ZERO_TID, b"two")
    transaction.check(B, ZERO_TID)
    assert transaction.error is first
    assert (transaction.writes, transaction.checks, transaction.size_bytes) == ({}, {}, 0)


def test_a_transaction_that_grows_too_large_is_doomed() -> None:
    transaction = begun(max_bytes=1000)
    transaction.store(A, ZERO_TID, b"x" * 700)
    transaction.store(B, ZERO_TID, b"x" * 700)
    assert "larger than 1000 bytes" in str(transaction.error)
    assert transaction.size_bytes == 0


def test_a_refused_part_is_what_the_vote_will_say() -> None:
    transaction = begun()
    transaction.store(A, ZERO_TID, b"x")
    transaction.refuse(StorageError("not allowed"))
    assert str(transaction.error) == "not allowed"
    assert not transaction.writes


def test_a_part_cannot_be_refused_after_the_vote() -> None:
    transaction = begun()
    transaction.store(A, ZERO_TID, b"x")
    transaction.move(Step.VOTE)
    with pytest.raises(StorageTransactionError):
        transaction.refuse(StorageError("not allowed"))
    assert transaction.error is None
    assert transaction.writes


def test_an_object_without_data_dooms_the_transaction() -> None:
    transaction = begun()
    transaction.store(A, ZERO_TID, b"")
    assert "no data to store for oid 0x01" in str(transaction.error)


def test_many_checks_are_counted_too() -> None:
    transaction = begun(max_bytes=OBJECT_OVERHEAD_BYTES * 10)
    for number in range(11):
        transaction.check(pack_id(number), ZERO_TID)
    assert transaction.error is not None


def test_metadata_as_bytes_or_text() -> None:
    assert metadata_from_wire("", b"", {}) == metadata_from_wire(b"", "", None) == TransactionMetadata()
    metadata = metadata_from_wire("Zoë", b"descr", {"request": "/x", "n": [1, None]})
    assert metadata.user == "Zoë".encode()
    assert metadata.description == b"descr"
    assert extension_map(metadata.extension) == {"request": "/x", "n": [1, None]}


def test_metadata_that_cannot_be_kept() -> None:
    with pytest.raises(StorageError, match="transaction description: 65536 bytes"):
        metadata_from_wire("", "x" * (METADATA_MAX_BYTES + 1), {})
    with pytest.raises(TypeError, match="no text"):
        metadata_from_wire("", "", {1: 2})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="datetime"):
        metadata_from_wire("", "", {"when": datetime.min})


def test_a_restored_transaction_brings_its_tid_and_status() -> None:
    transaction = begun()
    transaction.restore_as(T2, "p")
    transaction.restore(A, b"data", T1)
    transaction.restore(B, None, None)
    transaction.delete(C, T1)
    assert transaction.restored == {A, B}
    prepared = transaction.prepared()
    assert (prepared.tid, prepared.status) == (T2, b"p")
    assert prepared.writes == (
        ObjectWrite(A, ZERO_TID, b"data", T1),
        ObjectWrite(B, ZERO_TID, None, None),
        ObjectWrite(C, T1, None),
    )
    transaction.store(A, T1, b"other")
    assert transaction.restored == {B}
    transaction.check_restorable(T1, 0.0)
    with pytest.raises(StorageError, match="cannot restore"):
        transaction.check_restorable(T2, 0.0)
    with pytest.raises(StorageError, match="status"):
        transaction.restore_as(T2, "u")


@pytest.mark.parametrize("ahead_s", [RESTORED_AHEAD_MAX_S + 1, 10 * 365 * 24 * 3600])
def test_nothing_is_restored_from_the_future(ahead_s: float) -> None:
    transaction, now_s = begun(), time.time()
    transaction.restore_as(tid_from_time(now_s + RESTORED_AHEAD_MAX_S - 1), " ")
    transaction.check_restorable(T1, now_s)
    transaction.restore_as(tid_from_time(now_s + ahead_s), " ")
    with pytest.raises(StorageError, match=r"ahead of the server's clock.*zeofs copy"):
        transaction.check_restorable(T1, now_s)


def test_no_data_is_not_restored() -> None:
    transaction = begun()
    transaction.restore(A, b"", None)
    assert isinstance(transaction.error, StorageError)
    assert transaction.writes == {}
