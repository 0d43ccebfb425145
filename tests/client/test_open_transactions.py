"""ClientStorage against a scripted server: two-phase commits, and what becomes of them."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from transaction.interfaces import TransientError

from tests.client.peer import Background, Link, Peer, in_threads, until
from tests.client.storages import Ear, Open, away, reconnected
from zeo_client.storage import ClientStorage
from zeo_core.errors import (
    ClientDisconnected,
    CommitInDoubtError,
    ConflictError,
    NotCommittedError,
    ReadConflictError,
    ServerError,
    StorageError,
    StorageTransactionError,
)
from zeo_core.ids import MAX_TID, ZERO_TID, Oid, Tid, pack_id, successor
from zeo_core.wire.session import Request

pytestmark = pytest.mark.usefixtures("nothing_left")

A, B, C = pack_id(1), pack_id(2), pack_id(3)


@pytest.fixture
def storage(opened: Open) -> ClientStorage:
    return opened()


@dataclass(eq=False)
class Txn:
    user: Any = ""
    description: Any = ""
    extension: Any = field(default_factory=dict)


def voted(storage: ClientStorage, data: dict[Oid, bytes], serial: Tid = ZERO_TID) -> Txn:
    txn = Txn()
    storage.tpc_begin(txn)
    for oid, record in data.items():
        storage.store(oid, serial, record, "", txn)
    storage.tpc_vote(txn)
    return txn


def commit(storage: ClientStorage, data: dict[Oid, bytes], serial: Tid = ZERO_TID) -> Tid:
    return storage.tpc_finish(voted(storage, data, serial))


# -- the usual course --------------------------------------------------------------------------------------------------


def test_everything_goes_to_the_server_in_one_burst_at_the_vote(peer: Peer, storage: ClientStorage) -> None:
    link = peer.link()
    txn = Txn("ann", b"why", {"k": 1})
    storage.tpc_begin(txn)
    storage.store(A, ZERO_TID, b"a", "", txn)
    storage.check_current(B, ZERO_TID, txn)
    storage.ping()
    assert [request.method for request in link.requests[2:]] == ["ping"]
    assert storage.tpc_vote(txn) == []
    tid = storage.tpc_finish(txn)
    assert [request.method for request in link.requests[3:]] == [
        "tpc_begin",
        "storea",
        "checkCurrentSerialInTransaction",
        "vote",
        "tpc_finish",
    ]
    assert link.calls("tpc_begin")[0].args[1:] == (b"ann", b"why", {"k": 1}, None, " ")
    assert (storage.last_tid(), peer.last_tid) == (tid, tid)


def test_ones_own_data_are_in_the_cache_and_no_one_is_told_twice(peer: Peer, storage: ClientStorage) -> None:
    ear = Ear(storage)
    first = commit(storage, {A: b"1", B: b"1"})
    second = commit(storage, {A: b"2"}, first)
    assert storage.load_before(A, successor(second)) == (b"2", second, None)
    assert storage.load_before(A, second) == (b"1", first, second)
    assert storage.load_before(B, successor(second)) == (b"1", first, None)
    assert peer.link().calls("loadBefore") == []
    assert ear.heard == []


def test_data_that_the_server_resolved_are_not_cached_as_stored(peer: Peer, storage: ClientStorage) -> None:
    """B23: what was committed is not what this client sent."""
    first = commit(storage, {A: b"1", B: b"1"})

    def resolve(link: Link, request: Request) -> None:
        for staged in peer._staged.values():
            staged[A] = staged[A][0], b"resolved"
        link.send(link.reply(request, [A]))

    peer.script["vote"] = resolve
    txn = Txn()
    storage.tpc_begin(txn)
    for oid in (A, B):
        storage.store(oid, first, b"mine", "", txn)
    assert storage.tpc_vote(txn) == [A]
    tid = storage.tpc_finish(txn)
    assert storage.load_before(A, successor(tid)) == (b"resolved", tid, None)
    assert storage.load_before(B, successor(tid)) == (b"mine", tid, None)


def test_announce_runs_when_loads_see_it_and_last_tid_does_not_yet(peer: Peer, storage: ClientStorage) -> None:
    """B4 for one's own commits."""
    first = commit(storage, {A: b"1"})
    seen: list[object] = []

    def announce(tid: Tid) -> None:
        seen.append((tid, storage.load_before(A, successor(tid)), storage.last_tid()))

    second = storage.tpc_finish(voted(storage, {A: b"2"}, first), announce)
    assert seen == [(second, (b"2", second, None), first)]


