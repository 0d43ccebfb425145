"""What keeps a client connected: one background thread that connects, verifies, attends and connects again.

    DISCONNECTED --dial--> CONNECTING --greeted--> VERIFYING --verified--> READY
         ^-------------------- lost -----------------------------------------'       any --close--> CLOSED

Only a READY channel is given to callers (lesson B10: nothing is served before the cache is verified). How to verify is
the storage's business: it is called with the new channel, in the background thread, before anybody else can use it.
"""

import contextlib
import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from functools import partial
from typing import Any

from zeo_client.transport.address import Address
from zeo_client.transport.channel import Channel, OnPush
from zeo_client.transport.tls import TLSSocket
from zeo_core.errors import AccessDeniedError, ClientDisconnected, ReadOnlyError
from zeo_core.wire.session import MESSAGE_MAX_BYTES

__all__ = [
    "BACKOFF_FIRST_S",
    "BACKOFF_MAX_S",
    "CLOSED_HERE",
    "CLOSE_TIMEOUT_S",
    "DIAL_TIMEOUT_S",
    "TCP_USER_TIMEOUT_MS",
    "TRANSITIONS",
    "LinkEvent",
    "LinkState",
    "Secure",
    "Supervisor",
]

logger = logging.getLogger(__name__)

DIAL_TIMEOUT_S = 10.0
"""How long a single step of connecting and verifying may take before the next address is tried."""

CLOSE_TIMEOUT_S = 2.0
"""How long `close` waits for the background thread, which may be in the middle of dialling; it ends by itself."""

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.05, 1.0
"""The pause between rounds of attempts doubles from the first to the second, shortened at random by up to a half so
that the clients of a server that comes back do not arrive all at once. A call waits some seconds for a server that is
restarted: a longer pause would use them up."""

CLOSED_HERE = "closed by this client"

TCP_USER_TIMEOUT_MS = 60_000
"""Sent data that stays unacknowledged this long means that the peer is gone (half-open connections)."""


Secure = Callable[[socket.socket, Address], TLSSocket]
"""Shakes hands with the server at an address on a connected socket; OSError."""


