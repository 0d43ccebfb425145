import asyncio
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from zeo_server.peer import Peer, peer_name


class Transport(asyncio.BaseTransport):
    """A transport around a socket that is connected already."""

    def __init__(self, connected: socket.socket | None, certificate: dict[str, Any] | None = None) -> None:
        peer = None if connected is None else connected.getpeername()
        super().__init__({"socket": connected, "peername": peer, "peercert": certificate})


@pytest.fixture
def unix() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        yield ours


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as made:
        yield made


def test_the_user_at_the_other_end_of_a_unix_socket(unix: socket.socket) -> None:
    assert Peer.of(Transport(unix)) == Peer(frozenset(), os.getuid())
    assert peer_name(Transport(unix)) == f"process {os.getpid()} of user {os.getuid()}"


def test_nobody_is_known_over_tcp(tcp: socket.socket) -> None:
    assert Peer.of(Transport(tcp)) == Peer()
    assert peer_name(Transport(tcp)) == f"127.0.0.1:{tcp.getpeername()[1]}"


def test_a_socket_that_is_gone() -> None:
    assert Peer.of(Transport(None)) == Peer()
    assert peer_name(Transport(None)) == "a local process"


def test_the_names_of_a_certificate(tcp: socket.socket) -> None:
    certificate = {
        "subject": ((("organizationName", "Example"),), (("commonName", "Alice Smith"),)),
        "subjectAltName": (("DNS", "Alice.Example.org"), ("email", "alice@example.org"), ("DirName", ((("x", "y"),),))),
    }
    assert Peer.of(Transport(tcp, certificate)) == Peer(
        frozenset({"alice smith", "alice.example.org", "alice@example.org"})
    )
