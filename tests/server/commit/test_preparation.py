"""What a vote does before it asks for locks, over a real storage: undo, spooled records, blobs."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.contract.storages import commit
from zeo_core.errors import StorageError, UndoError
from zeo_core.ids import ZERO_TID, pack_id
from zeo_core.transaction import whole
from zeo_server.commit.phases import Step
from zeo_server.commit.preparation import Preparation
from zeo_server.commit.spool import Spooling
from zeo_server.commit.transaction import ServerTransaction
from zeo_server.commit.uploads import Uploads
from zeo_server.limits import Limits
from zeo_server.storages.file import FileStorage

A, B = pack_id(1), pack_id(2)
LIMITS = Limits(transaction_spool_bytes=1000)


class Client:
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


class Bench:
    """A storage with what prepares votes on it."""

    def __init__(self, path: Path) -> None:
        self.storage = FileStorage(path / "Data.fs")
        self.uploads = Uploads(self.storage, asyncio.get_running_loop(), "1")
        self.spooling = Spooling(self.storage, self.uploads.run, LIMITS)
        self.preparation = Preparation(self.storage, self.uploads)
        self.ready: list[ServerTransaction] = []

    def begin(self) -> ServerTransaction:
        return ServerTransaction(Client(), 1, LIMITS, self.spooling)

    def prepare(self, transaction: ServerTransaction) -> None:
        transaction.move(Step.VOTE)
        self.preparation.prepare(transaction, self.ready.append)

    async def prepared(self, transaction: ServerTransaction) -> None:
        self.prepare(transaction)
        async with asyncio.timeout(20):
            while not self.ready:
                await asyncio.sleep(0.001)
        assert self.ready == [transaction]


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    await made.uploads.close()
    made.storage.close()


@pytest.mark.asyncio
async def test_a_small_transaction_is_ready_at_once(bench: Bench) -> None:
    transaction = bench.begin()
    transaction.store(A, ZERO_TID, b"x" * 1000)
    bench.prepare(transaction)
    assert bench.ready == [transaction]
    assert transaction.spool is None
    assert (transaction.memory_bytes, bench.spooling.memory_bytes) == (1000, 1000)  # the most that one may have
    transaction.drop()
    assert bench.spooling.memory_bytes == 0


@pytest.mark.asyncio
async def test_what_is_spooled_is_in_its_file(bench: Bench) -> None:
    transaction = bench.begin()
    transaction.store(A, ZERO_TID, b"a" * 1000)
    transaction.store(B, ZERO_TID, b"b")
    await bench.prepared(transaction)
    assert transaction.error is None
    assert [whole(write.data) for write in transaction.prepared().writes] == [b"a" * 1000, b"b"]
    assert transaction.spool is not None
    assert transaction.memory_bytes == 1000
    transaction.drop()


@pytest.mark.asyncio
async def test_a_spool_that_failed_dooms_the_transaction(bench: Bench, tmp_path: Path) -> None:
    bench.spooling = Spooling(bench.storage, bench.uploads.run, LIMITS, str(tmp_path / "gone"))
    transaction = bench.begin()
    transaction.store(A, ZERO_TID, b"a" * 1001)
    await bench.prepared(transaction)
    assert isinstance(transaction.error, StorageError)
    assert "gone" in str(transaction.error)
    assert transaction.writes == {}


@pytest.mark.asyncio
async def test_an_undo_sees_spooled_records_and_its_own_are_spooled(bench: Bench) -> None:
    first = commit(bench.storage, {A: b"a" * 2000})
    second = commit(bench.storage, {A: b"b" * 2000})
    transaction = bench.begin()
    transaction.store(A, second, b"b" * 2000)  # the very state that is to be undone
    transaction.undo(second)
    await bench.prepared(transaction)
    assert transaction.error is None
    [write] = transaction.prepared().writes
    assert (whole(write.data), write.data_tid, isinstance(write.data, bytes)) == (b"a" * 2000, first, False)
    transaction.drop()


@pytest.mark.asyncio
async def test_an_undo_that_cannot_be_dooms_the_transaction(bench: Bench) -> None:
    tid = commit(bench.storage, {A: b"a"})
    transaction = bench.begin()
    transaction.store(A, tid, b"x" * 2000)
    transaction.undo(tid)
    await bench.prepared(transaction)
    assert isinstance(transaction.error, UndoError)


@pytest.mark.asyncio
async def test_what_is_stored_again_and_again_fills_no_disk(bench: Bench) -> None:
    limits = Limits(transaction_spool_bytes=0, transaction_max_bytes=10_000)
    bench.spooling.limits = limits
    transaction = ServerTransaction(Client(), 1, limits, bench.spooling)
    for _ in range(5):
        transaction.store(A, ZERO_TID, b"x" * 2000)
    assert transaction.error is None
    transaction.store(A, ZERO_TID, b"x" * 2000)
    assert "larger than 10000 bytes" in str(transaction.error)
    assert (transaction.writes, transaction.spool, transaction.memory_bytes) == ({}, None, 0)


@pytest.mark.asyncio
async def test_nobody_goes_on_with_a_transaction_that_has_ended(bench: Bench) -> None:
    transaction = bench.begin()
    transaction.store(A, ZERO_TID, b"x" * 2000)
    bench.prepare(transaction)
    transaction.move(Step.ABORT)
    transaction.drop()
    await bench.uploads.close()
    await asyncio.sleep(0)  # what the threads' ends have called is done
    assert bench.ready == []
