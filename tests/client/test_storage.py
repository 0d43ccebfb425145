"""ClientStorage against a scripted server: opening, reading, invalidations, the end."""

import contextlib
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import transaction

from tests.client.peer import Background, Link, Peer, in_threads, until
from tests.client.storages import Ear, Open, away
from zeo_client.db import DB
from zeo_client.storage import ClientStorage
from zeo_core.errors import ClientDisconnected, POSKeyError, ReadOnlyError
from zeo_core.ids import MAX_TID, ZERO_TID, pack_id, successor
from zeo_core.wire.session import Request

pytestmark = pytest.mark.usefixtures("nothing_left")

A, B, C = pack_id(1), pack_id(2), pack_id(3)


@pytest.fixture
def storage(opened: Open) -> ClientStorage:
    return opened()


# -- opening -----------------------------------------------------------------------------------------------------------


def test_an_unknown_storage_is_told_at_once(peer: Peer) -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match="unknown storage: 2"):
        ClientStorage(str(peer.address), "2", wait_timeout=30)
    assert time.monotonic() - began < 5


def test_a_server_that_does_not_come(tmp_path: Path) -> None:
    with pytest.raises(ClientDisconnected, match=r"nobody: no connection within 0\.1 s"):
        ClientStorage(str(tmp_path / "nobody"), wait_timeout=0.1)


def test_without_waiting_the_first_call_waits(tmp_path: Path) -> None:
    peer = Peer(tmp_path / "peer", listen=False)
    storage = ClientStorage(str(peer.address), wait=False, reconnect_timeout=10)
    assert not storage.is_connected()
    assert storage.last_tid() == ZERO_TID
    loading = Background(storage.load_before, A, MAX_TID)
    peer.commit({A: b"a"})
    peer.start()
    assert loading.result() == (b"a", peer.last_tid, None)
    storage.close()
    peer.stop()


def test_what_it_says_of_itself(peer: Peer, opened: Open) -> None:
    peer.commit({A: b"a", B: b"b"})
    storage = opened(client_label="test")
    assert storage.name() == f"{peer.address}/1"
    assert opened(name="mine").name() == "mine"
    assert len(storage) == 2
    assert storage.byte_size() == 0
    assert storage.is_connected()
    assert not storage.read_only()
    assert storage.server_status() == {"loads": 0}
    storage.ping()
    assert peer.links[0].calls("set_client_label")[0].args == ("test",)
    link = peer.links[0]
    link.send(link.push("info", {"length": 7, "size": 8}))
    until(lambda: (len(storage), storage.byte_size()) == (7, 8))


def test_read_only_is_asked_for(peer: Peer, opened: Open) -> None:
    storage = opened(read_only=True)
    assert peer.link().calls("register")[0].args == ("1", True)
    assert storage.read_only()
    txn = object()
    for write in (
        lambda: storage.tpc_begin(txn),
        lambda: storage.store(A, ZERO_TID, b"data", "", txn),
        lambda: storage.undo(b"an id", txn),
    ):
        with pytest.raises(ReadOnlyError):
            write()


# -- loading -----------------------------------------------------------------------------------------------------------


def test_a_load_is_answered_once_by_the_server_and_then_by_the_cache(peer: Peer, opened: Open) -> None:
    tid = peer.commit({A: b"a"})
    storage = opened()
    for _ in range(3):
        assert storage.load_before(A, successor(tid)) == (b"a", tid, None)
    assert len(peer.link().calls("loadBefore")) == 1
    for _ in range(2):  # a time that this client knows nothing of is the server's to answer for
        assert storage.load(A) == (b"a", tid)
    assert len(peer.link().calls("loadBefore")) == 3


def test_three_kinds_of_answers(peer: Peer, storage: ClientStorage) -> None:
    first = peer.commit({A: b"1"})
    second = peer.commit({A: b"2"})
    until(lambda: storage.last_tid() == second)
    assert storage.load_before(A, second) == (b"1", first, second)
    assert storage.load_before(A, first) is None
    with pytest.raises(POSKeyError) as caught:
        storage.load_before(B, MAX_TID)
    assert caught.value.oid == B
    assert storage.load_serial(A, first) == b"1"
    peer.revisions[A] = [(second, b"2")]  # a pack
    with pytest.raises(POSKeyError):
        storage.load_serial(A, first)
    peer.revisions[A] = [(first, b"1"), (second, b"2")]
    assert [entry.tid for entry in storage.revisions(A, 5)] == [second, first]


def test_many_threads_load_at_once(peer: Peer, storage: ClientStorage) -> None:
    oids = [pack_id(number) for number in range(200)]
    tid = peer.commit({oid: oid * 3 for oid in oids})
    until(lambda: storage.last_tid() == tid)

    def load() -> None:
        for oid in oids:
            assert storage.load_before(oid, successor(tid)) == (oid * 3, tid, None)

    in_threads(*[load] * 6)


# -- the order of replies and invalidations (lessons B1, B2, B4, B15) --------------------------------------------------


