"""The way to a server: a socket of the first way to an address that works, TLS if it is wanted, and the greeting."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from zeo_client.transport.address import Address
from zeo_client.transport.channel import Channel, OnPush
from zeo_client.transport.tls import TLSSocket
from zeo_core.errors import ClientDisconnected

__all__ = ["CLOSED_HERE", "CONNECT_TIMEOUT_S", "DIAL_TIMEOUT_S", "TCP_USER_TIMEOUT_MS", "Dialler", "Secure"]

DIAL_TIMEOUT_S = 10.0
"""How long a single step of connecting and verifying may take before the next address is tried."""

CONNECT_TIMEOUT_S = 2.0
"""The same for the connection alone, where other addresses wait for their turn: a host whose power is gone answers
nothing at all, and calls wait only some seconds for a server."""

CLOSED_HERE = "closed by this client"

TCP_USER_TIMEOUT_MS = 60_000
"""Sent data that stays unacknowledged this long means that the peer is gone (half-open connections)."""

Secure = Callable[[socket.socket, Address], TLSSocket]
"""Shakes hands with the server at an address on a connected socket; OSError."""


class Dialler:
    """Makes greeted channels, one after the other, in one thread; `close` comes from any."""

    def __init__(self, on_push: OnPush, max_message_bytes: int, secure: Secure | None = None) -> None:
        """`secure` puts a new connection to an address under TLS."""
        self._on_push = on_push
        self._max_message_bytes = max_message_bytes
        self._secure = secure
        self._lock = threading.Lock()
        self._closed = False
        self._end_waiting: Callable[[], object] = _nothing  # ends what the dialling thread waits for

    def dial(self, address: Address, *, others_wait: bool = False) -> Channel:
        """Return a greeted channel under a timeout for each step; OSError, ClientDisconnected.

        Whoever waits for a call on it is ended by `close`, too, until the next channel is made. `others_wait` says that
        other addresses are to be tried after this one.
        """
        channel = Channel(self._connect(address, others_wait), address, self._on_push, self._max_message_bytes)
        try:
            self._now_waits_for(address, partial(channel.fail, CLOSED_HERE))
            channel.greet()
        except BaseException:
            channel.close()
            raise
        return channel

    def close(self) -> None:
        """End what is waited for, and every later attempt. Any thread may, at any moment, repeatedly."""
        with self._lock:
            self._closed = True
            end_waiting = self._end_waiting
        end_waiting()

    def _connect(self, address: Address, others_wait: bool) -> socket.socket | TLSSocket:
        """Return a connected socket of the first way to `address` that works; OSError of the last one."""
        fault: OSError = OSError("the name has no address")
        for family, where in _ways(address):
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(min(CONNECT_TIMEOUT_S, DIAL_TIMEOUT_S) if others_wait else DIAL_TIMEOUT_S)
                self._now_waits_for(address, partial(_shut, sock))
                sock.connect(where)
                sock.settimeout(DIAL_TIMEOUT_S)
                if family != socket.AF_UNIX:
                    _tune(sock)
                connected = sock if self._secure is None else self._secure(sock, address)
            except OSError as error:
                sock.close()
                fault = error
            except BaseException:
                sock.close()
                raise
            else:
                return connected
        raise fault

    def _now_waits_for(self, address: Address, end_waiting: Callable[[], object]) -> None:
        """Tell `close` how to end what this thread is about to wait for; ClientDisconnected if it has come already."""
        with self._lock:
            if self._closed:
                raise ClientDisconnected(str(address), CLOSED_HERE)
            self._end_waiting = end_waiting


def _nothing() -> None:
    """End nothing: the thread does not wait for a server."""


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _ways(address: Address) -> Iterator[tuple[int, Any]]:
    """Walk the (family, socket address) pairs that an address stands for."""
    if address.path:
        yield socket.AF_UNIX, address.path
        return
    for family, _, _, _, where in socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM):
        yield family, where


def _tune(sock: socket.socket) -> None:
    """Send small messages at once; and show signs of life, so that a peer that vanished is noticed."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS)