class LinkState(Enum):
    """Where the link to the server stands."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    VERIFYING = "verifying"
    READY = "ready"
    CLOSED = "closed"


class LinkEvent(Enum):
    """What moves it."""

    DIAL = "dial"
    GREETED = "greeted"
    VERIFIED = "verified"
    LOST = "lost"
    CLOSE = "close"


TRANSITIONS: Mapping[LinkState, Mapping[LinkEvent, LinkState]] = {
    LinkState.DISCONNECTED: {LinkEvent.DIAL: LinkState.CONNECTING, LinkEvent.CLOSE: LinkState.CLOSED},
    LinkState.CONNECTING: {
        LinkEvent.GREETED: LinkState.VERIFYING,
        LinkEvent.LOST: LinkState.DISCONNECTED,
        LinkEvent.CLOSE: LinkState.CLOSED,
    },
    LinkState.VERIFYING: {
        LinkEvent.VERIFIED: LinkState.READY,
        LinkEvent.LOST: LinkState.DISCONNECTED,
        LinkEvent.CLOSE: LinkState.CLOSED,
    },
    LinkState.READY: {LinkEvent.LOST: LinkState.DISCONNECTED, LinkEvent.CLOSE: LinkState.CLOSED},
    LinkState.CLOSED: {LinkEvent.LOST: LinkState.CLOSED, LinkEvent.CLOSE: LinkState.CLOSED},
}


class Supervisor:
    """Keeps one verified channel to the first of `addresses` that serves.

    `verify(channel)` runs before a channel is given out. A ValueError, ReadOnlyError or AccessDeniedError from it is
    the server's refusal: once every address has refused, it is final for who waits for the first connection
    (`wait_ready`). Everything else is tried again. `outage_s` bounds how long a call that comes while the server is
    away waits for it to come back, counted from the moment it was lost.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        verify: Callable[[Channel], None],
        on_push: OnPush,
        outage_s: float,
        max_message_bytes: int = MESSAGE_MAX_BYTES,
        secure: Secure | None = None,
    ) -> None:
        """`secure` puts a new connection to an address under TLS."""
        self.state = LinkState.DISCONNECTED
        self._addresses = addresses
        self._verify = verify
        self._on_push = on_push
        self._outage_s = outage_s
        self._secure = secure
        self._max_message_bytes = max_message_bytes
        self._ready: Channel | None = None
        self._end_waiting: Callable[[], object] = _nothing  # ends what the background thread waits for, see close
        self._changed = threading.Condition()
        self._lost_at = time.monotonic()
        self._address = ", ".join(map(str, addresses))
        self._reason = "not connected yet"
        self._refusal: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"zeod link to {addresses[0]}", daemon=True)

    def start(self) -> None:
        """Begin to connect, in the background."""
        self._thread.start()

    def channel(self) -> Channel:
        """Return the channel to call on; ClientDisconnected when there is none within the time of grace."""
        channel = self._ready
        if channel is not None and channel.lost is None:
            return channel
        return self._await_ready()

    def current(self) -> Channel | None:
        """Return the channel that is in use now, None while there is none; it may be lost without being noticed yet."""
        return self._ready

    def address(self) -> str:
        """Return the address of the last connection, of all there may be if there was none yet."""
        return self._address

    def away_s(self) -> float:
        """Return for how many seconds there has been no connection, 0.0 if there is one."""
        return 0.0 if self._ready is not None else time.monotonic() - self._lost_at

    def wait_ready(self, timeout_s: float) -> None:
        """Wait for the first connection; raises the server's refusal, or ClientDisconnected after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._ready is None:
                if self.state is LinkState.CLOSED:
                    raise self._away(self._reason)
                if self._refusal is not None:
                    raise self._refusal
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise self._away(f"no connection within {timeout_s:g} s: {self._reason}")

    def close(self) -> None:
        """End the link for good; waiting calls raise ClientDisconnected. Any thread may, at any moment, repeatedly."""
        with self._changed:
            self._step(LinkEvent.CLOSE, CLOSED_HERE)
            end_waiting = self._end_waiting
        end_waiting()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_TIMEOUT_S)

    # -- the background thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause_s = BACKOFF_FIRST_S
        while self.state is not LinkState.CLOSED:
            channel = self._dial_round()
            if channel is None:
                self._sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter needs no secrecy
                pause_s = min(pause_s * 2, BACKOFF_MAX_S)
                continue
            pause_s = BACKOFF_FIRST_S
            try:
                channel.attend()
            except Exception:  # not foreseen; the link must come back all the same
                logger.exception("%s: cannot attend to the connection", channel.address)
                channel.fail("cannot attend to the connection")
            self._drop(channel)

    def _dial_round(self) -> Channel | None:
        """Try each address once; return a verified channel, made READY, or None."""
        reasons: list[str] = []
        refusals: list[Exception] = []
        for address in self._addresses:
            self._move(LinkEvent.DIAL, None)
            if self.state is LinkState.CLOSED:
                return None
            try:
                return self._dial(address)
            except ClientDisconnected as error:
                reasons.append(f"{address}: {error.reason}")
            except OSError as error:
                reasons.append(f"{address}: {error}")
            except (ValueError, ReadOnlyError, AccessDeniedError) as error:
                refusals.append(error)
                reasons.append(f"{address}: {error}")
            except Exception as error:
                logger.exception("%s: cannot verify", address)
                reasons.append(f"{address}: {type(error).__name__}: {error}")
            self._move(LinkEvent.LOST, "; ".join(reasons))
        if len(refusals) == len(self._addresses):
            with self._changed:
                self._refusal = refusals[0]
                self._changed.notify_all()
        return None

    def _dial(self, address: Address) -> Channel:
        sock = self._connect(address)
        channel = Channel(sock, address, self._on_push, self._max_message_bytes)
        try:
            self._now_waits_for(partial(channel.fail, CLOSED_HERE))
            channel.greet()
            self._move(LinkEvent.GREETED, None)
            self._verify(channel)
            channel.set_timeout(None)
        except BaseException:
            channel.close()
            raise
        with self._changed:
            if self.state is not LinkState.CLOSED:
                self._ready, self._refusal, self._address = channel, None, str(address)
                self._step(LinkEvent.VERIFIED, None)
        logger.info("connected to %s", address)
        return channel

    def _connect(self, address: Address) -> socket.socket | TLSSocket:
        """Return a connected socket of the first way to `address` that works; OSError of the last one."""
        fault: OSError = OSError("the name has no address")
        for family, where in _ways(address):
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(DIAL_TIMEOUT_S)
                self._now_waits_for(partial(_shut, sock))
                sock.connect(where)
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

    def _now_waits_for(self, end_waiting: Callable[[], object]) -> None:
        """Tell `close` how to end what this thread is about to wait for; ClientDisconnected if it has come already."""
        with self._changed:
            if self.state is LinkState.CLOSED:
                raise self._away(CLOSED_HERE)
            self._end_waiting = end_waiting

    def _drop(self, channel: Channel) -> None:
        logger.info("disconnected from %s: %s", channel.address, channel.lost)
        with self._changed:
            self._ready = None
            self._lost_at = time.monotonic()
            self._step(LinkEvent.LOST, f"{channel.lost}")
        channel.close()

    # -- state ----------------------------------------------------------------------------------------------------

    def _move(self, event: LinkEvent, reason: str | None) -> None:
        with self._changed:
            self._step(event, reason)

    def _step(self, event: LinkEvent, reason: str | None) -> None:
        if self.state is not LinkState.CLOSED:
            self.state = TRANSITIONS[self.state][event]
            self._reason = reason if reason is not None else self._reason
        self._changed.notify_all()

    def _sleep(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.state is LinkState.CLOSED, seconds)

    def _await_ready(self) -> Channel:
        with self._changed:
            while True:
                channel = self._ready
                if channel is not None and channel.lost is None:
                    return channel
                # A channel that is lost but still here: the background thread has yet to notice, and to set the clock.
                left = self._outage_s if channel is not None else self._lost_at + self._outage_s - time.monotonic()
                if self.state is LinkState.CLOSED or left <= 0:
                    raise self._away(self._reason)
                self._changed.wait(left)

    def _away(self, reason: str) -> ClientDisconnected:
        return ClientDisconnected(", ".join(map(str, self._addresses)), reason)


def _nothing() -> None:
    """End nothing: the background thread waits for nothing but the condition."""


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
