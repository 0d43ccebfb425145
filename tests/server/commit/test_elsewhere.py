"""Transactions that another server commits: two real servers, and clients of both."""

from collections.abc import Iterator

import pytest

from tests.client.peer import until
from tests.server.raw_client import RawClient
from tests.server.relay import Relay, commit, relaying
from zeo_core.commit_marker import MARKER_BYTES
from zeo_core.errors import ConflictError, POSKeyError, ReadConflictError, StorageError, StorageTransactionError
from zeo_core.ids import MAX_TID, ZERO_TID, Oid, Tid, pack_id
from zeo_core.storage import ServedStorage
from zeo_server.commit.coordinator import Coordinator
from zeo_server.commit.elsewhere import OPEN_MAX, Elsewhere
from zeo_server.storages.mapping import MappingStorage

A, B, C = pack_id(1), pack_id(2), pack_id(3)
MARKER = bytes(range(MARKER_BYTES))


@pytest.fixture
def relay() -> Iterator[Relay]:
    with relaying(read_only=False) as servers:
        yield servers


def open_at(server: object) -> int:
    """Return how many transactions are open at a server."""
    coordinator: Coordinator = server.service.storages["1"]  # type: ignore[attr-defined]
    return coordinator.counters.active_txns


def nothing_left(relay: Relay) -> None:
    """Wait until no transaction is open at either server."""
    relay.first.until(lambda: open_at(relay.first) == 0)
    relay.second.until(lambda: open_at(relay.second) == 0)


def test_only_another_servers_storage_commits_elsewhere(relay: Relay) -> None:
    def ask(storage: ServedStorage) -> Elsewhere | None:
        return Elsewhere.of(storage, relay.second._loop, lambda *_: None, lambda *_: None, "1")

    assert ask(MappingStorage()) is None
    made = ask(relay.storage)
    assert made is not None
    made.close()


def test_a_commit_is_told_to_everybody_at_both_servers(relay: Relay) -> None:
    with relay.second.client() as mine, relay.second.client() as other, relay.first.client() as there:
        tid = mine.commit({A: (ZERO_TID, b"one"), B: (ZERO_TID, b"one")})
        assert mine.load(A) == (b"one", tid, None)
        assert mine.call("lastTransaction") == tid
        for client in (other, there):
            [(told, oids)] = client.invalidations()
            assert (told, sorted(oids)) == (tid, [A, B])
        assert mine.invalidations() == []
        assert other.load(B) == there.load(B) == (b"one", tid, None)
        assert mine.call("getInvalidations", tid) == (tid, ())
    nothing_left(relay)


def test_oids_are_those_of_the_other_server(relay: Relay) -> None:
    with relay.second.client() as mine, relay.first.client() as there:
        given = [*mine.call("new_oids"), *there.call("new_oids"), *mine.call("new_oids", 5)]
        assert len(set(given)) == len(given) == 205


def test_a_conflict_is_found_by_the_other_server(relay: Relay) -> None:
    first = commit(relay.first, A, B)
    with relay.second.client() as mine:
        commit(relay.first, A)
        mine.begin(1, {A: (first, b"mine")})
        with pytest.raises(ConflictError) as caught:
            mine.call("vote", 1)
        assert caught.value.oid == A
        mine.begin(2, {B: (first, b"mine")}, {A: first})
        with pytest.raises(ReadConflictError):
            mine.call("vote", 2)
        mine.begin(3, {C: (ZERO_TID, b"mine")}, {B: first})
        assert mine.call("vote", 3) == ()
        mine.call("tpc_finish", 3)
    nothing_left(relay)


def test_deletion_and_undo(relay: Relay) -> None:
    first = commit(relay.first, A)
    with relay.second.client() as mine:
        mine.begin(1, {})
        mine.one_way("deleteObject", A, first, 1)
        assert mine.call("vote", 1) == ()
        deleted = mine.call("tpc_finish", 1)
        with pytest.raises(POSKeyError):
            mine.load(A)
        mine.begin(2, {})
        mine.one_way("undoa", deleted, 2)
        assert mine.call("vote", 2) == (A,)
        undone = mine.call("tpc_finish", 2)
        assert mine.load(A) == (b"data", undone, None)


def test_a_conflict_that_the_client_resolves(relay: Relay) -> None:
    first = commit(relay.first, A)
    second = commit(relay.first, A, data=b"theirs")
    with relay.second.client() as mine, relay.first.client() as there:
        mine.begin(1, {A: (first, b"mine")})
        [conflict] = mine.call("vote", 1, True)
        assert (conflict["oid"], conflict["serials"], conflict["data"]) == (A, (second, first), b"mine")
        there.begin(1, {A: (second, b"later")})
        waits = there.send("vote", 1)
        mine.one_way("storea", A, second, b"both", 1)
        assert mine.call("vote", 1, True) == ()
        tid = mine.call("tpc_finish", 1)
        assert mine.load(A) == (b"both", tid, None)
        with pytest.raises(ConflictError):
            there.wait(waits)
    nothing_left(relay)


def test_an_aborted_transaction_lets_go_of_its_locks_there(relay: Relay) -> None:
    first = commit(relay.first, A)
    with relay.second.client() as mine, relay.first.client() as there:
        mine.begin(1, {A: (first, b"mine")})
        assert mine.call("vote", 1) == ()
        there.begin(1, {A: (first, b"theirs")})
        waits = there.send("vote", 1)
        assert not there.answered(waits)
        mine.one_way("tpc_abort", 1)
        assert there.wait(waits) == ()
        there.one_way("tpc_abort", 1)
    nothing_left(relay)


