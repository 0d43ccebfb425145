"""The coordinator on a real loop over real storages; its clients are recorders of what they are told."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from zeo_core.errors import (
    ClientDisconnected,
    ConflictError,
    ReadConflictError,
    StorageClosedError,
    StorageError,
    StorageFullError,
    StorageTransactionError,
)
from zeo_core.ids import MAX_TID, ZERO_TID, Oid, Tid, pack_id
from zeo_core.storage import Announce, ServedStorage
from zeo_core.transaction import PreparedTransaction
from zeo_core.wire.codec import decode
from zeo_core.wire.frames import HEADER_BYTES
from zeo_server.commit.coordinator import Coordinator
from zeo_server.limits import Limits
from zeo_server.status import StorageStatus
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

A, B, C = (pack_id(n) for n in (1, 2, 3))


class Recorder:
    """A client: `stream` has all it was told, pushes as (method, args) and answers as (txn id, outcome)."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self.stream: list[tuple[Any, Any]] = []
        self.reason: str | None = None
        self.awaiting = 0
        self._told = asyncio.Event()
        coordinator.join(self)

    def send(self, frame: bytes) -> None:
        message = decode(frame[HEADER_BYTES:])
        self._tell(message.method, message.body)

    def hold(self) -> None:
        pass

    def release(self) -> None:
        pass

    def send_later(self, frame: bytes) -> None:
        self.send(frame)

    def disconnect(self, reason: str) -> None:
        self.reason = reason
        self.coordinator.leave(self)
        self._told.set()

    def begin(self, txn: int, *objects: tuple[Oid, Tid, bytes], checks: Sequence[tuple[Oid, Tid]] = ()) -> None:
        self.coordinator.begin(self, txn)
        for oid, serial, data in objects:
            self.coordinator.store(self, txn, oid, serial, data)
        for oid, serial in checks:
            self.coordinator.check(self, txn, oid, serial)

    def vote(self, txn: int) -> None:
        self.coordinator.vote(self, txn, lambda outcome: self._tell(txn, outcome))

    def finish(self, txn: int) -> None:
        self.coordinator.finish(self, txn, lambda outcome: self._tell(txn, outcome))

    def answers(self, txn: int) -> list[Any]:
        return [outcome for name, outcome in self.stream if name == txn]

    async def answer(self, txn: int, number: int = 1) -> Any:
        """Return the answer to the transaction's vote (the first) or finish (the second)."""
        while len(self.answers(txn)) < number:
            self._told.clear()
            await asyncio.wait_for(self._told.wait(), 10)
        return self.answers(txn)[number - 1]

    async def gone(self) -> str:
        while self.reason is None:
            self._told.clear()
            await asyncio.wait_for(self._told.wait(), 10)
        return self.reason

    async def commit(self, txn: int, *objects: tuple[Oid, Tid, bytes]) -> Tid:
        self.begin(txn, *objects)
        self.vote(txn)
        assert await self.answer(txn) == []
        self.finish(txn)
        tid: Tid = await self.answer(txn, 2)
        assert isinstance(tid, bytes), tid
        return tid

    def _tell(self, name: object, what: object) -> None:
        self.stream.append((name, what))
        self._told.set()

    def invalidations(self) -> list[tuple[Tid, Sequence[Oid]]]:
        return [what for name, what in self.stream if name == "invalidateTransaction"]


@pytest_asyncio.fixture(params=["mapping", "file"])
async def coordinator(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Coordinator]:
    storage: ServedStorage
    storage = MappingStorage() if request.param == "mapping" else FileStorage(str(tmp_path / "Data.fs"))
    made = Coordinator(storage, asyncio.get_running_loop())
    yield made
    await made.close()
    storage.close()


