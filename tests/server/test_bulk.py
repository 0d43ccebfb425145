"""load_many, asked by a client on a socket, and what can happen while its answer is gathered."""

import asyncio
import itertools
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.records import message_node, node
from tests.server.in_process import InProcess, in_process
from tests.server.raw_client import RawClient
from zeo_core.errors import ZeodError
from zeo_core.ids import MAX_TID, ZERO_TID, Oid, Tid, pack_id, successor
from zeo_core.transaction import Revision
from zeo_core.wire.compression import decompressed
from zeo_server import bulk
from zeo_server.bulk import BulkLoads, Wanted, references_within
from zeo_server.commit.coordinator import Coordinator
from zeo_server.storages.mapping import MappingStorage

MANY = [pack_id(number) for number in range(1, 300)]
A, B, C, D = MANY[:4]


@pytest.fixture
def client() -> Iterator[RawClient]:
    with in_process() as server, server.client() as connected:
        yield connected


def oids(answer: tuple[tuple[tuple[Oid, bytes, Tid, Tid | None], ...], tuple[Oid, ...]]) -> list[Oid]:
    return [entry[0] for entry in answer[0]]


def commit(client: RawClient, records: dict[Oid, bytes]) -> Tid:
    return client.commit({oid: (ZERO_TID, record) for oid, record in records.items()})


def test_many_objects_in_one_call(client: RawClient) -> None:
    first = commit(client, {oid: b"data of " + oid for oid in MANY})
    second = client.commit({A: (first, b"new")})
    found, left = client.call("load_many", MANY, MAX_TID)
    assert found[0] == (A, b"new", second, None)
    assert found[1:] == tuple((oid, b"data of " + oid, first, None) for oid in MANY[1:])
    assert left == ()
    assert client.call("load_many", [A], second) == (((A, b"data of " + A, first, second),), ())


def test_what_does_not_exist_is_passed_over(client: RawClient) -> None:
    first = commit(client, {B: b"b"})
    commit(client, {C: b"c"})
    assert oids(client.call("load_many", [A, B, C, B], successor(first))) == [B]
    assert client.call("load_many", [], MAX_TID) == ((), ())


def test_what_has_no_room_is_named(client: RawClient) -> None:
    commit(client, dict.fromkeys(MANY, b"x" * 1000))
    found, left = client.call("load_many", MANY, MAX_TID, 0, 10_000)
    assert [entry[0] for entry in found] + list(left) == MANY
    assert 5 < len(found) <= 10
    found, left = client.call("load_many", MANY, MAX_TID, 0, 0)
    assert len(found) == 1  # else whoever asks again would never be done


def test_what_they_refer_to_comes_in_the_order_of_a_reader(client: RawClient) -> None:
    commit(client, {A: node(B, D), B: node(C), C: node(A), D: node()})
    assert oids(client.call("load_many", [A], MAX_TID)) == [A]
    assert oids(client.call("load_many", [A], MAX_TID, 1)) == [A, B, D]
    assert oids(client.call("load_many", [A], MAX_TID, 9)) == [A, B, C, D]
    assert oids(client.call("load_many", [D, A], MAX_TID, 1)) == [D, A, B]


def test_a_class_that_is_gone_through_is_no_step(client: RawClient) -> None:
    missing = pack_id(9999)
    commit(client, {oid: node(missing, after, name="Bucket") for oid, after in itertools.pairwise(MANY)})
    assert oids(client.call("load_many", [A], MAX_TID, 0, 1 << 20, "nowhere.Bucket")) == MANY[:-1]
    assert oids(client.call("load_many", [A], MAX_TID, 0, 1 << 20, "nowhere.Other")) == [A]


def test_records_with_protobuf_messages_are_followed_as_pickled_ones(client: RawClient) -> None:
    commit(client, {A: message_node(B, D), B: node(C), C: message_node(A, weak=(D,)), D: message_node()})
    assert oids(client.call("load_many", [A], MAX_TID, 1)) == [A, B, D]
    assert oids(client.call("load_many", [B], MAX_TID, 9)) == [B, C, A, D]
    chain = {oid: message_node(after, name="Bucket") for oid, after in itertools.pairwise(MANY[9:])}
    commit(client, chain)
    assert oids(client.call("load_many", [MANY[9]], MAX_TID, 0, 1 << 20, "nowhere.Bucket")) == MANY[9:-1]


