"""What storages with a log share, beside what tests/contract/test_undo.py asks of each of them."""

import pytest

from tests.contract.storages import Txn, commit
from zeo_core.errors import UndoError
from zeo_core.ids import ZERO_TID, pack_id
from zeo_core.transaction import ObjectWrite
from zeo_server.storages.mapping import MappingStorage

A, B = pack_id(1), pack_id(2)


def test_what_is_staged_counts_as_the_present_state() -> None:
    storage = MappingStorage()
    first, second = commit(storage, {A: b"1"}), commit(storage, {A: b"2"})
    staged = {A: ObjectWrite(A, second, b"1", first)}
    assert storage.undo_writes(first, staged) == [ObjectWrite(A, second, None, None)]
    with pytest.raises(UndoError):
        storage.undo_writes(second, staged)


def test_nothing_is_staged_when_one_of_several_objects_stands_against_it() -> None:
    storage = MappingStorage()
    first = commit(storage, {A: b"1", B: b"1"})
    commit(storage, {B: b"2"})
    txn = Txn()
    storage.tpc_begin(txn)
    with pytest.raises(UndoError):
        storage.undo(first, txn)
    assert storage.pending_writes(txn) == {}
    storage.tpc_abort(txn)


def test_a_serial_to_write_on_is_the_current_one() -> None:
    storage = MappingStorage()
    first = commit(storage, {A: b"1"})
    (write,) = storage.undo_writes(first, {})
    assert write == ObjectWrite(A, first, None, None)
    assert storage.start_of_last(5) == first
    assert MappingStorage().start_of_last(5) == ZERO_TID