class Gated(MappingStorage):
    """A storage whose writes and publications can be held up or made to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.groups: list[int] = []
        self.write_error: Exception | None = None
        self.publish_error: Exception | None = None

    def write_group(self, transactions: Sequence[PreparedTransaction]) -> Any:
        assert self.gate.wait(10)
        self.groups.append(len(transactions))
        if self.write_error is not None:
            raise self.write_error
        return super().write_group(transactions)

    def publish(self, group: Any, announce: Announce | None = None) -> None:
        if self.publish_error is not None:
            raise self.publish_error
        super().publish(group, announce)


@pytest_asyncio.fixture
async def gated() -> AsyncIterator[tuple[Coordinator, Gated]]:
    storage = Gated()
    made = Coordinator(storage, asyncio.get_running_loop())
    yield made, storage
    storage.gate.set()
    await made.close()


async def test_a_commit_is_visible_and_told_to_everybody_else(coordinator: Coordinator) -> None:
    writer, reader = Recorder(coordinator), Recorder(coordinator)
    tid = await writer.commit(1, (A, ZERO_TID, b"one"))
    assert coordinator.storage.load_before(A, MAX_TID) == (b"one", tid, None)
    assert coordinator.storage.last_tid() == tid
    assert reader.stream == [("invalidateTransaction", (tid, (A,)))]
    # the vote's answer, then the new figures, then the tid: ZEO's clients read them in this order
    assert writer.stream == [(1, []), ("info", (coordinator.info(),)), (1, tid)]
    assert coordinator.invalidations.since(ZERO_TID) == (tid, [A])


async def test_tids_grow_and_every_client_hears_each_once_in_order(coordinator: Coordinator) -> None:
    writers = [Recorder(coordinator) for _ in range(3)]
    reader = Recorder(coordinator)
    tids: list[Tid] = []
    serials = dict.fromkeys(writers, ZERO_TID)
    for round_ in range(4):
        for number, writer in enumerate(writers):
            # the second writer commits transactions without any object: they are announced as well (lesson B8)
            objects = [] if number == 1 else [(pack_id(number + 10), serials[writer], b"%d" % round_)]
            serials[writer] = await writer.commit(round_, *objects)
            tids.append(serials[writer])
    assert tids == sorted(set(tids))
    assert [tid for tid, _ in reader.invalidations()] == tids
    assert [oids for _, oids in reader.invalidations()][1] == ()
    for number, writer in enumerate(writers):
        assert [tid for tid, _ in writer.invalidations()] == [t for i, t in enumerate(tids) if i % 3 != number]


async def test_a_conflict_is_the_answer_to_the_vote(coordinator: Coordinator) -> None:
    writer, loser = Recorder(coordinator), Recorder(coordinator)
    tid = await writer.commit(1, (A, ZERO_TID, b"one"))
    loser.begin(1, (B, ZERO_TID, b"new"), (A, ZERO_TID, b"other"))
    loser.vote(1)
    error = await loser.answer(1)
    assert isinstance(error, ConflictError)
    assert (error.oid, error.serials) == (A, (tid, ZERO_TID))
    assert coordinator.counters.conflicts == 1
    # the transaction is over: nothing of it is left in anybody's way
    with pytest.raises(StorageTransactionError):
        coordinator.finish(loser, 1, lambda outcome: None)
    coordinator.abort(loser, 1)
    await writer.commit(2, (B, ZERO_TID, b"mine"))


async def test_a_serial_for_an_object_that_is_not_there_is_a_conflict(coordinator: Coordinator) -> None:
    client = Recorder(coordinator)
    client.begin(1, (A, pack_id(5), b"one"))
    client.vote(1)
    assert isinstance(await client.answer(1), ConflictError)


async def test_what_must_stay_current_is_checked(coordinator: Coordinator) -> None:
    client = Recorder(coordinator)
    tid = await client.commit(1, (A, ZERO_TID, b"one"))
    client.begin(2, (B, ZERO_TID, b"two"), checks=[(A, ZERO_TID)])
    client.vote(2)
    error = await client.answer(2)
    assert isinstance(error, ReadConflictError)
    assert (error.oid, error.serials) == (A, (tid, ZERO_TID))
    client.begin(3, (B, ZERO_TID, b"two"), checks=[(A, tid)])
    client.vote(3)
    assert await client.answer(3) == []


async def test_what_must_stay_current_stays_so_until_the_end(coordinator: Coordinator) -> None:
    checker, other_checker, writer = (Recorder(coordinator) for _ in range(3))
    tid = await writer.commit(1, (A, ZERO_TID, b"one"))
    checker.begin(1, (B, ZERO_TID, b"two"), checks=[(A, tid)])
    checker.vote(1)
    # others who only want it to stay current do not wait
    other_checker.begin(1, (C, ZERO_TID, b"three"), checks=[(A, tid)])
    other_checker.vote(1)
    assert await other_checker.answer(1) == []
    coordinator.abort(other_checker, 1)
    # but one who would change it does
    writer.begin(2, (A, tid, b"changed"))
    writer.vote(2)
    assert writer.answers(2) == []
    checker.finish(1)
    await checker.answer(1, 2)
    assert await writer.answer(2) == []
    # A was checked only, so nobody is told that it changed (lesson B8)
    assert writer.invalidations()[-1][1] == (B,)


async def test_one_who_votes_and_sleeps_delays_only_those_who_want_its_objects(coordinator: Coordinator) -> None:
    sleeper, other, rival = (Recorder(coordinator) for _ in range(3))
    sleeper.begin(1, (A, ZERO_TID, b"one"))
    sleeper.vote(1)
    await sleeper.answer(1)
    rival.begin(1, (A, ZERO_TID, b"rival"))
    rival.vote(1)
    for txn in range(5):
        await other.commit(txn, (pack_id(100 + txn), ZERO_TID, b"free"))
    assert rival.answers(1) == []
    assert coordinator.locks.waiting() == 1
    coordinator.abort(sleeper, 1)
    assert await rival.answer(1) == []


async def test_a_client_is_known_to_be_in_doubt_from_its_vote_on(gated: tuple[Coordinator, Gated]) -> None:
    coordinator, storage = gated
    client = Recorder(coordinator)
    client.begin(1, (A, ZERO_TID, b"x"))
    assert client.awaiting == 0
    client.vote(1)
    client.finish(1)
    assert client.awaiting == 1
    storage.gate.set()
    await client.answer(1, 2)
    assert client.awaiting == 0


async def test_who_waited_gets_the_conflict_once_the_winner_is_published(coordinator: Coordinator) -> None:
    winner, loser = Recorder(coordinator), Recorder(coordinator)
    winner.begin(1, (A, ZERO_TID, b"one"))
    winner.vote(1)
    loser.begin(1, (A, ZERO_TID, b"two"))
    loser.vote(1)
    assert loser.stream == []
    winner.finish(1)
    assert isinstance(await loser.answer(1), ConflictError)
    # and it had been told what changed before it was told that it lost
    assert [name for name, _ in loser.stream] == ["invalidateTransaction", 1]


async def test_a_long_row_of_losers_is_answered(coordinator: Coordinator) -> None:
    winner = Recorder(coordinator)
    winner.begin(1, (A, ZERO_TID, b"one"))
    winner.vote(1)
    losers = [Recorder(coordinator) for _ in range(1500)]
    for loser in losers:
        loser.begin(1, (A, ZERO_TID, b"two"))
        loser.vote(1)
    assert coordinator.locks.waiting() == len(losers)
    winner.finish(1)
    for loser in losers:
        assert isinstance(await loser.answer(1), ConflictError)
    assert coordinator.locks.waiting() == 0


async def test_a_voter_that_disconnects_frees_its_locks(coordinator: Coordinator) -> None:
    voter, waiter, next_one = (Recorder(coordinator) for _ in range(3))
    voter.begin(1, (A, ZERO_TID, b"one"))
    voter.begin(2, (B, ZERO_TID, b"not voted yet"))
    voter.vote(1)
    waiter.begin(1, (A, ZERO_TID, b"two"))
    waiter.vote(1)
    next_one.begin(1, (A, ZERO_TID, b"three"))
    next_one.vote(1)
    coordinator.leave(waiter)  # one who waits makes way as well
    coordinator.leave(voter)
    coordinator.leave(voter)
    assert await next_one.answer(1) == []
    assert coordinator.counters.active_txns == 1
    assert len(coordinator.audience) == 1


async def test_the_transaction_timeout_frees_the_locks_and_ends_the_connection() -> None:
    storage = MappingStorage()
    coordinator = Coordinator(storage, asyncio.get_running_loop(), timeout_s=0.02)
    sleeper, waiter = Recorder(coordinator), Recorder(coordinator)
    sleeper.begin(1, (A, ZERO_TID, b"one"))
    sleeper.vote(1)
    waiter.begin(1, (A, ZERO_TID, b"two"))
    waiter.vote(1)
    assert await waiter.answer(1) == []
    assert await sleeper.gone() == "Transaction timeout after 0.02 seconds"
    waiter.finish(1)
    assert isinstance(await waiter.answer(1, 2), bytes)
    assert waiter.reason is None
    await coordinator.close()


async def test_a_finish_is_completed_without_its_client(gated: tuple[Coordinator, Gated]) -> None:
    coordinator, storage = gated
    writer, reader = Recorder(coordinator), Recorder(coordinator)
    writer.begin(1, (A, ZERO_TID, b"one"))
    writer.vote(1)
    writer.finish(1)
    coordinator.leave(writer)
    storage.gate.set()
    await coordinator.quiet(10)
    assert [oids for _, oids in reader.invalidations()] == [(A,)]
    assert writer.answers(1) == [[]]
    await reader.commit(1, (A, storage.last_tid(), b"two"))  # and its locks are free


async def test_those_who_wait_for_the_disk_are_written_together(gated: tuple[Coordinator, Gated]) -> None:
    coordinator, storage = gated
    writers = [Recorder(coordinator) for _ in range(6)]
    for number, writer in enumerate(writers):
        writer.begin(1, (pack_id(number), ZERO_TID, b"one"))
        writer.vote(1)
        writer.finish(1)
    storage.gate.set()
    tids = [await writer.answer(1, 2) for writer in writers]
    assert tids == sorted(set(tids))
    assert sum(storage.groups) == 6
    assert len(storage.groups) <= 2  # the first may have been alone with the writer
    for number, writer in enumerate(writers):
        told = [what[0] if name == "invalidateTransaction" else what for name, what in writer.stream[1:]]
        # its own tid stands at its own place among those of the others
        assert [tid for tid in told if isinstance(tid, bytes)] == tids, number


async def test_a_write_that_fails_is_reported_and_frees_the_locks(gated: tuple[Coordinator, Gated]) -> None:
    coordinator, storage = gated
    storage.gate.set()
    storage.write_error = StorageFullError("Data.fs", "no room")
    client = Recorder(coordinator)
    client.begin(1, (A, ZERO_TID, b"one"))
    client.vote(1)
    client.finish(1)
    assert await client.answer(1, 2) is storage.write_error
    assert storage.last_tid() == ZERO_TID
    storage.write_error = None
    await client.commit(2, (A, ZERO_TID, b"one"))


async def test_when_publishing_fails_nobody_is_served_any_more(gated: tuple[Coordinator, Gated]) -> None:
    coordinator, storage = gated
    storage.gate.set()
    storage.publish_error = RuntimeError("a bug")
    client, reader = Recorder(coordinator), Recorder(coordinator)
    client.begin(1, (A, ZERO_TID, b"one"))
    client.vote(1)
    client.finish(1)
    await client.gone()
    await reader.gone()
    assert client.answers(1) == [[]]  # no answer: it has to find out
    late = Recorder(coordinator)
    late.begin(1)
    late.vote(1)
    assert isinstance(await late.answer(1), StorageClosedError)


class Small(MappingStorage):
    """A storage with room for 1,000 bytes."""

    def check_room(self, byte_count: int) -> None:
        if byte_count > 1000:
            raise StorageFullError("Data.fs", "no room")


async def test_room_is_promised_by_the_vote_and_given_back_at_the_end() -> None:
    coordinator = Coordinator(Small(), asyncio.get_running_loop())
    client = Recorder(coordinator)
    client.begin(1, (A, ZERO_TID, b"x" * 500))
    client.vote(1)
    assert await client.answer(1) == []
    client.begin(2, (B, ZERO_TID, b"x" * 500))
    client.vote(2)  # there is room for each, not for both
    assert isinstance(await client.answer(2), StorageFullError)
    coordinator.abort(client, 1)
    await client.commit(3, (B, ZERO_TID, b"x" * 500))
    await client.commit(4, (C, ZERO_TID, b"x" * 500))
    await coordinator.close()


async def test_calls_for_unknown_transactions(coordinator: Coordinator) -> None:
    client, other = Recorder(coordinator), Recorder(coordinator)
    other.begin(1)
    with pytest.raises(StorageTransactionError, match="no transaction 1"):
        coordinator.store(client, 1, A, ZERO_TID, b"")
    with pytest.raises(StorageTransactionError):
        coordinator.check(client, 1, A, ZERO_TID)
    with pytest.raises(StorageTransactionError):
        client.vote(1)
    with pytest.raises(StorageTransactionError):
        client.finish(1)
    coordinator.abort(client, 1)


async def test_calls_in_the_wrong_phase(coordinator: Coordinator) -> None:
    client = Recorder(coordinator)
    client.begin(1, (A, ZERO_TID, b"one"))
    client.begin(1)  # repeated: no harm
    with pytest.raises(StorageTransactionError, match="finish is not possible: the transaction is begun"):
        client.finish(1)
    client.vote(1)
    with pytest.raises(StorageTransactionError, match="vote is not possible: the transaction is voted"):
        client.vote(1)
    assert await client.answer(1) == []
    client.finish(1)
    with pytest.raises(StorageTransactionError):
        coordinator.abort(client, 1)
    assert isinstance(await client.answer(1, 2), bytes)


async def test_open_transactions_are_limited(coordinator: Coordinator) -> None:
    client = Recorder(coordinator)
    for txn in range(100):
        client.begin(txn)
    with pytest.raises(StorageTransactionError, match="100 transactions are open"):
        client.begin(-1)
    coordinator.change_limits(Limits(transactions_max=101))
    client.begin(-1)
    with pytest.raises(StorageTransactionError, match="101 transactions are open"):
        client.begin(-2)


async def test_what_went_wrong_while_staging_is_reported_by_the_vote(coordinator: Coordinator) -> None:
    client = Recorder(coordinator)
    client.begin(1, (A, ZERO_TID, b"one"))
    error = StorageError("too large")
    coordinator.begin(client, 1).doom(error)
    client.vote(1)
    assert await client.answer(1) is error
    assert coordinator.counters.active_txns == 0


async def test_a_stopping_server_grants_no_vote_but_finishes_what_is_voted(coordinator: Coordinator) -> None:
    voted, late = Recorder(coordinator), Recorder(coordinator)
    voted.begin(1, (A, ZERO_TID, b"one"))
    voted.vote(1)
    await voted.answer(1)
    coordinator.refuse_votes("the server is stopping")
    assert coordinator.is_in_doubt(voted)
    assert not coordinator.is_in_doubt(late)
    voted.begin(2, (B, ZERO_TID, b"two"))
    voted.vote(2)
    assert isinstance(await voted.answer(2), ClientDisconnected)
    late.begin(1, (B, ZERO_TID, b"two"))
    late.vote(1)
    assert await late.gone() == "the server is stopping"
    assert late.answers(1) == []
    assert not await coordinator.quiet(0.01)
    voted.finish(1)
    assert await coordinator.quiet(10)
    assert isinstance(await voted.answer(1, 2), bytes)


async def test_status_counts(coordinator: Coordinator) -> None:
    client = Recorder(coordinator)
    tid = await client.commit(1, (A, ZERO_TID, b"one"))
    client.begin(2, (A, ZERO_TID, b"conflict"))
    client.vote(2)
    client.begin(3)
    coordinator.abort(client, 3)
    client.begin(4, (B, ZERO_TID, b"two"))
    client.vote(4)
    status = StorageStatus.of(coordinator).as_map()
    expected = {"commits": 1, "stores": 3, "aborts": 2, "conflicts": 1, "active_txns": 1, "connections": 1}
    assert {key: status[key] for key in expected} == expected
    assert status["last-transaction"] == tid.hex()
    assert isinstance(status["lock_time"], float)
