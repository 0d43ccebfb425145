"""Loading many objects together, over a scripted server."""

import pytest

from tests.client.objects import Node, Session
from tests.client.peer import Background, Peer, until
from tests.client.storages import Open, away
from tests.records import node
from zeo_client.db import DB
from zeo_client.prefetch import BULK_WINDOW, WINDOW, oids_of
from zeo_core.errors import ClientDisconnected
from zeo_core.ids import MAX_TID, pack_id, successor
from zeo_server.storages.mapping import MappingStorage

pytestmark = pytest.mark.usefixtures("nothing_left")

MANY = [pack_id(number) for number in range(1, 3 * WINDOW)]


def test_what_was_fetched_is_loaded_from_the_cache(peer: Peer, opened: Open) -> None:
    tid = peer.commit({oid: b"data of " + oid for oid in MANY})
    storage = opened()
    before = successor(tid)
    assert storage.load_before(MANY[0], before)
    storage.prefetch(iter([*MANY, pack_id(99_999)]), before)
    link = peer.link()
    assert len(link.calls("loadBefore")) == len(MANY) + 1
    for oid in MANY:
        assert storage.load_before(oid, before) == (b"data of " + oid, tid, None)
    storage.prefetch(MANY, before)
    assert len(link.calls("loadBefore")) == len(MANY) + 1


def test_the_requests_go_out_before_the_first_is_answered(peer: Peer, opened: Open) -> None:
    peer.commit(dict.fromkeys(MANY[:10], b"data"))
    storage = opened()
    peer.hold("loadBefore")
    fetching = Background(storage.prefetch, MANY[:10], MAX_TID)
    held = [peer.held("loadBefore") for _ in range(10)]
    assert not fetching.done()
    for link, request in reversed(held):
        link.send(link.reply(request, (b"data", peer.last_tid, None)))
    fetching.result()
    assert storage.cache_stats()["revisions"] == 10


def test_an_invalidation_that_passes_is_heeded(peer: Peer, opened: Open) -> None:
    """As for every load (lesson B2): what is answered after an invalidation is not current any more."""
    first = peer.commit({MANY[0]: b"old"})
    storage = opened()
    peer.hold("loadBefore")
    fetching = Background(storage.prefetch, MANY[:1], MAX_TID)
    link, request = peer.held("loadBefore")
    second = successor(first)
    link.send(link.invalidation(second, MANY[0]), link.reply(request, (b"old", first, None)))
    fetching.result()
    revision = storage.load_before(MANY[0], second)
    assert revision is not None
    assert revision.end_tid == second


def test_what_cannot_be_fetched_is_passed_over(peer: Peer, opened: Open) -> None:
    storage = opened()
    storage.prefetch([b"no oid", pack_id(7)], MAX_TID)
    peer.hold("loadBefore")
    fetching = Background(storage.prefetch, MANY, MAX_TID)
    link, _ = peer.held("loadBefore")
    link.cut()
    fetching.result()


def test_without_a_server_there_is_nothing_to_fetch_from(peer: Peer, opened: Open) -> None:
    storage = opened(reconnect_timeout=0.1)
    away(peer, storage)
    with pytest.raises(ClientDisconnected):
        storage.prefetch(MANY, MAX_TID)


def test_a_connection_fetches_through_its_storage(peer: Peer, opened: Open) -> None:
    db = DB(opened())
    ann = Session(db)
    ann.root["nodes"] = [Node(x=number) for number in range(50)]
    ann.commit()
    other = DB(opened())
    bob = Session(other)
    nodes = until(lambda: bob.conn.sync() or bob.root.get("nodes"))  # type: ignore[func-returns-value]
    bob.conn.prefetch(nodes)
    link = peer.links[-1]
    count = len(link.calls("loadBefore"))
    assert sum(node.x for node in nodes) == 1225
    assert len(link.calls("loadBefore")) == count
    for session in (ann, bob):
        session.manager.abort()
        session.conn.close()


def test_a_server_that_takes_many_oids_in_a_call_is_asked_so(peer: Peer, opened: Open) -> None:
    peer.extensions = ("bulk-loading",)
    tid = peer.commit({oid: b"data of " + oid for oid in MANY})
    storage = opened()
    storage.prefetch([*MANY, b"no oid", pack_id(99_999)], successor(tid))
    link = peer.link()
    assert len(link.calls("load_many")) == len(MANY) // BULK_WINDOW + 1
    for oid in MANY:
        assert storage.load_before(oid, successor(tid)) == (b"data of " + oid, tid, None)
    assert link.calls("loadBefore") == []


def test_what_had_no_room_is_asked_for_again(peer: Peer, opened: Open) -> None:
    peer.extensions = ("bulk-loading",)
    tid = peer.commit(dict.fromkeys(MANY, b"x" * 10_000))
    storage = opened()
    storage.prefetch(MANY, successor(tid))
    assert storage.cache_stats()["revisions"] == len(MANY)
    assert len(peer.link().calls("load_many")) > 5


def test_what_objects_refer_to_up_to_a_depth_and_a_size(peer: Peer, opened: Open) -> None:
    peer.extensions = ("bulk-loading",)
    a, b, c, d = MANY[:4]
    tid = peer.commit({a: node(b), b: node(c), c: node(d), d: node()})
    storage = opened()
    storage.prefetch([a], successor(tid), 2)
    for oid, expected in ((a, True), (b, True), (c, True), (d, False)):
        assert (storage.load_before(oid, successor(tid)) is not None) is True
        assert (oid not in [request.args[0] for request in peer.link().calls("loadBefore")]) is expected
    other = opened()
    other.prefetch([a, a], successor(tid), 2, len(node(b)))
    assert other.cache_stats()["revisions"] == 1
    peer.link().cut()
    other.prefetch([a], successor(tid), 1)


def test_a_prefetch_of_many_oids_passes_over_what_goes_wrong(peer: Peer, opened: Open) -> None:
    peer.extensions = ("bulk-loading",)
    storage = opened()
    peer.hold("load_many")
    fetching = Background(storage.prefetch, MANY, MAX_TID)
    link, _ = peer.held("load_many")
    link.cut()
    fetching.result()


def test_the_oids_of_whatever_is_given() -> None:
    db = DB(MappingStorage())
    ann = Session(db)
    ann.conn.add(node := Node())
    oid = node._p_oid
    assert list(oids_of([oid, node, [oid, [node]], Node(), ()])) == [oid] * 4
    ann.manager.abort()
    db.close()