def test_a_reply_is_cached_before_the_invalidation_behind_it(peer: Peer, storage: ClientStorage) -> None:
    """B1: stored after the invalidation, the old revision would be current for ever."""
    first = peer.commit({A: b"old", B: b"x"})
    until(lambda: storage.last_tid() == first)

    def overtaken(link: Link, request: Request) -> None:
        reply = link.reply(request, peer.revision(*request.args))
        del peer.script["loadBefore"]
        second = peer.last_tid = successor(peer.last_tid)
        peer.revisions[A].append((second, b"new"))
        link.send(reply, link.invalidation(second, A))

    peer.script["loadBefore"] = overtaken
    assert storage.load_before(A, successor(first)) == (b"old", first, None)
    until(lambda: storage.last_tid() > first)
    second = storage.last_tid()
    assert storage.load_before(A, successor(first)) == (b"old", first, second)
    assert storage.load_before(A, successor(second)) == (b"new", second, None)


def test_an_invalidation_before_the_reply_that_it_belongs_to(peer: Peer, storage: ClientStorage) -> None:
    """A good server: it committed while the load was on its way, and answers with the new revision."""
    first = peer.commit({A: b"old"})
    until(lambda: storage.last_tid() == first)
    peer.hold("loadBefore")
    load = Background(storage.load_before, A, MAX_TID)
    link, request = peer.held("loadBefore")
    second = peer.commit({A: b"new"})
    link.send(link.reply(request, (b"new", second, None)))
    assert load.result() == (b"new", second, None)
    peer.release("loadBefore")
    assert storage.load_before(A, successor(second)) == (b"new", second, None)
    assert len(link.calls("loadBefore")) == 1, "it was not cached as current"


@pytest.mark.parametrize("passed", [1, 2, 3])
def test_a_load_that_invalidations_have_passed_is_not_cached_as_current(
    peer: Peer, storage: ClientStorage, passed: int
) -> None:
    """B2, the belt: a server that answers with a revision which it has already invalidated."""
    first = peer.commit({A: b"old", B: b"b"})
    until(lambda: storage.last_tid() == first)
    peer.hold("loadBefore")
    load = Background(storage.load_before, A, successor(first))
    other = Background(storage.load_before, B, successor(first))
    held = {request.args[0]: (link, request) for link, request in [peer.held("loadBefore") for _ in range(2)]}
    tids = [peer.commit({A: b"new"}) for _ in range(passed)]
    for oid, data in ((A, b"old"), (B, b"b")):
        link, request = held[oid]
        link.send(link.reply(request, (data, first, None)))
    assert load.result() == (b"old", first, tids[0])
    assert other.result() == (b"b", first, None)
    peer.release("loadBefore")
    assert storage.load_before(A, tids[0]) == (b"old", first, tids[0])
    assert storage.load_before(A, successor(tids[-1])) == (b"new", tids[-1], None)
    assert storage.load_before(B, successor(tids[-1])) == (b"b", first, None)


def test_a_load_passed_by_two_invalidations_of_which_it_shows_one(peer: Peer, storage: ClientStorage) -> None:
    first = peer.commit({A: b"1"})
    until(lambda: storage.last_tid() == first)
    peer.hold("loadBefore")
    load = Background(storage.load_before, A, MAX_TID)
    link, request = peer.held("loadBefore")
    second, third = peer.commit({A: b"2"}), peer.commit({A: b"3"})
    link.send(link.reply(request, (b"2", second, None)))
    assert load.result() == (b"2", second, third)
    peer.release("loadBefore")
    assert storage.load_before(A, successor(third)) == (b"3", third, None)
    assert storage.load_before(A, third) == (b"2", second, third)


def test_the_sink_hears_of_a_transaction_before_last_tid_moves(peer: Peer, storage: ClientStorage) -> None:
    """B4; and B8: also of transactions that changed nothing."""
    ear = Ear(storage)
    before = storage.last_tid()
    tids = [peer.commit(data) for data in ({A: b"1", B: b"1"}, {}, {A: b"2"})]
    until(lambda: storage.last_tid() == tids[-1])
    assert ear.heard == [(tids[0], (A, B)), (tids[1], ()), (tids[2], (A,))]
    assert ear.last_tids == [before, *tids[:-1]]


def test_whoever_reads_last_tid_has_heard_all_up_to_it(peer: Peer, storage: ClientStorage) -> None:
    ear = Ear(storage)
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            last = storage.last_tid()
            assert last == ZERO_TID or last in {tid for tid, _ in list(ear.heard)}

    lookers = [Background(look) for _ in range(3)]
    tids = [peer.commit({A: b"%d" % number}) for number in range(500)]
    until(lambda: storage.last_tid() == tids[-1])
    done.set()
    for looker in lookers:
        looker.result()
    assert [tid for tid, _ in ear.heard] == tids


@pytest.mark.parametrize("step", [0, 1])
def test_a_tid_that_does_not_grow_ends_the_connection(peer: Peer, storage: ClientStorage, step: int) -> None:
    """B15: what was announced out of order is not known to be whole; a verified connection makes it up."""
    ear = Ear(storage)
    tids = [peer.commit({A: b"%d" % number}) for number in range(2)]
    until(lambda: storage.last_tid() == tids[-1])
    link = peer.link()
    link.send(link.invalidation(tids[step], B))
    assert link.ended.wait(10)
    until(lambda: ear.resets == 1 and storage.is_connected())
    assert [tid for tid, _ in ear.heard] == tids


