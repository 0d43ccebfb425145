"""The writer's thread over real storages; where one has to be slow or broken, it is so in its own way."""

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from zeo_core.errors import StorageClosedError, StorageError, StorageFullError
from zeo_core.ids import ZERO_TID, pack_id
from zeo_core.transaction import ObjectWrite, PreparedTransaction, TransactionMetadata
from zeo_server.commit.group import (
    ANTICIPATED_MAX_BYTES,
    GroupWriter,
    Outcome,
)
from zeo_server.limits import DEFAULT_LIMITS
from zeo_server.storages.mapping import MappingStorage


class GatedStorage(MappingStorage):
    """Writes when it is let: the disk of a busy machine. Refuses what carries the data b"too large"."""

    def __init__(self) -> None:
        super().__init__()
        self.started = threading.Event()
        self.gate = threading.Event()
        self.groups: list[int] = []
        self.broken: Exception | None = None

    def write_group(self, transactions: Sequence[PreparedTransaction]) -> Any:
        self.started.set()
        assert self.gate.wait(10)
        self.groups.append(len(transactions))
        if self.broken is not None:
            raise self.broken
        if any(write.data == b"too large" for transaction in transactions for write in transaction.writes):
            raise StorageFullError("Data.fs", "no room")
        return super().write_group(transactions)


def write(number: int, data: bytes = b"data") -> PreparedTransaction:
    return PreparedTransaction(TransactionMetadata(), (ObjectWrite(pack_id(number), ZERO_TID, data),))


Outcomes = queue.SimpleQueue[Outcome[int]]


@contextmanager
def writer(storage: MappingStorage) -> Iterator[tuple[GroupWriter[int], Outcomes]]:
    outcomes: Outcomes = queue.SimpleQueue()
    group_writer: GroupWriter[int] = GroupWriter(storage, outcomes.put, "test")
    try:
        yield group_writer, outcomes
    finally:
        if isinstance(storage, GatedStorage):
            storage.gate.set()
        group_writer.close()


def test_one_transaction() -> None:
    storage = MappingStorage()
    with writer(storage) as (group_writer, outcomes):
        group_writer.submit(1, write(1), 4)
        outcome = outcomes.get(timeout=10)
    assert list(outcome.keys) == [1]
    assert outcome.error is None
    assert outcome.group is not None
    assert storage.last_tid() == ZERO_TID  # to publish is for the loop
    storage.publish(outcome.group)
    assert storage.last_tid() == outcome.group.tids[0]


def test_what_waits_is_written_together() -> None:
    storage = GatedStorage()
    with writer(storage) as (group_writer, outcomes):
        group_writer.submit(0, write(0), 4)
        assert storage.started.wait(10)
        for number in range(1, 6):
            group_writer.submit(number, write(number), 4)
        storage.gate.set()
        first, second = outcomes.get(timeout=10), outcomes.get(timeout=10)
    assert list(first.keys) == [0]
    assert list(second.keys) == [1, 2, 3, 4, 5]
    assert storage.groups == [1, 5]
    assert first.group
    assert second.group
    tids = [*first.group.tids, *second.group.tids]
    assert tids == sorted(set(tids))