def test_own_and_foreign_transactions_are_heard_of_in_one_order(peer: Peer, opened: Open) -> None:
    """B15: tids only grow, whoever committed, whichever thread reads."""
    order: list[Tid] = []
    storage, other = opened(), opened()
    ear = Ear(storage)
    ear.invalidate = lambda tid, oids: order.append(tid)  # type: ignore[method-assign]

    def work(client: ClientStorage, number: int, announce: Callable[[Tid], None] | None) -> Callable[[], None]:
        def run() -> None:
            serial = ZERO_TID
            for count in range(100):
                txn = voted(client, {pack_id(number): b"%d" % count}, serial)
                serial = client.tpc_finish(txn, announce)

        return run

    in_threads(*[work(storage, n, order.append) for n in range(1, 4)], *[work(other, n, None) for n in range(4, 6)])
    until(lambda: len(order) == 500)
    assert order == sorted(set(order))
    assert storage.last_tid() == order[-1]


# -- conflicts and refusals --------------------------------------------------------------------------------------------


def test_a_conflict_of_the_server_leaves_nothing(peer: Peer, storage: ClientStorage) -> None:
    first = commit(storage, {A: b"1"})
    txn = Txn()
    storage.tpc_begin(txn)
    storage.store(A, ZERO_TID, b"2", "", txn)
    with pytest.raises(ConflictError) as caught:
        storage.tpc_vote(txn)
    assert (caught.value.oid, caught.value.serials) == (A, (first, ZERO_TID))
    with pytest.raises(StorageTransactionError):
        storage.tpc_finish(txn)
    storage.tpc_abort(txn)
    until(lambda: peer.link().calls("tpc_abort"))
    assert storage.load_before(A, successor(first)) == (b"1", first, None)
    assert commit(storage, {A: b"2"}, first) > first


def test_a_conflict_that_the_client_is_asked_to_resolve_is_a_conflict(peer: Peer, storage: ClientStorage) -> None:
    told = {"oid": A, "serials": (pack_id(9), pack_id(8)), "data": b"data"}
    peer.script["vote"] = lambda link, request: link.send(link.reply(request, [B, told]))
    with pytest.raises(ConflictError) as caught:
        voted(storage, {A: b"2"})
    assert (caught.value.oid, caught.value.serials) == (A, (pack_id(9), pack_id(8)))


@pytest.mark.parametrize("error", [ReadConflictError(oid=A), StorageError("no room"), OSError("other")])
def test_an_error_at_the_vote_is_raised_and_can_be_aborted(
    peer: Peer, storage: ClientStorage, error: Exception
) -> None:
    peer.script["vote"] = lambda link, request: link.send(link.error(request, error))
    txn = Txn()
    storage.tpc_begin(txn)
    with pytest.raises(ServerError if isinstance(error, OSError) else type(error)):
        storage.tpc_vote(txn)
    storage.tpc_abort(txn)
    peer.release("vote")
    commit(storage, {A: b"1"})


def test_phases_out_of_order(storage: ClientStorage) -> None:
    txn, other = Txn(), Txn()
    storage.tpc_begin(txn)
    calls: list[Callable[[], object]] = [
        lambda: storage.tpc_begin(txn),
        lambda: storage.store(A, ZERO_TID, b"x", "", other),
        lambda: storage.check_current(A, ZERO_TID, other),
        lambda: storage.tpc_vote(other),
        lambda: storage.tpc_finish(other),
        lambda: storage.tpc_finish(txn),
    ]
    for call in calls:
        with pytest.raises(StorageTransactionError):
            call()
    storage.tpc_abort(other)
    storage.tpc_vote(txn)
    calls = [
        lambda: storage.store(A, ZERO_TID, b"x", "", txn),
        lambda: storage.check_current(A, ZERO_TID, txn),
        lambda: storage.tpc_vote(txn),
    ]
    for call in calls:
        with pytest.raises(StorageTransactionError):
            call()
    tid = storage.tpc_finish(txn)
    with pytest.raises(StorageTransactionError):
        storage.tpc_finish(txn)
    assert storage.last_tid() == tid


