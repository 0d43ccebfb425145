"""ClientStorage against a scripted server: what it does to trust a new connection."""

from typing import Any

import pytest

from tests.client.peer import Background, Link, Peer, until
from tests.client.storages import Ear, Open, away, reconnected
from zeo_client.storage import ClientStorage
from zeo_core.errors import ReadConflictError
from zeo_core.ids import MAX_TID, pack_id, successor
from zeo_core.wire.session import Request

pytestmark = pytest.mark.usefixtures("nothing_left")

A, B, C = pack_id(1), pack_id(2), pack_id(3)


@pytest.fixture
def storage(opened: Open) -> ClientStorage:
    return opened()


# -- a new connection (lessons B9, B10, B11, B12) ----------------------------------------------------------------------


def test_what_changed_meanwhile_is_forgotten_and_the_rest_kept(peer: Peer, storage: ClientStorage) -> None:
    ear = Ear(storage)
    first = peer.commit({A: b"1", B: b"1"})
    until(lambda: storage.last_tid() == first)
    for oid in (A, B):
        storage.load_before(oid, successor(first))
    away(peer, storage)
    second, third = peer.commit({A: b"2"}), peer.commit({A: b"3"})
    peer.start()
    until(storage.is_connected)
    assert (storage.last_tid(), ear.resets) == (third, 1)
    # A is not known to be "until third" (B11): the server is asked again
    assert storage.load_before(A, third) == (b"2", second, third)
    assert storage.load_before(A, successor(third)) == (b"3", third, None)
    assert storage.load_before(B, successor(third)) == (b"1", first, None)
    assert [request.args[0] for request in peer.link().calls("loadBefore")] == [A, A]


def test_a_cache_that_the_server_cannot_bring_up_is_dropped(
    peer: Peer, storage: ClientStorage, caplog: pytest.LogCaptureFixture
) -> None:
    first = peer.commit({A: b"1"})
    until(lambda: storage.last_tid() == first)
    storage.load_before(A, successor(first))
    away(peer, storage)
    second = peer.commit({B: b"2"})
    del peer.log[:1]
    peer.start()
    until(storage.is_connected)
    assert storage.load_before(A, successor(second)) == (b"1", first, None)
    assert len(peer.link().calls("loadBefore")) == 1
    assert "is dropped" in caplog.text


@pytest.mark.parametrize("answer", ["older", "nothing"])
def test_an_answer_about_the_wrong_time_counts_as_none(peer: Peer, storage: ClientStorage, answer: str) -> None:
    first = peer.commit({A: b"1"})
    until(lambda: storage.last_tid() == first)
    storage.load_before(A, successor(first))
    told = {"older": (first, ()), "nothing": (None, ())}[answer]
    peer.script["getInvalidations"] = lambda link, request: link.send(link.reply(request, told))
    away(peer, storage)
    second = peer.commit({A: b"2"})
    peer.start()
    until(storage.is_connected)
    assert storage.last_tid() == second
    assert storage.load_before(A, successor(second)) == (b"2", second, None)


def test_a_server_that_is_older_than_the_cache(peer: Peer, storage: ClientStorage) -> None:
    """B12: restored from a backup, it never had what the cache holds."""
    ear = Ear(storage)
    first = peer.commit({A: b"1"})
    second = peer.commit({A: b"lost with the disk"})
    until(lambda: storage.last_tid() == second)
    storage.load_before(A, successor(second))
    away(peer, storage)
    peer.revisions[A].pop()
    peer.log.pop()
    peer.last_tid = first
    peer.start()
    until(storage.is_connected)
    assert (storage.last_tid(), ear.resets) == (first, 1)
    assert storage.load_before(A, successor(first)) == (b"1", first, None)
    third = peer.commit({B: b"other"})
    until(lambda: storage.last_tid() == third)
    assert storage.load_before(A, successor(third)) == (b"1", first, None)


def test_a_server_with_another_history_and_a_later_tid(peer: Peer, storage: ClientStorage) -> None:
    peer.commit({A: b"1"})
    second = peer.commit({A: b"lost with the disk"})
    until(lambda: storage.last_tid() == second)
    storage.load_before(A, successor(second))
    away(peer, storage)
    peer.revisions[A].pop()
    peer.log.pop()
    third = peer.commit({B: b"other"})
    peer.start()
    until(storage.is_connected)
    found = storage.load_before(A, successor(third))
    assert found is not None
    assert found.data == b"1"