def test_a_group_has_a_size() -> None:
    storage = GatedStorage()
    most = DEFAULT_LIMITS.group_max_transactions
    with writer(storage) as (group_writer, outcomes):
        group_writer.submit(0, write(0), 4)
        assert storage.started.wait(10)
        for number in range(1, 4):
            group_writer.submit(number, write(number), DEFAULT_LIMITS.group_max_bytes // 2)
        group_writer.submit(4, write(4), 2 * DEFAULT_LIMITS.group_max_bytes)
        for number in range(5, 6 + most):
            group_writer.submit(number, write(number), 1)
        storage.gate.set()
        seen: list[int] = []
        while len(seen) < 6 + most:
            seen += outcomes.get(timeout=10).keys
    assert seen == list(range(6 + most))  # and nobody is overtaken
    assert storage.groups == [1, 2, 1, 1, most, 1]


def test_one_bad_transaction_does_not_spoil_the_group() -> None:
    storage = GatedStorage()
    with writer(storage) as (group_writer, outcomes):
        group_writer.submit(0, write(0), 4)
        assert storage.started.wait(10)
        group_writer.submit(1, write(1), 4)
        group_writer.submit(2, write(2, b"too large"), 9)
        group_writer.submit(3, write(3), 4)
        storage.gate.set()
        results = [outcomes.get(timeout=10) for _ in range(4)]
    assert [list(outcome.keys) for outcome in results] == [[0], [1], [2], [3]]
    assert [isinstance(outcome.error, StorageFullError) for outcome in results] == [False, False, True, False]
    assert [outcome.error is None for outcome in results] == [True, True, False, True]


@pytest.mark.parametrize("error", [StorageClosedError("poisoned"), StorageError("broken"), RuntimeError("a bug")])
def test_whoever_waits_for_a_storage_that_fails_hears_of_it(error: Exception) -> None:
    storage = GatedStorage()
    storage.broken = error
    with writer(storage) as (group_writer, outcomes):
        group_writer.submit(0, write(0), 4)
        group_writer.submit(1, write(1), 4)
        storage.gate.set()
        seen: list[int] = []
        while len(seen) < 2:
            outcome = outcomes.get(timeout=10)
            assert outcome.error is error
            assert outcome.group is None
            seen += outcome.keys
    assert seen == [0, 1]


def test_a_closed_storage_is_not_tried_again() -> None:
    storage = GatedStorage()
    storage.broken = StorageClosedError("poisoned")
    with writer(storage) as (group_writer, outcomes):
        group_writer.submit(0, write(0), 4)
        assert storage.started.wait(10)
        group_writer.submit(1, write(1), 4)
        group_writer.submit(2, write(2), 4)
        storage.gate.set()
        assert list(outcomes.get(timeout=10).keys) == [0]
        assert list(outcomes.get(timeout=10).keys) == [1, 2]
    assert storage.groups == [1, 2]


def test_close_writes_what_waits() -> None:
    storage = GatedStorage()
    outcomes: Outcomes = queue.SimpleQueue()
    group_writer: GroupWriter[int] = GroupWriter(storage, outcomes.put, "test")
    group_writer.submit(0, write(0), 4)
    assert storage.started.wait(10)
    group_writer.submit(1, write(1), 4)
    closing = threading.Thread(target=group_writer.close)
    closing.start()
    storage.gate.set()
    closing.join(10)
    assert not closing.is_alive()
    group_writer.close()
    assert [list(outcomes.get_nowait().keys), list(outcomes.get_nowait().keys)] == [[0], [1]]


class ExpectantStorage(GatedStorage):
    """Takes note of what it is told to expect."""

    def __init__(self) -> None:
        super().__init__()
        self.gate.set()
        self.expected: queue.SimpleQueue[PreparedTransaction] = queue.SimpleQueue()
        self.fault: Exception | None = None

    def anticipate(self, transaction: PreparedTransaction) -> None:
        self.expected.put(transaction)
        if self.fault is not None:
            raise self.fault


def test_a_storage_is_told_what_will_probably_be_written() -> None:
    storage = ExpectantStorage()
    transaction = write(1)
    with writer(storage) as (group_writer, outcomes):
        group_writer.anticipate(transaction, 4)
        assert storage.expected.get(timeout=10) is transaction
        group_writer.submit(1, transaction, 4)
        assert outcomes.get(timeout=10).error is None
    assert storage.groups == [1]


def test_nothing_is_anticipated_while_others_wait_nor_if_it_is_large() -> None:
    storage = ExpectantStorage()
    storage.gate.clear()
    with writer(storage) as (group_writer, outcomes):
        group_writer.submit(0, write(0), 4)
        assert storage.started.wait(10)
        group_writer.anticipate(write(1), 4)  # behind it others are waiting
        group_writer.submit(2, write(2), 4)
        group_writer.submit(3, write(3), 4)
        storage.gate.set()
        assert [list(outcomes.get(timeout=10).keys) for _ in range(2)] == [[0], [2, 3]]
        group_writer.anticipate(write(4), ANTICIPATED_MAX_BYTES + 1)
        group_writer.submit(4, write(4), 4)
        assert outcomes.get(timeout=10).error is None
    assert storage.expected.empty()


@pytest.mark.parametrize("fault", [StorageFullError("Data.fs", "no room"), OSError("broken"), RuntimeError("a bug")])
def test_a_storage_that_fails_beforehand_is_asked_again(fault: Exception) -> None:
    storage = ExpectantStorage()
    storage.fault = fault
    transaction = write(1)
    with writer(storage) as (group_writer, outcomes):
        group_writer.anticipate(transaction, 4)
        storage.expected.get(timeout=10)
        group_writer.submit(1, transaction, 4)
        outcome = outcomes.get(timeout=10)
    assert outcome.error is None
    assert outcome.group is not None