@pytest.mark.parametrize("record", [node, message_node])
def test_references_of_a_long_record_are_read_too(client: RawClient, record: Callable[..., bytes]) -> None:
    commit(client, {A: record(B, filling=30_000), B: b"no record at all"})
    assert oids(client.call("load_many", [A], MAX_TID, 5)) == [A, B]


def test_records_that_are_not_followed() -> None:
    record = node(A, filling=bulk.FOLLOWED_MAX_BYTES)
    assert references_within(node(A)) == [A]
    assert references_within(b".z" + zlib.compress(node(A))) == [A]
    assert references_within(record) == references_within(message_node(A, filling=bulk.FOLLOWED_MAX_BYTES)) == []
    assert references_within(message_node(A)) == [A]
    assert references_within(message_node(A)[:-1]) == []
    assert references_within(b".z" + zlib.compress(b"\0" * 50_000_000)) == []
    assert references_within(b"no record") == references_within(b"") == references_within(b"{unknown}x") == []


@pytest.mark.parametrize("pickles", [b"", b"N."])
def test_a_record_that_asks_for_a_large_memo_is_not_followed(pickles: bytes) -> None:
    """The unpickler would make room for four thousand million entries."""
    assert references_within(pickles + b"Nr\xff\xff\xff\xff." + node(A)) == []


def test_too_many_oids_end_the_connection(client: RawClient) -> None:
    client.one_way("load_many", MANY * 4, MAX_TID)
    client.wait_closed()


class Line:
    """A storage that waits for the disk at every first look, and a peer that may be slow."""

    def __init__(self) -> None:
        self.slow = False
        self.answers: list[object] = []

    def takes_more(self) -> bool:
        return not self.slow


class OnDisk(MappingStorage):
    """Has an object in memory when it was loaded once."""

    def __init__(self) -> None:
        super().__init__()
        self.in_memory: set[Oid] = set()

    def load_before(self, oid: Oid, tid: Tid) -> Revision | None:
        self.in_memory.add(oid)
        return super().load_before(oid, tid)

    def load_cached(self, oid: Oid, tid: Tid) -> Revision | None:
        if oid not in self.in_memory:
            raise BlockingIOError
        return super().load_before(oid, tid)


async def answered(line: Line) -> Any:
    async with asyncio.timeout(20):
        while not line.answers:
            await asyncio.sleep(0.001)
    return line.answers.pop()


def stored(storage: MappingStorage, records: dict[Oid, bytes]) -> None:
    class Txn:
        user = description = ""
        extension: dict[str, object] = {}  # noqa: RUF012 - as storages get it

    txn = Txn()
    storage.tpc_begin(txn)
    for oid, record in records.items():
        revision = storage.load_before(oid, MAX_TID) if storage.current_tid(oid) else None
        storage.store(oid, revision.tid if revision else ZERO_TID, record, "", txn)
    storage.tpc_vote(txn)
    storage.tpc_finish(txn)


async def test_what_is_not_in_memory_is_read_in_a_thread() -> None:
    storage, line = OnDisk(), Line()
    stored(storage, dict.fromkeys(MANY, b"x"))
    storage.in_memory.clear()
    loop = asyncio.get_running_loop()
    loads = BulkLoads(Coordinator(storage, loop), line, loop)
    loads.load(Wanted([*MANY, pack_id(9999)], MAX_TID), line.answers.append)
    found, left = await answered(line)
    assert len(found) == len(MANY)
    assert left == []


async def test_an_answer_is_true_when_it_leaves_whatever_was_committed_while_it_was_gathered() -> None:
    """Lesson B2: what the first slice found as current may not be current any more at the end."""
    storage, line = MappingStorage(), Line()
    stored(storage, dict.fromkeys(MANY, b"old"))
    loop = asyncio.get_running_loop()
    coordinator = Coordinator(storage, loop)
    loads = BulkLoads(coordinator, line, loop)
    loads.load(Wanted(MANY, MAX_TID), line.answers.append)
    for _ in range(3):
        await asyncio.sleep(0)
    assert line.answers == []
    stored(storage, {A: b"new"})
    tid = storage.last_tid()
    coordinator.invalidations.add(tid, [A])
    found, _ = await answered(line)
    assert {entry[0]: entry[1:] for entry in found}[A] == (b"new", tid, None)
    assert {entry[1] for entry in found if entry[0] != A} == {b"old"}


