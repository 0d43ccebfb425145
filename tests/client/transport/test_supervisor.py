import contextlib
import functools
import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.peer import Background, Link, Peer, nothing_left_behind, until
from zeo_client.transport import dialling
from zeo_client.transport.address import Address
from zeo_client.transport.channel import Channel
from zeo_client.transport.dialling import DIAL_TIMEOUT_S
from zeo_client.transport.pauses import BACKOFF
from zeo_client.transport.supervisor import TRANSITIONS, LinkEvent, LinkState, Supervisor
from zeo_core.errors import ClientDisconnected, ReadOnlyError, RemoteProtocolError
from zeo_core.wire.session import Request


def register(channel: Channel) -> None:
    channel.call("register", ("1", False))


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    with Peer(tmp_path / "peer") as peer:
        yield peer


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    """No test may leave a thread or an open socket of the client's behind."""
    with nothing_left_behind():
        yield


Start = Callable[..., Supervisor]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a supervisor that is closed at the end."""
    started: list[Supervisor] = []

    def begin(
        *addresses: Address, verify: Callable[[Channel], None] = register, outage_s: float = 5.0, wait_s: float = 10.0
    ) -> Supervisor:
        supervisor = Supervisor(addresses, verify, lambda *_: None, outage_s)
        started.append(supervisor)
        supervisor.start()
        if wait_s:
            supervisor.wait_ready(wait_s)
        return supervisor

    yield begin
    for supervisor in started:
        Background(supervisor.close).result()


def is_another(supervisor: Supervisor, channel: Channel | None) -> bool:
    return supervisor.current() is not channel


def free_address() -> Address:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return Address("127.0.0.1", sock.getsockname()[1])


@contextlib.contextmanager
def full_backlog() -> Iterator[Address]:
    """A port where a connection is neither made nor refused."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(listener.getsockname())
        yield Address("127.0.0.1", listener.getsockname()[1])


