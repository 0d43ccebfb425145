"""TLS over a socket that is read and written at once, against the standard library's on the other side."""

import os
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fixtures_tls import Authority
from zeo_client.transport.address import Address
from zeo_client.transport.tls import TLSSocket, securing


@contextmanager
def connected(authority: Authority, *, first_words: bytes = b"") -> Iterator[tuple[TLSSocket, ssl.SSLSocket]]:
    """A connection: our side, and the server's, which speaks first if it has something to say."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.server)
    left, right = socket.socketpair()
    accepted: list[ssl.SSLSocket] = []

    def accept() -> None:
        server = context.wrap_socket(right, server_side=True)
        server.sendall(first_words)
        accepted.append(server)

    thread = threading.Thread(target=accept)
    thread.start()
    left.settimeout(10)
    client = TLSSocket(left, authority.context(), "localhost")
    thread.join()
    try:
        yield client, accepted[0]
    finally:
        accepted[0].close()
        client.close()


def read(client: TLSSocket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = client.recv(100)
        assert piece, data
        data += piece
    return data


def test_words_there_and_back(authority: Authority) -> None:
    with connected(authority) as (client, server):
        client.sendall(b"hello")
        assert server.recv(100) == b"hello"
        server.sendall(b"good day")
        assert client.recv(100) == b"good day"


def test_what_comes_with_the_handshake_is_not_lost(authority: Authority) -> None:
    with connected(authority, first_words=b"M5") as (client, _server):
        assert client.recv(100) == b"M5"


def test_nothing_readable_hides_behind_a_socket_that_polls_as_empty(authority: Authority) -> None:
    with connected(authority) as (client, server):
        size = 5 * 16384 + 100  # several records
        threading.Thread(target=server.sendall, args=(b"x" * size,)).start()
        data = read(client, size)
        assert data == b"x" * size
        assert select.select([client.fileno()], [], [], 0)[0] == []
        client.settimeout(None)
        with pytest.raises(BlockingIOError):
            client.recv(100, socket.MSG_DONTWAIT)


def test_both_directions_at_once(authority: Authority) -> None:
    """Two threads on one connection, with more than its buffers hold: neither waits for the other."""
    data = os.urandom(3_000_000)
    with connected(authority) as (client, server):

        def echo() -> None:
            while piece := server.recv(65536):
                server.sendall(piece)

        echoing = threading.Thread(target=echo)
        echoing.start()
        sending = threading.Thread(target=client.sendall, args=(data,))
        sending.start()
        assert read(client, len(data)) == data
        sending.join()
        client.shutdown(socket.SHUT_WR)
        echoing.join()


def test_the_end(authority: Authority) -> None:
    with connected(authority) as (client, server):
        server.sendall(b"last words")
        server.close()
        assert client.recv(100) == b"last words"
        assert client.recv(100) == b""


def test_a_reader_returns_when_the_connection_is_shut_down(authority: Authority) -> None:
    with connected(authority) as (client, _server):
        found: list[bytes] = []
        client.settimeout(None)
        reader = threading.Thread(target=lambda: found.append(client.recv(100)))
        reader.start()
        client.shutdown(socket.SHUT_RDWR)
        reader.join(10)
        assert found == [b""]


def handshake(authority: Authority, context: ssl.SSLContext, host: str) -> None:
    """Shake hands with a server, for the host of an address."""
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_context.load_cert_chain(authority.server)
    left, right = socket.socketpair()

    def accept() -> None:
        with right:
            try:
                server_context.wrap_socket(right, server_side=True).close()
            except OSError:
                return  # the client said no

    thread = threading.Thread(target=accept)
    thread.start()
    with left:
        left.settimeout(10)
        try:
            secure = securing(context, None)
            assert secure is not None
            secure(left, Address(host, 1)).close()
        finally:
            left.close()
            thread.join()


def test_a_server_that_cannot_be_trusted(authority: Authority) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(authority, ssl.create_default_context(), "localhost")


def test_a_server_of_another_name(authority: Authority) -> None:
    handshake(authority, authority.context(), "localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match="example"):
        handshake(authority, authority.context(), "example.org")


def test_a_server_that_ends_in_the_handshake(authority: Authority) -> None:
    left, right = socket.socketpair()
    with left:
        right.close()
        with pytest.raises(OSError):
            TLSSocket(left, authority.context(), "localhost")


def test_a_name_is_checked_or_the_connection_refused(authority: Authority) -> None:
    """A Unix socket has no name: any server that the authority has signed would be taken for this one."""
    context = authority.context()
    secure = securing(context, None)
    assert secure is not None
    mine, theirs = socket.socketpair()
    with mine, theirs, pytest.raises(OSError, match="ssl_server_hostname"):
        secure(mine, Address("", 0, "/run/zeod.sock"))