def test_objects_come_compressed_if_that_is_asked_for_and_pays(client: RawClient) -> None:
    commit(client, dict.fromkeys(MANY[1:], b"again and again") | {A: os.urandom(5000)})
    plain = client.call("load_many", MANY[1:], MAX_TID, 0, 1 << 20, "")
    smaller, left = client.call("load_many", MANY[1:], MAX_TID, 0, 1 << 20, "", True)
    assert (decompressed(smaller), left) == plain
    assert len(smaller) < 4000
    assert client.call("load_many", [A], MAX_TID, 0, 0, "", True) == client.call("load_many", [A], MAX_TID)
    assert client.call("load_many", [MANY[1]], MAX_TID, 0, 0, "", True) == client.call("load_many", [MANY[1]], MAX_TID)


async def test_what_is_committed_while_an_answer_is_compressed_is_in_it() -> None:
    """Lesson B2: compressing takes long, and what it was begun with may not be true any more at its end."""
    storage, line = MappingStorage(), Line()
    stored(storage, dict.fromkeys(MANY[:10], b"old" * 1000))
    loop = asyncio.get_running_loop()
    coordinator = Coordinator(storage, loop)
    told: list[int] = []
    loads = BulkLoads(coordinator, line, loop)
    loads.load(Wanted(MANY[:10], MAX_TID, compressed=True, count_found=told.append), line.answers.append)
    found, _ = await answered(line)
    assert [entry[1] for entry in decompressed(found)] == [b"old" * 1000] * 10
    pool = ThreadPoolExecutor(1)
    loop.set_default_executor(pool)
    go = threading.Event()
    pool.submit(go.wait, 30)  # the thread that is to compress is busy
    loads.load(Wanted(MANY[:10], MAX_TID, compressed=True, count_found=told.append), line.answers.append)
    for _ in range(20):
        await asyncio.sleep(0)
    assert line.answers == []
    stored(storage, {A: b"new"})
    coordinator.invalidations.add(storage.last_tid(), [A])
    go.set()
    found, _ = await answered(line)
    assert {entry[0]: entry[1:] for entry in found}[A] == (b"new", storage.last_tid(), None)
    assert told == [10, 10]


async def test_a_peer_that_does_not_read_is_waited_for() -> None:
    storage, line = MappingStorage(), Line()
    stored(storage, dict.fromkeys(MANY, b"x"))
    loop = asyncio.get_running_loop()
    loads = BulkLoads(Coordinator(storage, loop), line, loop)
    line.slow = True
    loads.load(Wanted(MANY, MAX_TID), line.answers.append)
    for _ in range(50):
        await asyncio.sleep(0)
    assert line.answers == []
    line.slow = False
    loads.answers.resume()
    assert len((await answered(line))[0]) == len(MANY)
    line.slow = True
    loads.load(Wanted(MANY, MAX_TID), line.answers.append)
    await asyncio.sleep(0)
    for _ in range(bulk.WAITING_MAX):
        loads.load(Wanted([A], MAX_TID), line.answers.append)
    assert line.answers == []
    loads.load(Wanted([A], MAX_TID), line.answers.append)
    assert isinstance(line.answers.pop(), ZeodError)
    loads.answers.close()
    line.slow = False
    loads.answers.resume()
    for _ in range(50):
        await asyncio.sleep(0)
    assert line.answers == []


def test_others_are_served_while_a_long_answer_is_gathered() -> None:
    with in_process() as server:
        check_others_are_served(server)


def check_others_are_served(server: InProcess) -> None:
    with server.client() as one, server.client() as other:
        commit(one, dict.fromkeys(MANY, b"x" * 100))
        calls = [one.send("load_many", MANY * 3, MAX_TID) for _ in range(20)]
        other.call("ping")
        assert len([each for each in one.heard if getattr(each, "message_id", 0) in calls]) < 20
        for call in calls:
            assert len(one.wait(call)[0]) == len(MANY)
