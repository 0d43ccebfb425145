"""What is committed to one server, as the clients of another one hear of it that serves its storage on."""

from collections.abc import Iterator

import pytest

from tests.client.peer import until
from tests.server.raw_client import RawClient
from tests.server.relay import Relay, commit, relaying
from zeo_core.errors import ClientDisconnected
from zeo_core.ids import MAX_TID, Tid, pack_id
from zeo_core.transaction import Invalidation
from zeo_core.wire.session import Reply, Request
from zeo_server.following import Following

A, B, C = pack_id(1), pack_id(2), pack_id(3)


@pytest.fixture
def relay() -> Iterator[Relay]:
    with relaying() as servers:
        yield servers


def reader(relay: Relay) -> RawClient:
    return relay.second.client(read_only=True)


def shown(relay: Relay, tid: Tid) -> None:
    """Wait until the second server shows a transaction."""
    relay.second.until(lambda: relay.storage.last_tid() >= tid)


def test_everybody_is_told_of_every_transaction_in_order(relay: Relay) -> None:
    with reader(relay) as one, reader(relay) as other:
        tids = [commit(relay.first, A), commit(relay.first, A, B), commit(relay.first, C)]
        shown(relay, tids[-1])
        expected = [(tids[0], [A]), (tids[1], [A, B]), (tids[2], [C])]
        for client in (one, other):
            assert [(tid, sorted(oids)) for tid, oids in client.invalidations()] == expected
            assert client.call("lastTransaction") == tids[-1]


def test_no_answer_is_newer_than_what_was_told_before_it(relay: Relay) -> None:
    commit(relay.first, A)
    with reader(relay) as client:
        tids = [commit(relay.first, A) for _ in range(20)]
        calls = []
        while client.call("lastTransaction") < tids[-1]:
            calls.append(client.send("loadBefore", A, MAX_TID))
        for call in calls:
            client.wait(call)
        told = client.last_tid
        for event in client.heard:
            if isinstance(event, Request) and event.method == "invalidateTransaction":
                told = event.args[0]
            elif isinstance(event, Reply) and event.message_id in calls:
                _data, tid, end_tid = event.result
                assert tid <= told
                assert end_tid is None or end_tid <= told


def test_who_missed_some_is_told_by_this_server_or_the_other(relay: Relay) -> None:
    early = commit(relay.first, A)
    late = commit(relay.first, B)
    last = commit(relay.first, C)
    shown(relay, last)
    with reader(relay) as client:
        assert client.call("getInvalidations", last) == (last, ())
        tid, oids = client.call("getInvalidations", early)
        assert (tid, sorted(oids)) == (last, [B, C])
        tid, oids = client.call("getInvalidations", late)
        assert (tid, oids) == (last, (C,))
        assert client.call("getInvalidations", pack_id(5)) is None


def test_a_connection_that_was_cut_while_nothing_happened_is_not_noticed(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    tid = commit(relay.first, A)
    shown(relay, tid)
    with reader(relay) as client:
        relay.proxy.cut()
        until(lambda: "0 objects were changed in the time between" in caplog.text)
        later = commit(relay.first, B)
        shown(relay, later)
        assert client.invalidations() == [(later, (B,))]


def away(relay: Relay) -> None:
    """Cut the first server off."""
    relay.proxy.refusing = True
    relay.proxy.cut()
    until(lambda: relay.storage.link.away_s())


def test_who_is_there_when_the_server_comes_back_verifies_what_happened_meanwhile(relay: Relay) -> None:
    before = commit(relay.first, A, B)
    shown(relay, before)
    with reader(relay) as client:
        client.load(A)
        away(relay)
        assert client.load(A) == (b"data", before, None)  # out of the cache
        meanwhile = commit(relay.first, A, data=b"new"), commit(relay.first, C)
        relay.proxy.refusing = False
        client.wait_closed()
    with reader(relay) as client:
        assert client.last_tid == meanwhile[1]
        tid, oids = client.call("getInvalidations", before)
        assert (tid, sorted(oids)) == (meanwhile[1], [A, C])
        assert client.load(A) == (b"new", meanwhile[0], None)
        later = commit(relay.first, B)
        shown(relay, later)
        assert client.invalidations() == [(later, (B,))]


def test_a_gap_that_nobody_can_tell_has_everybody_start_anew(relay: Relay) -> None:
    before = commit(relay.first, A)
    shown(relay, before)
    with reader(relay) as client:
        away(relay)
        relay.first.ask(lambda: relay.first.service.storages["1"].invalidations.resize(1))
        commit(relay.first, A)
        last = commit(relay.first, A, data=b"new")
        relay.proxy.refusing = False
        client.wait_closed()
    with reader(relay) as client:
        assert client.last_tid == last
        assert client.call("getInvalidations", before) is None
        assert client.load(A) == (b"new", last, None)


def test_who_waits_for_a_turn_gets_it_however_often_the_connection_is_lost(relay: Relay) -> None:
    following = getattr(relay.storage.in_turn, "__self__", None)
    assert isinstance(following, Following)
    turns: list[str] = []

    def lose_it_twice() -> None:
        following._reconnected()
        following._heard(Invalidation(MAX_TID, ()))  # of a connection that is gone: never shown
        following._take_turn(lambda: turns.append("mine"))
        following._reconnected()
        assert turns == []

    relay.second.ask(lose_it_twice)
    relay.second.until(lambda: turns == ["mine"])
    later = commit(relay.first, A)
    shown(relay, later)
    assert relay.storage.last_tid() == later


def test_what_cannot_be_had_while_the_server_is_away_is_said_so() -> None:
    with relaying(options={"reconnect_timeout": 0.05}) as relay:
        tid = commit(relay.first, A)
        shown(relay, tid)
        with reader(relay) as client:
            away(relay)
            for call in (("loadBefore", A, MAX_TID), ("loadSerial", A, tid), ("history", A), ("getTid", A)):
                with pytest.raises(ClientDisconnected):
                    client.call(*call)
            with pytest.raises(ClientDisconnected):
                client.call("load_many", (A,), MAX_TID)
            relay.proxy.refusing = False
            until(lambda: not relay.storage.link.away_s())
            assert client.load(A) == (b"data", tid, None)


def test_many_objects_at_once_also_those_that_do_not_exist(relay: Relay) -> None:
    there = [pack_id(number) for number in range(1, 100)]
    tid = commit(relay.first, *there)
    shown(relay, tid)
    with reader(relay) as client:
        found, left = client.call("load_many", (*there, pack_id(1000), pack_id(1001)), MAX_TID)
        assert [oid for oid, *_ in found] == there
        assert left == ()


def test_objects_that_no_cache_has_room_for() -> None:
    with relaying(options={"cache_size": 1000}) as relay:
        oids = [pack_id(number) for number in range(1, 40)]
        tid = commit(relay.first, *oids, data=b"x" * 5000)
        shown(relay, tid)
        with reader(relay) as client:
            assert [client.load(oid) for oid in oids] == [(b"x" * 5000, tid, None)] * len(oids)
            found, _left = client.call("load_many", oids, MAX_TID)
            assert [oid for oid, *_ in found] == oids
