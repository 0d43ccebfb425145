"""Read-ahead over a scripted server: when it begins, what it asks for, and that it stores nothing stale."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tests.client.peer import Background, Peer, until
from tests.client.storages import Open, reconnected
from tests.records import message_node, node
from zeo_client.read_ahead import FIRST_WINDOW_BYTES
from zeo_client.storage import ClientStorage
from zeo_core.ids import Oid, Tid, pack_id, successor
from zeo_core.wire.methods import LOAD_MANY_MAX_OIDS

pytestmark = pytest.mark.usefixtures("nothing_left")

PARENT = pack_id(1)
MANY = [pack_id(number) for number in range(2, 1002)]
LEAF = node(filling=100)


@pytest.fixture
def storage(peer: Peer, opened: Open) -> ClientStorage:
    peer.extensions = ("bulk-loading",)
    peer.commit({PARENT: node(*MANY), **dict.fromkeys(MANY, LEAF)})
    return opened()


def load(storage: ClientStorage, peer: Peer, *oids: Oid) -> None:
    before = successor(peer.last_tid)
    for oid in oids:
        revision = storage.load_before(oid, before)
        assert revision is not None
        assert revision.data == peer.revisions[oid][-1][1]


def calls(peer: Peer, method: str = "load_many") -> list[Any]:
    return [request.args[0] for request in peer.link().calls(method)]


@pytest.mark.parametrize("record", [node, message_node])
def test_a_walk_through_a_list_takes_a_few_calls(
    peer: Peer, storage: ClientStorage, record: Callable[..., bytes]
) -> None:
    peer.commit({PARENT: record(*MANY)})
    until(lambda: storage.last_tid() == peer.last_tid)
    load(storage, peer, PARENT, *MANY)
    assert len(calls(peer, "loadBefore")) == 2  # the list, and its first object
    assert 1 < len(calls(peer)) < 10
    windows = [request.args[3] for request in peer.link().calls("load_many")]
    assert windows[:2] == [FIRST_WINDOW_BYTES, 2 * FIRST_WINDOW_BYTES]


@pytest.mark.parametrize("record", [node, message_node])
def test_a_walk_through_a_chain_of_buckets(peer: Peer, storage: ClientStorage, record: Callable[..., bytes]) -> None:
    chain = [*MANY, pack_id(5000)]
    peer.commit({oid: record(after, name="Bucket", filling=100) for oid, after in itertools.pairwise(chain)})
    until(lambda: storage.last_tid() == peer.last_tid)
    load(storage, peer, *MANY)
    assert len(calls(peer, "loadBefore")) == 2
    assert len(calls(peer)) < 10


def test_objects_that_are_loaded_in_no_order_are_no_walk(peer: Peer, storage: ClientStorage) -> None:
    load(storage, peer, PARENT, *reversed(MANY[:100]))
    assert calls(peer) == []


def test_lists_that_are_longer_than_a_call_may_name(peer: Peer, opened: Open) -> None:
    peer.extensions = ("bulk-loading",)
    many = [pack_id(number) for number in range(2, 4002)]
    peer.commit({PARENT: node(*many), **dict.fromkeys(many, node())})
    storage = opened()
    load(storage, peer, PARENT, *many)
    assert max(map(len, calls(peer))) <= LOAD_MANY_MAX_OIDS
    assert len(calls(peer, "loadBefore")) + len(calls(peer)) < 30


def test_what_is_on_its_way_is_waited_for_and_not_asked_for_twice(peer: Peer, storage: ClientStorage) -> None:
    load(storage, peer, PARENT, MANY[0])
    peer.hold("load_many")
    walking = Background(load, storage, peer, *MANY[1:50])
    link, request = peer.held("load_many")
    until(lambda: MANY[5] in storage._read_ahead._awaited)  # noted just after it is sent for
    also = Background(load, storage, peer, MANY[5])
    load(storage, peer, PARENT)
    assert not walking.done()
    assert not also.done()
    peer.release("load_many")
    peer.answer(link, request)
    walking.result()
    also.result()
    assert len(calls(peer, "loadBefore")) == 2


def test_an_invalidation_that_passes_is_heeded(peer: Peer, storage: ClientStorage) -> None:
    """Invariant 6: what was current when it was read is not when it arrives behind the invalidation."""
    load(storage, peer, PARENT, MANY[0])
    first = peer.last_tid
    peer.hold("load_many")
    walking = Background(storage.load_before, MANY[1], successor(first))
    link, request = peer.held("load_many")
    second = successor(first)
    found = [(oid, LEAF, first, None) for oid in MANY[1:4]]
    link.send(link.invalidation(second, MANY[1], MANY[2]), link.reply(request, (found, [])))
    assert walking.result() == (LEAF, first, second)
    for oid, end in ((MANY[2], second), (MANY[3], None)):
        assert storage.load_before(oid, successor(first)) == (LEAF, first, end)
    peer.release("load_many")
    peer.revisions[MANY[2]].append((second, b"new"))
    assert storage.load_before(MANY[2], successor(second)) == (b"new", second, None)


def test_what_a_walk_does_not_bring_is_loaded_plainly(peer: Peer, storage: ClientStorage) -> None:
    load(storage, peer, PARENT, MANY[0])
    peer.script["load_many"] = lambda link, request: link.send(link.reply(request, ((), ())))
    load(storage, peer, MANY[1])
    assert calls(peer, "loadBefore")[-1] == MANY[1]
    del peer.revisions[MANY[2]]
    peer.script["load_many"] = lambda link, request: link.send(link.error(request, ValueError("no")))
    load(storage, peer, *MANY[3:20])


def test_a_walk_goes_on_over_a_new_connection(peer: Peer, storage: ClientStorage) -> None:
    load(storage, peer, PARENT, *MANY[:10])
    reconnected(storage, peer)
    load(storage, peer, *MANY[10:])


def test_a_connection_that_breaks_under_a_walk(peer: Peer, storage: ClientStorage) -> None:
    load(storage, peer, PARENT, MANY[0])
    peer.hold("load_many")
    walking = Background(storage.load_before, MANY[1], successor(peer.last_tid))
    link, _ = peer.held("load_many")
    peer.release("load_many")
    link.cut()
    revision = walking.result()
    assert revision.data == LEAF


def test_servers_that_do_not_know_it_are_not_asked(peer: Peer, opened: Open) -> None:
    peer.commit({PARENT: node(*MANY), **dict.fromkeys(MANY, LEAF)})
    load(opened(), peer, PARENT, *MANY[:20])
    assert len(calls(peer, "loadBefore")) == 21


def test_a_cache_that_could_not_hold_a_window_is_not_read_ahead_for(peer: Peer, opened: Open) -> None:
    peer.extensions = ("bulk-loading",)
    peer.commit({PARENT: node(*MANY), **dict.fromkeys(MANY, LEAF)})
    load(opened(cache_size=100_000), peer, PARENT, *MANY[:20])
    assert calls(peer) == []


def test_records_that_cannot_be_read_are_no_reason_to_fail(peer: Peer, storage: ClientStorage) -> None:
    odd = {pack_id(9000): b"C\x08" + MANY[0] + b"{x", pack_id(9001): b"{x C\x08" + MANY[0], PARENT: node(*MANY) + b"x"}
    odd[pack_id(9002)] = node(*MANY[:3])[:-1]  # no end
    peer.commit(odd)
    until(lambda: storage.last_tid() == peer.last_tid)
    load(storage, peer, *odd, *MANY[:50])


def test_threads_walk_together(peer: Peer, storage: ClientStorage) -> None:
    walkers = [Background(load, storage, peer, PARENT, *MANY) for _ in range(4)]
    for walker in walkers:
        walker.result()


def test_the_tid_asked_for_is_that_of_the_walk(peer: Peer, storage: ClientStorage) -> None:
    before: Tid = successor(peer.last_tid)
    peer.commit(dict.fromkeys(MANY, b"new"))
    until(lambda: storage.last_tid() == peer.last_tid)
    for oid in [PARENT, *MANY]:
        revision = storage.load_before(oid, before)
        assert revision is not None
        assert revision.data != b"new"
    assert len(calls(peer, "loadBefore")) == 2