def test_a_reconnection_without_any_change_is_told_too(peer: Peer, storage: ClientStorage) -> None:
    """B9."""
    ear = Ear(storage)
    tid = peer.commit({A: b"1"})
    until(lambda: storage.last_tid() == tid)
    storage.load_before(A, successor(tid))
    reconnected(storage, peer)
    assert ear.resets == 1
    assert storage.load_before(A, successor(tid)) == (b"1", tid, None)
    assert peer.link().calls("loadBefore") == []


def test_what_is_pushed_during_the_verification_waits_and_is_applied_once(peer: Peer, storage: ClientStorage) -> None:
    """B10: what the verification covers is dropped, what came later is applied after it, in order."""
    ear = Ear(storage)
    first = peer.commit({A: b"1"})
    until(lambda: storage.last_tid() == first)
    away(peer, storage)
    peer.commit({A: b"2"})
    peer.hold("getInvalidations")
    peer.start()
    link, request = peer.held("getInvalidations")
    assert storage.last_tid() == first
    waiting = Background(storage.load_before, A, MAX_TID)
    covered = peer.commit({B: b"3"})
    link.send(link.reply(request, (covered, (A, B))))
    later = [peer.commit({A: b"4"}), peer.commit({C: b"5"})]
    until(lambda: storage.last_tid() == later[-1])
    assert ear.heard == [(first, (A,)), (later[0], (A,)), (later[1], (C,))]
    assert waiting.result().data in (b"2", b"4")  # whichever it was asked for; it was not served before
    assert storage.load_before(A, successor(later[1])) == (b"4", later[0], None)


def test_pushes_between_register_and_the_end_of_verification_in_one_chunk(peer: Peer, opened: Open) -> None:
    first = peer.commit({A: b"1"})

    def register_and_push(link: Link, request: Request) -> None:
        link.session.registered()
        second = peer.last_tid = successor(first)
        link.send(link.reply(request, first), link.invalidation(second, A), link.invalidation(successor(second), B))

    peer.script["register"] = register_and_push
    storage = opened()
    assert storage.last_tid() == successor(successor(first))


@pytest.mark.parametrize("method", ["register", "get_info", "getInvalidations"])
@pytest.mark.parametrize("answer", [(), 5, b"", {"length": "x"}, (1, 2)])
def test_a_verification_of_wrong_shape_is_tried_again(
    peer: Peer, storage: ClientStorage, method: str, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first = peer.commit({A: b"1"})
    until(lambda: storage.last_tid() == first)

    def wrong(link: Link, request: Request) -> None:
        if method == "register":
            link.session.registered()
        link.send(link.reply(request, answer))
        del peer.script[method]

    away(peer, storage)
    number = len(peer.links)
    second = peer.commit({A: b"2"})
    peer.script[method] = wrong
    peer.start()
    until(storage.is_connected)
    assert len(peer.links) >= number + 2
    assert storage.last_tid() == second
    assert f"the reply to {method} is " in caplog.text


def gone_back(peer: Peer, storage: ClientStorage) -> tuple[bytes, bytes]:
    """Have a server come back without its last transaction; return the last one it has, and the lost one."""
    first = peer.commit({A: b"1", B: b"1"})
    lost = peer.commit({A: b"2", B: b"2"})
    until(lambda: storage.last_tid() == lost)
    away(peer, storage)
    for revisions in peer.revisions.values():
        revisions.pop()
    peer.log.pop()
    peer.last_tid = first
    peer.start()
    until(storage.is_connected)
    return first, lost


def test_a_transaction_that_read_what_is_lost_reads_nothing_else_beside_it(peer: Peer, storage: ClientStorage) -> None:
    """Invariant 5: B as the server has it now was never together with A as it was read before."""
    first, lost = gone_back(peer, storage)
    with pytest.raises(ReadConflictError, match="gone back behind this state"):
        storage.load_before(B, successor(lost))
    assert storage.load_before(B, successor(first)) == (b"1", first, None)
    peer.last_tid = successor(lost)
    later = peer.commit({A: b"3"})
    until(lambda: storage.last_tid() == later)
    with pytest.raises(ReadConflictError):
        storage.load_before(B, successor(lost))
    assert storage.load_before(B, successor(later)) == (b"1", first, None)
    assert storage.load_before(A, MAX_TID) == (b"3", later, None)


def test_a_server_that_has_gone_back_may_use_the_tid_again(peer: Peer, storage: ClientStorage) -> None:
    first, lost = gone_back(peer, storage)
    assert peer.commit({A: b"other"}) == lost
    until(lambda: storage.last_tid() == lost)
    assert storage.load_before(B, successor(lost)) == (b"1", first, None)