def test_versions_are_not_supported(storage: ClientStorage) -> None:
    txn = Txn()
    storage.tpc_begin(txn)
    with pytest.raises(StorageError, match="version"):
        storage.store(A, ZERO_TID, b"x", "v", txn)


def test_a_transaction_that_was_not_sent_is_aborted_without_a_word(peer: Peer, storage: ClientStorage) -> None:
    txn = Txn()
    storage.tpc_begin(txn)
    storage.store(A, ZERO_TID, b"x", "", txn)
    storage.tpc_abort(txn)
    storage.ping()
    assert [request.method for request in peer.link().requests] == ["register", "get_info", "ping"]


def test_metadata_that_the_wire_cannot_carry_do_not_cost_the_connection(peer: Peer, storage: ClientStorage) -> None:
    """B42."""
    for txn in (Txn(extension={1: "x"}), Txn(extension={"x": object()}), Txn(user="x" * 70_000)):
        with pytest.raises((TypeError, StorageError)):
            storage.tpc_begin(txn)
        storage.tpc_abort(txn)
    commit(storage, {A: b"1"})
    assert len(peer.links) == 1


# -- lost connections (lesson B14) -------------------------------------------------------------------------------------


def test_a_lost_finish_reply_is_a_commit_in_doubt(peer: Peer, storage: ClientStorage) -> None:
    first = commit(storage, {A: b"1"})

    def finish_and_die(link: Link, request: Request) -> None:
        peer._tpc_finish(link, *request.args)
        link.cut()

    peer.script["tpc_finish"] = finish_and_die
    txn = voted(storage, {A: b"2"}, first)
    with pytest.raises(CommitInDoubtError) as caught:
        storage.tpc_finish(txn)
    assert str(peer.address) in str(caught.value)
    storage.tpc_abort(txn)
    peer.release("tpc_finish")
    # the own data did not enter the cache, and the old ones left it
    assert storage.load_before(A, MAX_TID) == (b"2", peer.last_tid, None)
    until(lambda: storage.last_tid() == peer.last_tid)
    assert storage.load_before(A, peer.last_tid) == (b"1", first, peer.last_tid)


def test_a_finish_that_never_reached_the_log_is_in_doubt_too(peer: Peer, storage: ClientStorage) -> None:
    first = commit(storage, {A: b"1"})
    peer.script["tpc_finish"] = lambda link, _request: link.cut()
    with pytest.raises(CommitInDoubtError):
        commit(storage, {A: b"2"}, first)
    assert storage.load_before(A, MAX_TID) == (b"1", first, None)
    assert storage.last_tid() == first


@pytest.fixture
def telling(peer: Peer, opened: Open) -> ClientStorage:
    """A storage on a server that tells what became of transactions."""
    peer.extensions = ("commit-outcome",)
    return opened()


def finish_and_die(link: Link, request: Request) -> None:
    link.peer._tpc_finish(link, *request.args)
    link.cut()


def test_a_server_that_can_tell_is_asked_what_became_of_a_commit(peer: Peer, telling: ClientStorage) -> None:
    first = commit(telling, {A: b"1"})
    peer.script["tpc_finish"] = finish_and_die
    announced: list[Tid] = []
    tid = telling.tpc_finish(voted(telling, {A: b"2"}, first), announced.append)
    assert tid == peer.last_tid == telling.last_tid()
    assert announced == [tid]
    assert telling.load_before(A, successor(tid)) == (b"2", tid, None)
    peer.release("tpc_finish")
    assert commit(telling, {A: b"3"}, tid) > tid
    marker = peer.links[0].calls("tpc_begin")[1].args[6]
    [asked] = peer.links[1].calls("transaction_outcome")
    assert asked.args == (marker, first)


