"""The way to a server; test_supervisor.py has what dials, test_tls.py what is under TLS."""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.peer import Background, Peer, nothing_left_behind
from zeo_client.transport import dialling
from zeo_client.transport.address import Address
from zeo_client.transport.dialling import CLOSED_HERE, Dialler
from zeo_core.errors import ClientDisconnected
from zeo_core.wire.session import MESSAGE_MAX_BYTES


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    with nothing_left_behind():
        yield


@pytest.fixture
def dialler() -> Iterator[Dialler]:
    dialler = Dialler(lambda *_: None, MESSAGE_MAX_BYTES)
    yield dialler
    dialler.close()


@contextlib.contextmanager
def unanswering() -> Iterator[Address]:
    """A port where a connection is neither made nor refused, as at a host whose power is gone."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(listener.getsockname())
        yield Address("127.0.0.1", listener.getsockname()[1])


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_greeted_channel(tmp_path: Path, dialler: Dialler, family: str) -> None:
    with Peer(tmp_path / "peer" if family == "unix" else None) as peer:
        channel = dialler.dial(peer.address)
        channel.call("register", ("1", False))
        channel.close()


def test_a_host_that_does_not_answer_holds_others_up_for_a_short_time_only(
    dialler: Dialler, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dialling.CONNECT_TIMEOUT_S < dialling.DIAL_TIMEOUT_S / 3
    monkeypatch.setattr(dialling, "CONNECT_TIMEOUT_S", 0.1)
    with unanswering() as address:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            dialler.dial(address, others_wait=True)
        assert time.monotonic() - began < dialling.DIAL_TIMEOUT_S / 2


def test_an_address_that_is_none(dialler: Dialler, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        dialler.dial(Address("", 0, str(tmp_path / "nothing")))


def test_closing_ends_what_is_waited_for_and_all_that_comes(peer: Peer) -> None:
    peer.start()
    dialler = Dialler(lambda *_: None, MESSAGE_MAX_BYTES)
    channel = dialler.dial(peer.address)
    peer.hold("register")
    calling = Background(channel.call, "register", ("1", False))
    peer.held("register")
    dialler.close()
    with pytest.raises(ClientDisconnected, match=CLOSED_HERE):
        calling.result()
    with pytest.raises(ClientDisconnected, match=CLOSED_HERE):
        dialler.dial(peer.address)
    channel.close()


def test_closing_ends_a_connection_that_is_being_made() -> None:
    dialler = Dialler(lambda *_: None, MESSAGE_MAX_BYTES)
    with unanswering() as address:
        dialling_thread = Background(dialler.dial, address)
        time.sleep(0.1)  # into the connect; if it has not come so far, close comes first
        dialler.close()
        with pytest.raises((OSError, ClientDisconnected)):
            dialling_thread.result(dialling.DIAL_TIMEOUT_S / 2)