@contextlib.contextmanager
def silent_server() -> Iterator[Address]:
    """A port where a connection is made, and then nothing said."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield Address("127.0.0.1", listener.getsockname()[1])


# -- the table ---------------------------------------------------------------------------------------------------------


def test_every_state_has_its_row_and_can_be_closed() -> None:
    assert set(TRANSITIONS) == set(LinkState)
    for row in TRANSITIONS.values():
        assert row[LinkEvent.CLOSE] is LinkState.CLOSED
        assert set(row) <= set(LinkEvent)


def test_closed_is_for_ever_and_ready_only_through_verifying() -> None:
    assert set(TRANSITIONS[LinkState.CLOSED].values()) == {LinkState.CLOSED}
    ways = [(state, event) for state, row in TRANSITIONS.items() for event in row if row[event] is LinkState.READY]
    assert ways == [(LinkState.VERIFYING, LinkEvent.VERIFIED)]


def test_every_state_is_reached() -> None:
    reached = {LinkState.DISCONNECTED}
    while more := {after for state in reached for after in TRANSITIONS[state].values()} - reached:
        reached |= more
    assert reached == set(LinkState)


# -- connecting --------------------------------------------------------------------------------------------------------


def test_it_connects_verifies_and_is_ready(peer: Peer, start: Start) -> None:
    states: list[LinkState] = []

    def verify(channel: Channel) -> None:
        states.append(supervisor.state)
        register(channel)

    supervisor = start(peer.address, wait_s=0, verify=verify)
    supervisor.wait_ready(10)
    assert states == [LinkState.VERIFYING]
    assert supervisor.state is LinkState.READY
    assert supervisor.current() is supervisor.channel()
    supervisor.channel().call("ping")


def test_nothing_is_given_out_before_verification_ends(peer: Peer, start: Start) -> None:
    """Lesson B10."""
    go_on = threading.Event()

    def verify(channel: Channel) -> None:
        register(channel)
        go_on.wait(10)

    supervisor = start(peer.address, wait_s=0, verify=verify)
    until(lambda: supervisor.state is LinkState.VERIFYING)
    waiting = Background(supervisor.channel)
    assert supervisor.current() is None
    time.sleep(0.05)
    assert not waiting.done()
    go_on.set()
    assert waiting.result() is supervisor.current()


def test_tcp(start: Start) -> None:
    with Peer() as peer:
        start(peer.address).channel().call("ping")


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_server_that_is_away_at_the_start_is_waited_for(tmp_path: Path, start: Start, family: str) -> None:
    address = free_address() if family == "tcp" else Address("", 0, str(tmp_path / "none"))
    supervisor = start(address, wait_s=0)
    began = time.monotonic()
    with pytest.raises(ClientDisconnected) as caught:
        supervisor.wait_ready(0.2)
    assert 0.15 < time.monotonic() - began < 10
    assert caught.value.address == str(address)
    assert "within 0.2 s" in caught.value.reason
    assert "refused" in caught.value.reason or "No such file" in caught.value.reason


def test_a_server_that_comes_later_is_found(tmp_path: Path, start: Start) -> None:
    peer = Peer(tmp_path / "peer", listen=False)
    supervisor = start(peer.address, wait_s=0)
    waiting = Background(supervisor.wait_ready, 10.0)
    calling = Background(supervisor.channel)
    time.sleep(0.3)
    peer.start()
    waiting.result()
    calling.result().call("ping")
    peer.stop()


def test_a_server_that_comes_late_is_found_soon(start: Start, tmp_path: Path) -> None:
    """However long it was away, the pauses must not grow past what a waiting call has."""
    assert BACKOFF.longest_s <= 1.0


def test_the_first_of_several_servers_that_serves(peer: Peer, start: Start) -> None:
    supervisor = start(free_address(), Address("", 0, "./nothing-here"), peer.address)
    assert supervisor.channel().address == peer.address


@pytest.mark.parametrize("bad", ["greeting", "closing", "refusing", "failing"])
def test_a_server_that_cannot_be_used_is_passed_by(peer: Peer, start: Start, tmp_path: Path, bad: str) -> None:
    def cut(link: Link, _request: Request) -> None:
        link.cut()

    def refuse(link: Link, request: Request) -> None:
        link.send(link.error(request, ValueError("unknown storage")))

    other = Peer(tmp_path / "other")
    if bad == "greeting":
        other.greeting = b"\0\0\0\2Z5"
    elif bad == "closing":
        other.script["register"] = cut
    elif bad == "refusing":
        other.script["register"] = refuse
    else:
        other.script["register"] = lambda link, request: link.send(b"\0\0\0\1\xc1")
    supervisor = start(other.address, peer.address)
    assert supervisor.channel().address == peer.address
    other.stop()


def test_a_silent_server_is_passed_by(peer: Peer, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "DIAL_TIMEOUT_S", 0.1)
    with silent_server() as silent, full_backlog() as full:
        assert start(silent, full, peer.address).channel().address == peer.address


# -- refusal -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("unknown storage: 2"), ReadOnlyError("replica")])
def test_a_refusal_is_told_at_once(peer: Peer, start: Start, error: Exception) -> None:
    peer.script["register"] = lambda link, request: link.send(link.error(request, error))
    began = time.monotonic()
    with pytest.raises(type(error), match=str(error)):
        start(peer.address, wait_s=30)
    assert time.monotonic() - began < 5


def test_a_refusal_by_all_of_several_servers(peer: Peer, start: Start, tmp_path: Path) -> None:
    with Peer(tmp_path / "other") as other:
        for each in (peer, other):
            each.script["register"] = lambda link, request: link.send(link.error(request, ReadOnlyError("replica")))
        with pytest.raises(ReadOnlyError):
            start(peer.address, other.address, wait_s=30)


def test_a_refusal_by_one_while_another_may_still_come(peer: Peer, start: Start) -> None:
    """A standby refuses writers; the primary is about to come back."""
    peer.script["register"] = lambda link, request: link.send(link.error(request, ReadOnlyError("standby")))
    supervisor = start(peer.address, free_address(), wait_s=0)
    with pytest.raises(ClientDisconnected, match=r"standby.*refused"):
        supervisor.wait_ready(0.3)


def test_a_refusal_may_be_taken_back(peer: Peer, start: Start) -> None:
    peer.script["register"] = lambda link, request: link.send(link.error(request, ReadOnlyError("standby")))
    supervisor = start(peer.address, wait_s=0)
    with pytest.raises(ReadOnlyError):
        supervisor.wait_ready(10)
    peer.release("register")
    supervisor.channel().call("ping")


@pytest.mark.parametrize(
    "error", [TypeError("in verify"), RemoteProtocolError("in verify"), KeyError("in verify"), LookupError("in verify")]
)
def test_a_fault_in_the_verification_is_tried_again_and_told(
    peer: Peer, start: Start, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def verify(channel: Channel) -> None:
        register(channel)
        if len(peer.links) < 3:
            raise error

    start(peer.address, verify=verify)
    assert len(peer.links) == 3
    assert str(peer.address) in caplog.text


# -- losing the server -------------------------------------------------------------------------------------------------


def test_calls_under_way_fail_at_once_with_address_and_reason(peer: Peer, start: Start) -> None:
    supervisor = start(peer.address, outage_s=60)
    peer.hold("ping")
    calls = [Background(supervisor.channel().call, "ping") for _ in range(4)]
    for _ in calls:
        peer.held("ping")
    began = time.monotonic()
    peer.stop()
    for call in calls:
        with pytest.raises(ClientDisconnected) as caught:
            call.result()
        assert caught.value.address == str(peer.address)
        assert caught.value.reason
    assert time.monotonic() - began < 2


def test_new_calls_wait_for_the_server_to_come_back(peer: Peer, start: Start) -> None:
    supervisor = start(peer.address, outage_s=10)
    before = supervisor.channel()
    peer.stop()
    calls = [Background(lambda: supervisor.channel().call("lastTransaction")) for _ in range(4)]
    until(lambda: supervisor.state is not LinkState.READY)
    time.sleep(0.2)
    peer.start()
    for call in calls:
        with contextlib.suppress(ClientDisconnected):  # it may have begun before the loss was noticed
            call.result()
    assert supervisor.channel() is not before
    supervisor.channel().call("ping")
    assert before.lost


def test_the_grace_is_counted_from_the_loss(peer: Peer, start: Start) -> None:
    supervisor = start(peer.address, outage_s=0.4)
    lost = time.monotonic()
    peer.stop()
    until(lambda: supervisor.current() is None)
    with pytest.raises(ClientDisconnected) as caught:
        supervisor.channel()
    assert time.monotonic() - lost > 0.3
    assert str(peer.address) in str(caught.value)
    assert "refused" in caught.value.reason or "No such file" in caught.value.reason
    began = time.monotonic()
    for _ in range(10):
        with pytest.raises(ClientDisconnected):
            supervisor.channel()
    assert time.monotonic() - began < 2  # and not ten times 0.4 s


def test_no_grace_at_all(peer: Peer, start: Start) -> None:
    supervisor = start(peer.address, outage_s=0)
    supervisor.channel().call("ping")
    peer.stop()
    until(lambda: supervisor.current() is None)
    with pytest.raises(ClientDisconnected):
        supervisor.channel()
    peer.start()
    until(lambda: supervisor.current() is not None)
    supervisor.channel().call("ping")


def test_it_comes_back_any_number_of_times(peer: Peer, start: Start) -> None:
    supervisor = start(peer.address)
    for _ in range(20):
        channel = supervisor.channel()
        channel.call("ping")
        peer.link().cut()
        until(functools.partial(is_another, supervisor, channel))
    until(lambda: supervisor.current() is not None)
    assert sum(not link.ended.is_set() for link in peer.links) == 1


# -- closing -----------------------------------------------------------------------------------------------------------


def test_close_ends_calls_waiting_for_anything(peer: Peer, start: Start) -> None:
    supervisor = start(peer.address)
    peer.hold("ping")
    call = Background(supervisor.channel().call, "ping")
    peer.held("ping")
    supervisor.close()
    with pytest.raises(ClientDisconnected, match="closed by this client"):
        call.result()
    with pytest.raises(ClientDisconnected, match="closed by this client"):
        supervisor.channel()
    with pytest.raises(ClientDisconnected, match="closed by this client"):
        supervisor.wait_ready(10)
    supervisor.close()


def test_close_ends_those_who_wait_for_a_connection(start: Start) -> None:
    supervisor = start(free_address(), wait_s=0, outage_s=60)
    waiting = [Background(supervisor.wait_ready, 60.0), Background(supervisor.channel)]
    time.sleep(0.05)
    began = time.monotonic()
    supervisor.close()
    for each in waiting:
        with pytest.raises(ClientDisconnected, match="closed by this client"):
            each.result()
    assert time.monotonic() - began < 2


def test_close_before_start_and_twice() -> None:
    supervisor = Supervisor([free_address()], register, lambda *_: None, 1.0)
    supervisor.close()
    supervisor.close()
    with pytest.raises(ClientDisconnected):
        supervisor.channel()


@pytest.mark.parametrize("where", ["connecting", "greeting", "verifying", "sleeping"])
def test_close_in_the_middle_of_connecting(peer: Peer, start: Start, where: str) -> None:
    """None of these may hold it up: they would end only by DIAL_TIMEOUT_S."""
    with silent_server() as silent, full_backlog() as full:
        peer.hold("register")
        addresses: dict[str, Address] = {
            "connecting": full,
            "greeting": silent,
            "verifying": peer.address,
            "sleeping": free_address(),
        }
        supervisor = start(addresses[where], wait_s=0)
        if where == "verifying":
            peer.held("register")
        else:
            time.sleep(0.2)
        began = time.monotonic()
        Background(supervisor.close).result()
        assert time.monotonic() - began < DIAL_TIMEOUT_S / 2
        until(lambda: not supervisor._thread.is_alive(), DIAL_TIMEOUT_S / 2)


def test_close_from_inside_a_push(peer: Peer) -> None:
    def on_push(*_: Any) -> None:
        supervisor.close()
        closed.set()

    closed = threading.Event()
    supervisor = Supervisor([peer.address], register, on_push, 1.0)
    supervisor.start()
    supervisor.wait_ready(10)
    link = peer.link()
    link.send(link.invalidation(b"\0" * 7 + b"\1"))
    assert closed.wait(10)
    supervisor.close()


def test_close_from_inside_the_verification(peer: Peer) -> None:
    supervisor = Supervisor([peer.address], lambda _channel: supervisor.close(), lambda *_: None, 1.0)
    supervisor.start()
    with pytest.raises(ClientDisconnected):
        supervisor.wait_ready(10)


def test_close_at_any_moment_from_any_thread(peer: Peer) -> None:
    choice = random.Random(7)
    for number in range(60):
        supervisor = Supervisor([peer.address], register, lambda *_: None, 1.0)

        def work(supervisor: Supervisor = supervisor) -> None:
            with contextlib.suppress(ClientDisconnected):
                while True:
                    supervisor.channel().call("ping")

        supervisor.start()
        workers = [Background(work) for _ in range(number % 3)]
        time.sleep(choice.random() * 0.01)
        closers = [Background(supervisor.close) for _ in range(2)]
        for background in [*closers, *workers]:
            background.result()
        assert supervisor.state is LinkState.CLOSED
        assert not supervisor._thread.is_alive()


def test_losses_and_closing_are_logged_without_a_traceback(
    peer: Peer, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    supervisor = start(peer.address)
    peer.stop()
    until(lambda: supervisor.current() is None)
    supervisor.close()
    assert "disconnected from" in caplog.text
    assert "Traceback" not in caplog.text
