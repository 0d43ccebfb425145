"""ClientStorage and several servers, scripted ones; tests/integration/test_failover.py has zeods."""

import inspect
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transaction import TransactionManager
from ZEO.ClientStorage import ClientStorage as ZEOClientStorage

from tests.client.peer import Background, Link, Peer, nothing_left_behind, until
from tests.client.storages import Ear
from zeo_client.db import DB
from zeo_client.storage import ClientStorage
from zeo_core.errors import ClientDisconnected, ConfigurationError, NotCommittedError, ReadOnlyError
from zeo_core.ids import ZERO_TID, pack_id, successor
from zeo_core.wire.methods import COMMIT_OUTCOME
from zeo_core.wire.session import Request

A, B = pack_id(1), pack_id(2)

OpenOn = Callable[..., ClientStorage]


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    with nothing_left_behind():
        yield


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Peer]:
    """A server that takes writes; it is not there yet."""
    peer = Peer(tmp_path / "primary", listen=False)
    yield peer
    peer.stop()


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Peer]:
    """A server that takes none."""
    peer = Peer(tmp_path / "replica")
    peer.script["register"] = readers_only
    yield peer
    peer.stop()


@pytest.fixture
def open_on() -> Iterator[OpenOn]:
    """Open a storage on several peers that looks for a better one all the time; it is closed at the end."""
    storages: list[ClientStorage] = []

    def open_storage(*peers: Peer, **options: Any) -> ClientStorage:
        options = {"read_only_fallback": True, "wait_timeout": 10, "reconnect_timeout": 10, **options}
        polls = {"min_disconnect_poll": 0.01, "max_disconnect_poll": 0.05}
        storages.append(ClientStorage([str(peer.address) for peer in peers], **polls | options))
        return storages[-1]

    yield open_storage
    for storage in storages:
        Background(storage.close).result()


def readers_only(link: Link, request: Request) -> None:
    if request.args[1]:
        link.peer.answer(link, request)
    else:
        link.send(link.error(request, ReadOnlyError("this is a replica")))


def has_what(peer: Peer, other: Peer) -> None:
    """Have a peer hold the same as another."""
    peer.revisions = {oid: list(revisions) for oid, revisions in other.revisions.items()}
    peer.log, peer.last_tid = list(other.log), other.last_tid


# -- the arguments -----------------------------------------------------------------------------------------------------


def test_every_argument_of_zeos_is_taken() -> None:
    theirs = inspect.signature(ZEOClientStorage.__init__).parameters
    ours = inspect.signature(ClientStorage.__init__).parameters
    for_tests = {"_client_factory"}
    assert set(theirs) - for_tests <= set(ours)
    assert all(
        ours[name].default is not inspect.Parameter.empty for name in theirs.keys() - for_tests - {"self", "addr"}
    )


def test_they_are_taken_with_the_values_of_zeos_defaults(replica: Peer, caplog: pytest.LogCaptureFixture) -> None:
    replica.release("register")
    caplog.set_level("DEBUG", "zeo_client.client_options")
    theirs = inspect.signature(ZEOClientStorage.__init__).parameters
    options = {name: each.default for name, each in theirs.items() if name not in ("self", "addr", "_client_factory")}
    storage = ClientStorage(str(replica.address), **options)
    storage.close()
    [record] = caplog.records
    assert record.getMessage() == f"{replica.address}/1: drop_cache_rather_verify: no effect"


def test_to_want_writes_and_not_to_want_them(replica: Peer) -> None:
    with pytest.raises(ConfigurationError, match="read_only_fallback"):
        ClientStorage(str(replica.address), read_only=True, read_only_fallback=True)


# -- a second best -----------------------------------------------------------------------------------------------------


def test_without_the_fall_back_a_replica_is_no_server(primary: Peer, replica: Peer, open_on: OpenOn) -> None:
    with pytest.raises(ClientDisconnected, match="this is a replica"):
        open_on(primary, replica, read_only_fallback=False, wait_timeout=0.3)
    storage = open_on(primary, replica, read_only_fallback=False, read_only=True)
    assert storage.read_only()


def test_a_replica_will_do_for_reading(primary: Peer, replica: Peer, open_on: OpenOn) -> None:
    tid = replica.commit({A: b"a"})
    storage = open_on(primary, replica)
    assert storage.read_only()
    assert storage.isReadOnly()
    assert storage.load_before(A, successor(tid)) == (b"a", tid, None)
    with pytest.raises(ReadOnlyError):
        storage.tpc_begin(object())


def test_the_writers_server_is_taken_wherever_it_stands_in_the_list(
    primary: Peer, replica: Peer, open_on: OpenOn
) -> None:
    primary.start()
    storage = open_on(replica, primary)
    assert not storage.read_only()
    assert [request.args for request in replica.links[0].calls("register")] == [("1", False)]