def test_a_commit_that_did_not_come_to_pass_may_be_retried(peer: Peer, telling: ClientStorage) -> None:
    first = commit(telling, {A: b"1"})
    peer.script["tpc_finish"] = lambda link, _request: link.cut()
    txn = voted(telling, {A: b"2"}, first)
    with pytest.raises(NotCommittedError, match="not committed") as caught:
        telling.tpc_finish(txn)
    assert isinstance(caught.value, TransientError)
    telling.tpc_abort(txn)
    peer.release("tpc_finish")
    assert telling.load_before(A, successor(first)) == (b"1", first, None)
    commit(telling, {A: b"2"}, first)


def test_it_is_asked_again_when_that_connection_breaks_too(peer: Peer, telling: ClientStorage) -> None:
    peer.script["tpc_finish"] = finish_and_die
    cuts = iter(range(2))

    def tell(link: Link, request: Request) -> None:
        if next(cuts, None) is None:
            peer.answer(link, request)
        else:
            link.cut()

    peer.script["transaction_outcome"] = tell
    assert commit(telling, {A: b"1"}) == peer.last_tid
    assert len(peer.links) == 4


def test_what_the_server_cannot_tell_stays_in_doubt(peer: Peer, telling: ClientStorage) -> None:
    peer.script["tpc_finish"] = finish_and_die
    refusal = StorageError("the log has changed")
    peer.script["transaction_outcome"] = lambda link, request: link.send(link.error(request, refusal))
    with pytest.raises(CommitInDoubtError, match="the log has changed"):
        commit(telling, {A: b"1"})
    peer.extensions = ()  # it comes back as another server
    with pytest.raises(CommitInDoubtError):
        commit(telling, {B: b"1"})


def test_a_server_that_stays_away_leaves_the_commit_in_doubt(peer: Peer, opened: Open) -> None:
    peer.extensions = ("commit-outcome",)
    storage = opened(reconnect_timeout=0.1)
    txn = voted(storage, {A: b"1"})
    peer.hold("tpc_finish")
    finishing = Background(storage.tpc_finish, txn)
    peer.held("tpc_finish")
    peer.stop()
    with pytest.raises(CommitInDoubtError):
        finishing.result()


def test_nothing_is_in_doubt_when_nothing_was_sent(peer: Peer, storage: ClientStorage) -> None:
    txn = voted(storage, {A: b"1"})
    away(peer, storage)
    with pytest.raises(ClientDisconnected):
        storage.tpc_finish(txn)
    storage.tpc_abort(txn)
    assert peer.last_tid == ZERO_TID


@pytest.mark.parametrize("answer", [None, b"", 5, ZERO_TID, (1,)])
def test_a_finish_reply_of_wrong_shape_leaves_the_commit_in_doubt(
    peer: Peer, storage: ClientStorage, answer: Any
) -> None:
    commit(storage, {B: b"1"})
    peer.script["tpc_finish"] = lambda link, request: link.send(link.reply(request, answer))
    link = peer.link()
    with pytest.raises(CommitInDoubtError):
        commit(storage, {A: b"2"})
    assert link.ended.wait(10)


def test_an_error_at_the_finish_costs_the_connection(peer: Peer, storage: ClientStorage) -> None:
    """Whatever the server means by it: only a verified cache is known to be right."""
    first = commit(storage, {A: b"1"})

    def finish_and_complain(link: Link, request: Request) -> None:
        peer._tpc_finish(link, *request.args)
        link.send(link.error(request, StorageError("the disk made a noise")))

    peer.script["tpc_finish"] = finish_and_complain
    txn = voted(storage, {A: b"2"}, first)
    with pytest.raises(StorageError, match="noise"):
        storage.tpc_finish(txn)
    until(lambda: len(peer.links) == 2 and storage.is_connected())
    assert storage.last_tid() == peer.last_tid
    assert storage.load_before(A, successor(peer.last_tid)) == (b"2", peer.last_tid, None)


