"""ClientStorage against a scripted server: fresh oids (lesson B25)."""

import threading
import time
from typing import Any

import pytest

from tests.client.peer import Background, Peer, in_threads, until
from tests.client.storages import Ear, Open, reconnected
from tests.client.test_open_transactions import A, C, Txn, commit
from zeo_client.storage import ClientStorage
from zeo_core.errors import ClientDisconnected
from zeo_core.ids import Tid, pack_id

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def storage(opened: Open) -> ClientStorage:
    return opened()


def test_oids_are_fetched_in_stocks_and_given_once(peer: Peer, storage: ClientStorage) -> None:
    oids = [storage.new_oid() for _ in range(250)]
    assert oids == [pack_id(number) for number in range(1001, 1251)]
    assert len(peer.link().calls("new_oids")) == 3


def test_oids_of_many_threads(storage: ClientStorage) -> None:
    taken = in_threads(*[lambda: [storage.new_oid() for _ in range(500)]] * 6)
    assert len({oid for oids in taken for oid in oids}) == 3000


def test_the_stock_is_dropped_with_the_connection(peer: Peer, storage: ClientStorage) -> None:
    assert storage.new_oid() == pack_id(1001)
    peer.last_oid = 5000  # the server was restarted, and counts from elsewhere
    reconnected(storage, peer)
    assert storage.new_oid() == pack_id(5001)


def test_a_stock_of_a_lost_connection_is_not_mixed_with_the_next(peer: Peer, storage: ClientStorage) -> None:
    peer.hold("new_oids")
    taking = Background(storage.new_oid)
    link, _ = peer.held("new_oids")
    link.cut()
    with pytest.raises(ClientDisconnected):
        taking.result()
    peer.release("new_oids")
    assert storage.new_oid() == pack_id(1001)


def test_nobody_waits_for_a_server_that_is_slow_to_give_oids(peer: Peer, opened: Open) -> None:
    """No lock is held during that call: whoever begins, commits or aborts goes on; and so does the sink."""
    peer.extensions = ("concurrent-transactions",)
    storage = opened()
    ear = Ear(storage)
    lock = threading.Lock()  # the application's; its sink wants it, too
    hear = ear.invalidate

    def hear_locked(tid: Tid, oids: Any) -> None:
        with lock:
            hear(tid, oids)

    ear.invalidate = hear_locked  # type: ignore[method-assign]
    staged = Txn()
    storage.tpc_begin(staged)
    peer.hold("new_oids")
    taking = [Background(storage.new_oid) for _ in range(3)]
    held = [peer.held("new_oids") for _ in taking]
    with lock:
        tid = peer.commit({C: b"1"})
        time.sleep(0.02)  # the reader stands before the lock now
        Background(storage.tpc_abort, staged).result()
        Background(storage.tpc_begin, Txn()).result()
    until(lambda: storage.last_tid() == tid)
    Background(commit, storage, {A: b"1"}).result()
    for number, (link, request) in enumerate(held):
        link.send(link.reply(request, [pack_id(number + 1)]))
    assert sorted(each.result() for each in taking) == [pack_id(1), pack_id(2), pack_id(3)]