def test_it_goes_over_to_the_writers_server_when_that_comes(primary: Peer, replica: Peer, open_on: OpenOn) -> None:
    replica.commit({A: b"1", B: b"1"})
    storage = open_on(primary, replica)
    ear = Ear(storage)
    first = replica.last_tid
    for oid in (A, B):
        storage.load_before(oid, successor(first))
    has_what(primary, replica)
    second = primary.commit({A: b"2"})
    primary.start()
    until(lambda: not storage.read_only() and storage.is_connected())
    assert (storage.last_tid(), ear.resets) == (second, 1)
    assert storage.load_before(A, successor(second)) == (b"2", second, None)
    assert storage.load_before(B, successor(second)) == (b"1", first, None)  # from the cache, which is verified
    assert [request.args[0] for request in primary.link().calls("loadBefore")] == [A]
    until(lambda: all(link.ended.is_set() for link in replica.links))


def test_what_the_replica_says_meanwhile_is_not_heard_twice_or_late(
    primary: Peer, replica: Peer, open_on: OpenOn
) -> None:
    """The primary's verification lies while the replica still talks: its stream must be over before the other's."""
    replica.commit({A: b"1"})
    storage = open_on(primary, replica)
    ear = Ear(storage)
    has_what(primary, replica)
    primary.hold("get_info")
    primary.start()
    link, request = primary.held("get_info")
    replica.commit({A: b"never committed"})
    later = primary.commit({A: b"2"})
    link.send(link.reply(request, primary._get_info(link)))
    until(lambda: not storage.read_only() and storage.is_connected())
    until(lambda: storage.last_tid() == later)
    assert storage.load_before(A, successor(later)) == (b"2", later, None)
    assert [tid for tid, _ in ear.heard] in ([], [later])


def test_calls_under_way_are_answered_before_it_goes_over(primary: Peer, replica: Peer, open_on: OpenOn) -> None:
    tid = replica.commit({A: b"a"})
    storage = open_on(primary, replica)
    replica.hold("loadBefore")
    loading = Background(storage.load_before, A, successor(tid))
    link, request = replica.held("loadBefore")
    has_what(primary, replica)
    primary.start()
    until(lambda: storage._supervisor.current() is None)
    link.send(link.reply(request, (b"a", tid, None)))
    assert loading.result() == (b"a", tid, None)
    until(lambda: not storage.read_only() and storage.is_connected())


