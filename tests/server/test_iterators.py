"""The walks of one client over a storage's log."""

import pytest

from tests.contract.storages import Txn, commit
from zeo_core.errors import StorageError, UnknownIteratorError
from zeo_core.ids import pack_id
from zeo_core.transaction import extension_bytes
from zeo_server.iterators import Iterators
from zeo_server.storages.mapping import MappingStorage

A, B = pack_id(1), pack_id(2)


@pytest.fixture
def storage() -> MappingStorage:
    storage = MappingStorage()
    commit(storage, {A: b"a", B: b"b"}, txn=Txn("ann", "first", {"k": [1]}))
    commit(storage, {A: b"aa"})
    return storage


def test_transactions_and_their_objects(storage: MappingStorage) -> None:
    iterators = Iterators(storage)
    number = iterators.start(None, None)
    first = iterators.next(number)
    assert first is not None
    assert first[1:] == (" ", b"ann", b"first", {"k": [1]})
    records = iterators.record_start(number, first[0])
    assert iterators.record_next(records) == (A, first[0], b"a", None)
    second = iterators.next(number)
    assert second is not None
    assert iterators.record_next(records) == (B, first[0], b"b", None)
    assert iterators.record_next(records) is None
    with pytest.raises(UnknownIteratorError):
        iterators.record_next(records)
    assert iterators.next(number) is None
    with pytest.raises(UnknownIteratorError):
        iterators.next(number)
    assert len(iterators) == 0


def test_an_exact_walk_gives_extensions_as_they_stand_in_the_log(storage: MappingStorage) -> None:
    iterators = Iterators(storage)
    first = iterators.next(iterators.start(None, None, exact=True))
    assert first is not None
    assert first[4] == extension_bytes({"k": [1]})


def test_objects_only_of_the_transaction_that_was_come_to_last(storage: MappingStorage) -> None:
    iterators = Iterators(storage)
    number = iterators.start(None, None)
    with pytest.raises(StorageError, match="does not stand at"):
        iterators.record_start(number, storage.last_tid())
    first = iterators.next(number)
    assert first is not None
    iterators.next(number)
    with pytest.raises(StorageError, match="does not stand at"):
        iterators.record_start(number, first[0])
    with pytest.raises(UnknownIteratorError):
        iterators.record_start(99, first[0])


def test_the_number_of_walks_is_bounded(storage: MappingStorage) -> None:
    iterators = Iterators(storage, 5)
    numbers = [iterators.start(None, None) for _ in range(5)]
    first = iterators.next(numbers[0])
    assert first is not None
    with pytest.raises(StorageError, match="5 iterators are open"):
        iterators.start(None, None)
    with pytest.raises(StorageError, match="5 iterators are open"):
        iterators.record_start(numbers[0], first[0])
    iterators.forget([*numbers[1:], 12345])
    records = iterators.record_start(numbers[0], first[0])
    assert len(iterators) == 2
    iterators.forget([records])
    with pytest.raises(UnknownIteratorError):
        iterators.record_next(records)
    iterators.clear()
    assert len(iterators) == 0