def test_an_announcement_that_fails_costs_the_connection(peer: Peer, storage: ClientStorage) -> None:
    first = commit(storage, {A: b"1"})
    ear = Ear(storage)
    txn = voted(storage, {A: b"2"}, first)
    with pytest.raises(ZeroDivisionError):
        storage.tpc_finish(txn, lambda _tid: 1 // 0)  # type: ignore[arg-type]
    until(lambda: ear.resets == 1 and storage.is_connected())
    assert storage.last_tid() == peer.last_tid > first
    assert storage.load_before(A, successor(peer.last_tid)) == (b"2", peer.last_tid, None)


@pytest.mark.parametrize("phase", ["begun", "voted"])
def test_a_transaction_fails_on_another_connection_than_its_own(peer: Peer, storage: ClientStorage, phase: str) -> None:
    txn = Txn()
    storage.tpc_begin(txn)
    storage.store(A, ZERO_TID, b"1", "", txn)
    if phase == "voted":
        storage.tpc_vote(txn)
    reconnected(storage, peer)
    with pytest.raises(ClientDisconnected, match="during the transaction"):
        (storage.tpc_finish if phase == "voted" else storage.tpc_vote)(txn)
    storage.tpc_abort(txn)
    assert {request.method for request in peer.link().requests} <= {"register", "get_info", "getInvalidations"}
    commit(storage, {A: b"1"})


def test_it_fails_at_once_also_while_the_server_is_away(peer: Peer, storage: ClientStorage) -> None:
    txn = voted(storage, {A: b"1"})
    away(peer, storage)
    began = time.monotonic()
    with pytest.raises(ClientDisconnected):
        storage.tpc_finish(txn)
    storage.tpc_abort(txn)
    assert time.monotonic() - began < 2


def test_a_connection_lost_at_the_vote(peer: Peer, storage: ClientStorage) -> None:
    peer.hold("vote")
    txn = Txn()
    storage.tpc_begin(txn)
    vote = Background(storage.tpc_vote, txn)
    link, _ = peer.held("vote")
    link.cut()
    with pytest.raises(ClientDisconnected):
        vote.result()
    with pytest.raises(StorageTransactionError):
        storage.tpc_finish(txn)
    storage.tpc_abort(txn)


@pytest.mark.parametrize("answer", [5, b"12345678", {}, (5,), ({"oid": A},)])
def test_a_vote_reply_of_wrong_shape(peer: Peer, storage: ClientStorage, answer: Any) -> None:
    peer.script["vote"] = lambda link, request: link.send(link.reply(request, answer))
    link = peer.link()
    with pytest.raises(Exception, match="the reply to vote is "):
        voted(storage, {A: b"1"})
    assert link.ended.wait(10)


# -- several at once ---------------------------------------------------------------------------------------------------


def test_transactions_of_several_threads_are_in_progress_together(peer: Peer, opened: Open) -> None:
    peer.extensions = ("concurrent-transactions",)
    storage = opened()
    first, second = voted(storage, {A: b"1"}), voted(storage, {B: b"1"})
    assert storage.tpc_finish(second) < storage.tpc_finish(first)


def test_they_take_turns_where_the_server_takes_one_at_a_time(peer: Peer, storage: ClientStorage) -> None:
    first = voted(storage, {A: b"1"})
    second = Background(commit, storage, {B: b"1"})
    third = Background(commit, storage, {C: b"1"})
    time.sleep(0.05)
    assert not second.done()
    assert not third.done()
    assert len(peer.link().calls("tpc_begin")) == 1
    storage.tpc_abort(first)
    assert second.result() != third.result()


@pytest.mark.parametrize("how", ["lost", "closed"])
def test_who_waits_for_a_turn_is_not_left_waiting_when_the_connection_ends(
    peer: Peer, storage: ClientStorage, how: str
) -> None:
    """The one before may belong to a thread that never ends it; the server has forgotten it anyway."""
    abandoned = voted(storage, {A: b"1"})
    waiting = Background(commit, storage, {B: b"1"})
    time.sleep(0.05)
    if how == "lost":
        reconnected(storage, peer)
    else:
        storage.close()
    with pytest.raises(ClientDisconnected):
        waiting.result()
    if how == "lost":
        commit(storage, {C: b"1"})
    storage.tpc_abort(abandoned)