def test_a_call_that_is_not_answered_says_why_and_when(
    primary: Peer, replica: Peer, open_on: OpenOn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zeo_client.transport.supervisor.DRAIN_TIMEOUT_S", 0.1)
    storage = open_on(primary, replica)
    replica.hold("ping")
    pinging = Background(storage.ping)
    replica.held("ping")
    primary.start()
    with pytest.raises(ClientDisconnected, match=r"went over to .*primary.*takes writes") as caught:
        pinging.result()
    assert caught.value.address == str(replica.address)
    assert caught.value.when.startswith(time.strftime("%Y-"))


def test_a_replica_that_is_promoted_is_asked_again(replica: Peer, open_on: OpenOn) -> None:
    storage = open_on(replica)
    assert storage.read_only()
    replica.release("register")
    until(lambda: not storage.read_only() and storage.is_connected())
    assert storage.is_connected()


def test_it_falls_back_again_and_comes_back(primary: Peer, replica: Peer, open_on: OpenOn) -> None:
    primary.start()
    storage = open_on(primary, replica)
    for _ in range(3):
        tid = primary.commit({A: b"x"})
        until(lambda tid=tid: storage.last_tid() == tid)  # type: ignore[misc]
        has_what(replica, primary)
        primary.stop()
        until(lambda: storage.read_only() and storage.is_connected())
        assert storage.load_before(A, successor(tid)) == (b"x", tid, None)
        primary.start()
        until(lambda: not storage.read_only() and storage.is_connected())


def test_a_replica_that_is_behind_is_passed_by_until_it_is_not(primary: Peer, replica: Peer, open_on: OpenOn) -> None:
    """Invariant 4: what this client has seen stays seen."""
    primary.start()
    first = primary.commit({A: b"1"})
    has_what(replica, primary)
    storage = open_on(primary, replica, reconnect_timeout=0.3)
    second = primary.commit({A: b"2"})
    until(lambda: storage.last_tid() == second)
    primary.stop()
    until(lambda: not storage.is_connected())
    with pytest.raises(ClientDisconnected, match="behind"):
        storage.load_before(A, successor(second))
    assert storage.last_tid() == second
    assert first < replica.commit({A: b"2"}) == second
    until(storage.is_connected)
    assert storage.load_before(A, successor(second)) == (b"2", second, None)


def test_a_transaction_that_began_on_one_server_does_not_end_on_another(
    primary: Peer, replica: Peer, open_on: OpenOn
) -> None:
    primary.start()
    storage = open_on(primary, replica)
    has_what(replica, primary)
    began = Transaction()
    storage.tpc_begin(began)
    storage.store(A, ZERO_TID, b"data", "", began)
    primary.stop()
    until(lambda: storage.read_only() and storage.is_connected())
    storage.store(B, ZERO_TID, b"data", "", began)
    with pytest.raises(ClientDisconnected, match="lost during the transaction"):
        storage.tpc_vote(began)
    storage.tpc_abort(began)


@pytest.mark.parametrize("committed", [True, False])
def test_what_became_of_a_commit_is_asked_of_the_writers_server(
    primary: Peer, replica: Peer, open_on: OpenOn, committed: bool
) -> None:
    """Invariant 8: a replica may not have heard of it, whose "no" would have it done twice."""
    for peer in (primary, replica):
        peer.extensions = (COMMIT_OUTCOME,)
    primary.start()
    storage = open_on(primary, replica)
    has_what(replica, primary)
    primary.hold("tpc_finish")
    began = Transaction()
    storage.tpc_begin(began)
    storage.store(A, ZERO_TID, b"data", "", began)
    storage.tpc_vote(began)
    finishing = Background(storage.tpc_finish, began)
    link, request = primary.held("tpc_finish")
    if committed:
        primary.release("tpc_finish")
        primary.script["tpc_finish"] = lambda link, request: None
        primary._tpc_finish(link, *request.args)
    primary.stop()
    until(lambda: storage.read_only() and storage.is_connected())
    assert not finishing.done()
    primary.start()
    if committed:
        assert finishing.result() == primary.last_tid
    else:
        with pytest.raises(NotCommittedError):
            finishing.result()
    assert [link for link in replica.links if link.calls("transaction_outcome")] == []


class Transaction:
    user = description = ""
    extension: dict[str, Any] = {}  # noqa: RUF012


def test_a_database_that_lives_through_it(primary: Peer, replica: Peer, open_on: OpenOn) -> None:
    primary.start()
    storage = open_on(primary, replica)
    with DB(storage) as db:
        with db.transaction() as conn:
            conn.root()["number"] = 1
        has_what(replica, primary)
        primary.stop()
        until(lambda: storage.read_only() and storage.is_connected())
        manager = TransactionManager()
        reader = db.open(manager)
        assert reader.root()["number"] == 1
        reader.root()["number"] = 2
        with pytest.raises(ReadOnlyError):
            manager.commit()
        manager.abort()
        has_what(primary, replica)
        primary.start()
        until(lambda: not storage.read_only() and storage.is_connected())
        manager.begin()
        reader.root()["number"] = 3
        manager.commit()
        reader.close()
        assert primary.last_tid > replica.last_tid


# -- other addresses ---------------------------------------------------------------------------------------------------


def test_other_addresses_while_it_is_connected_are_for_the_next_time(
    primary: Peer, replica: Peer, open_on: OpenOn
) -> None:
    replica.release("register")
    storage = open_on(replica, read_only_fallback=False)
    storage.new_addr(str(primary.address))
    storage.ping()
    assert len(replica.links) == 1
    primary.start()
    replica.stop()
    until(lambda: primary.links)
    until(storage.is_connected)
    storage.ping()


def test_other_addresses_end_a_pause(primary: Peer, replica: Peer, open_on: OpenOn) -> None:
    replica.release("register")
    polls = {"min_disconnect_poll": 60, "max_disconnect_poll": 60}
    storage = open_on(primary, read_only_fallback=False, wait=False, **polls)
    waiting = Background(storage.ping)
    time.sleep(0.1)  # into the pause; if it has not come so far, the first attempt has the new address
    storage.new_addr([("127.0.0.1", 1), str(replica.address)])
    waiting.result(10)


def test_other_addresses_are_asked_for_a_better_server(primary: Peer, replica: Peer, open_on: OpenOn) -> None:
    storage = open_on(replica)
    assert storage.read_only()
    primary.start()
    storage.new_addr([str(replica.address), str(primary.address)])
    until(lambda: not storage.read_only() and storage.is_connected())


def test_addresses_that_are_none(replica: Peer, open_on: OpenOn) -> None:
    storage = open_on(replica)
    with pytest.raises(ConfigurationError):
        storage.new_addr([])
    storage.ping()


def test_closing_while_it_looks_for_a_better_server(primary: Peer, replica: Peer, open_on: OpenOn) -> None:
    storage = open_on(primary, replica)
    primary.hold("register")
    primary.start()
    primary.held("register")
    began = time.monotonic()
    Background(storage.close).result()
    assert time.monotonic() - began < 2