def test_a_sink_that_fails_ends_the_connection_and_is_told_to_start_afresh(peer: Peer, storage: ClientStorage) -> None:
    """B20: the invalidation is lost for this sink, so it hears that anything may have changed."""
    ear = Ear(storage)
    before = peer.commit({A: b"1"})
    until(lambda: storage.last_tid() == before)
    storage.load(A)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ear, "invalidate", lambda *_: 1 / 0)
        tid = peer.commit({A: b"2"})
        until(lambda: ear.resets)
    until(lambda: storage.is_connected() and storage.last_tid() == tid)
    assert storage.load_before(A, successor(tid)) == (b"2", tid, None)


# -- malformed replies -------------------------------------------------------------------------------------------------

CALLS: dict[str, Callable[[ClientStorage], object]] = {
    "loadBefore": lambda storage: storage.load_before(A, MAX_TID),
    "loadSerial": lambda storage: storage.load_serial(A, pack_id(5)),
    "history": lambda storage: storage.revisions(A, 1),
    "new_oids": lambda storage: storage.new_oid(),
    "server_status": lambda storage: storage.server_status(),
}


@pytest.mark.parametrize("method", CALLS)
def test_a_reply_of_wrong_shape_ends_the_connection_with_a_clear_error(
    peer: Peer, storage: ClientStorage, method: str
) -> None:
    peer.script[method] = lambda link, request: link.send(link.reply(request, 7))
    link = peer.link()
    with pytest.raises(Exception, match=f"the reply to {method} is "):
        CALLS[method](storage)
    assert link.ended.wait(10)
    peer.release(method)
    storage.ping()  # over the next connection


@pytest.mark.parametrize("changes", [{"length": "x"}, {"size": None}])
def test_a_push_of_wrong_shape_ends_the_connection(peer: Peer, storage: ClientStorage, changes: Any) -> None:
    link = peer.link()
    link.send(link.push("info", changes))
    assert link.ended.wait(10)
    until(lambda: len(peer.links) == 2 and storage.is_connected())
    storage.ping()
    assert len(storage) == 0


# -- losing and closing ------------------------------------------------------------------------------------------------


def test_a_load_under_way_fails_at_once_and_the_next_goes_through(peer: Peer, storage: ClientStorage) -> None:
    tid = peer.commit({A: b"1"})
    peer.hold("loadBefore")
    loads = [Background(storage.load_before, A, MAX_TID) for _ in range(3)]
    for _ in loads:
        peer.held("loadBefore")
    peer.link().cut()
    for load in loads:
        with pytest.raises(ClientDisconnected, match=str(peer.address)):
            load.result()
    peer.release("loadBefore")
    assert storage.load_before(A, MAX_TID) == (b"1", tid, None)


def test_what_is_cached_can_be_read_while_the_server_is_away(peer: Peer, opened: Open) -> None:
    tid = peer.commit({A: b"1"})
    storage = opened(reconnect_timeout=0.1)
    storage.load_before(A, successor(tid))
    away(peer, storage)
    until(lambda: not storage.is_connected())
    assert storage.load_before(A, successor(tid)) == (b"1", tid, None)
    with pytest.raises(ClientDisconnected):
        storage.load_before(B, successor(tid))


def test_close_while_threads_load_and_commit(peer: Peer, opened: Open) -> None:
    peer.commit({A: b"1"})
    for _ in range(10):
        storage = opened()

        def load(storage: ClientStorage = storage) -> None:
            with contextlib.suppress(ClientDisconnected):
                while True:
                    storage.load(A)
                    storage.new_oid()

        threads = [Background(load) for _ in range(4)]
        until(partial(peer.link().calls, "loadBefore"))
        in_threads(storage.close, storage.close)
        for thread in threads:
            thread.result()
        with pytest.raises(ClientDisconnected, match="closed by this client"):
            storage.load(A)


def test_a_sink_may_close_the_storage(peer: Peer, storage: ClientStorage) -> None:
    ear = Ear(storage)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ear, "invalidate", lambda *_: storage.close())
        peer.commit({A: b"1"})
        until(lambda: not storage.is_connected())


def test_a_transaction_may_begin_with_a_round_trip(peer: Peer, opened: Open) -> None:
    """So that it sees what was committed before, though nothing of it has arrived yet."""
    lazy, keen = opened(), opened(server_sync=True)
    for storage, pings in ((lazy, 0), (keen, 1)):
        db = DB(storage)
        conn = db.open(manager := transaction.TransactionManager())
        before = sum(len(link.calls("ping")) for link in peer.links)
        manager.begin()
        assert sum(len(link.calls("ping")) for link in peer.links) == before + pings
        manager.commit()
        conn.close()
        assert sum(len(link.calls("ping")) for link in peer.links) == before + pings
    keen.sync(force=False)
    assert sum(len(link.calls("ping")) for link in peer.links) == before + 1