def test_a_client_that_leaves_while_its_vote_waits_there(relay: Relay) -> None:
    first = commit(relay.first, A)
    with relay.first.client() as there:
        there.begin(1, {A: (first, b"theirs")})
        assert there.call("vote", 1) == ()
        with relay.second.client() as mine:
            mine.begin(1, {A: (first, b"mine")})
            mine.send("vote", 1)
            relay.first.until(lambda: relay.first.service.storages["1"].locks.waiting() == 1)
        relay.second.until(lambda: open_at(relay.second) == 0)
        there.one_way("tpc_abort", 1)
        nothing_left(relay)
    assert commit(relay.second, A) > first


def test_who_wants_what_others_hold_here_waits_here(relay: Relay) -> None:
    first = commit(relay.first, A)
    with relay.second.client() as one, relay.second.client() as two:
        one.begin(1, {A: (first, b"one")})
        assert one.call("vote", 1) == ()
        two.begin(1, {A: (first, b"two")})
        waits = two.send("vote", 1)
        assert not two.answered(waits)
        assert relay.first.ask(lambda: open_at(relay.first)) == 1
        one.call("tpc_finish", 1)
        with pytest.raises(ConflictError):
            two.wait(waits)
    nothing_left(relay)


def test_no_more_are_open_there_than_it_takes(relay: Relay) -> None:
    many = [pack_id(number) for number in range(10, 10 + OPEN_MAX + 3)]
    with relay.second.client() as mine:
        votes = []
        for number, oid in enumerate(many):
            mine.begin(number, {oid: (ZERO_TID, b"data")})
            votes.append(mine.send("vote", number))
        for vote in votes[:OPEN_MAX]:
            assert mine.wait(vote) == ()
        assert not any(map(mine.answered, votes[OPEN_MAX:]))
        assert relay.first.ask(lambda: open_at(relay.first)) == OPEN_MAX
        mine.call("tpc_finish", 0)
        assert mine.wait(votes[OPEN_MAX]) == ()
        mine.one_way("tpc_abort", 1)
        assert mine.wait(votes[OPEN_MAX + 1]) == ()
    nothing_left(relay)


def marked(client: RawClient, txn: int, oid: Oid) -> None:
    client.one_way("tpc_begin", txn, "", "", {}, None, " ", MARKER)
    client.one_way("storea", oid, ZERO_TID, b"data", txn)
    assert client.call("vote", txn) == ()


def test_a_finish_whose_reply_was_lost_on_the_way_is_told_to_who_asks(relay: Relay) -> None:
    since = commit(relay.first, B)
    relay.second.until(lambda: relay.storage.last_tid() == since)
    with relay.second.client() as mine:
        marked(mine, 1, A)
        relay.proxy.lose_reply_to = b"tpc_finish"
        mine.send("tpc_finish", 1)
        mine.wait_closed()
    told = until(lambda: told_outcome(relay, since))
    assert told is not None
    [outcome] = told
    assert outcome is not None
    assert relay.first.ask(lambda: relay.first.service.storages["1"].storage.last_tid()) == outcome
    until(lambda: last_at_second(relay) == outcome)
    assert relay.storage.load_before(A, MAX_TID) == (b"data", outcome, None)
    nothing_left(relay)


def told_outcome(relay: Relay, since: Tid) -> tuple[Tid | None] | None:
    """Ask on a new connection, which may be cut off when it turns out what was missed."""
    try:
        with relay.second.client() as mine:
            return (mine.call("transaction_outcome", MARKER, since),)
    except ConnectionResetError:
        return None


def last_at_second(relay: Relay) -> Tid:
    return relay.second.ask(relay.storage.last_tid)


def test_a_finish_that_was_never_sent_is_none(relay: Relay) -> None:
    since = commit(relay.first, B)
    relay.second.until(lambda: relay.storage.last_tid() == since)
    with relay.second.client() as mine:
        marked(mine, 1, A)
        relay.proxy.cut()
        mine.send("tpc_finish", 1)
        mine.wait_closed()
    assert until(lambda: told_outcome(relay, since)) == (None,)
    assert last_at_second(relay) == since
    nothing_left(relay)


def test_nothing_may_be_finished_that_was_not_voted(relay: Relay) -> None:
    with relay.second.client() as mine:
        mine.begin(1, {A: (ZERO_TID, b"data")})
        with pytest.raises(StorageTransactionError):
            mine.call("tpc_finish", 1)


def test_the_server_stops_with_transactions_open() -> None:
    with relaying(read_only=False) as relay:
        first = commit(relay.first, A)
        one, two = relay.second.client(), relay.second.client()
        one.begin(1, {A: (first, b"one")})
        assert one.call("vote", 1) == ()
        two.begin(1, {A: (first, b"two")})
        two.send("vote", 1)
        two.call("ping")
    one.close()
    two.close()


def test_a_record_without_data_is_no_resolution(relay: Relay) -> None:
    first = commit(relay.first, A)
    second = commit(relay.first, A)
    with relay.second.client() as mine:
        mine.begin(1, {A: (first, b"mine")})
        assert len(mine.call("vote", 1, True)) == 1
        mine.one_way("deleteObject", A, second, 1)
        with pytest.raises(StorageError, match="to no data"):
            mine.call("vote", 1, True)
        assert mine.load(A, MAX_TID) == (b"data", second, None)
    nothing_left(relay)
