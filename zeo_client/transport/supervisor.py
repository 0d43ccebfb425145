"""What keeps a client connected: one background thread that connects, verifies, attends and connects again.

    DISCONNECTED --dial--> CONNECTING --greeted--> VERIFYING --verified--> READY
         ^-------------------- lost -----------------------------------------'       any --close--> CLOSED

Only a READY channel is given to callers (lesson B10: nothing is served before the cache is verified). How to verify is
the storage's business: it is called with the new channel, in the background thread, before anybody else can use it.

Of several servers, the first that serves is taken. A client that wants to write may do with one that does not let it,
a second best: then a second thread looks for a better one (`transport.seeker`). Going over to it is nothing but losing
the connection in good order and connecting again: one channel at a time feeds the cache, and each is verified.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from zeo_client.transport.address import Address
from zeo_client.transport.attendant import TICK_S
from zeo_client.transport.channel import Channel, OnPush
from zeo_client.transport.dialling import CLOSED_HERE, Dialler, Secure
from zeo_client.transport.pauses import BACKOFF, SEEKING, Pauses, shortened
from zeo_client.transport.seeker import Seeker
from zeo_core.errors import AccessDeniedError, ClientDisconnected, ReadOnlyError
from zeo_core.wire.session import MESSAGE_MAX_BYTES

__all__ = [
    "CLOSE_TIMEOUT_S",
    "DRAIN_TIMEOUT_S",
    "TRANSITIONS",
    "LinkEvent",
    "LinkState",
    "OnConnected",
    "SecondBest",
    "Supervisor",
]

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 2.0
"""How long `close` waits for a background thread, which may be in the middle of dialling; it ends by itself."""

DRAIN_TIMEOUT_S = 2.0
"""How long calls under way may take to end before a channel is given up for a better one."""

OnConnected = Callable[[Channel], None]


class SecondBest(NamedTuple):
    """What to do with servers that refuse with ReadOnlyError: once no other serves, they are better than none."""

    verify: OnConnected
    """As the supervisor's `verify`, but asking for less."""
    probe: OnConnected
    """Asks for all again, on a channel that is used for nothing else; ReadOnlyError if the server still refuses."""


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
        verify: OnConnected,
        on_push: OnPush,
        outage_s: float,
        max_message_bytes: int = MESSAGE_MAX_BYTES,
        secure: Secure | None = None,
        second_best: SecondBest | None = None,
        backoff: Pauses = BACKOFF,
        seeking: Pauses = SEEKING,
    ) -> None:
        """`secure` puts a new connection to an address under TLS; `second_best` says what to do with who refuses."""
        self.state = LinkState.DISCONNECTED
        self._addresses = addresses
        self._verify = verify
        self._outage_s = outage_s
        self._second_best = second_best
        self._backoff = backoff
        self._dialler = Dialler(on_push, max_message_bytes, secure)
        self._ready: Channel | None = None
        self._inferior: Channel | None = None  # the channel in use, if it is a second-best one
        self._better: Address | None = None  # where the seeker found what was wanted
        self._changed = threading.Condition()
        self._lost_at, self._lost_when = time.monotonic(), ""
        self._address = ", ".join(map(str, addresses))
        self._reason = "not connected yet"
        self._faults: dict[Address, str] = {}  # what was wrong with each, the last time that it was tried
        self._refusal: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"zeod link to {addresses[0]}", daemon=True)
        self._seeker: Seeker | None = None
        if second_best is not None:
            dialler = Dialler(_unheard, max_message_bytes, secure)
            self._seeker = Seeker(dialler, second_best.probe, self._next_round, self._go_over, seeking)

    def start(self) -> None:
        """Begin to connect, in the background."""
        self._thread.start()
        if self._seeker is not None:
            self._seeker.start()

    def channel(self) -> Channel:
        """Return the channel to call on; ClientDisconnected when there is none within the time of grace."""
        channel = self._ready
        if channel is not None and channel.lost is None:
            return channel
        return self._await_ready()

    def best_channel(self) -> Channel:
        """Return a channel that is no second best; ClientDisconnected when there is none within that time from now."""
        deadline = time.monotonic() + self._outage_s
        with self._changed:
            while (channel := self._ready) is None or channel is self._inferior or channel.lost is not None:
                left = deadline - time.monotonic()
                if self.state is LinkState.CLOSED or left <= 0:
                    raise self._away(self._reason)
                self._changed.wait(left)
            return channel

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

    def use_addresses(self, addresses: Sequence[Address]) -> None:
        """Look for a server at these addresses from now on. The one that serves stays, also if it is none of them."""
        with self._changed:
            self._addresses = addresses
            self._changed.notify_all()

    def close(self) -> None:
        """End the link for good; waiting calls raise ClientDisconnected. Any thread may, at any moment, repeatedly."""
        with self._changed:
            self._step(LinkEvent.CLOSE, CLOSED_HERE)
        self._dialler.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_TIMEOUT_S)
        if self._seeker is not None:
            self._seeker.close(CLOSE_TIMEOUT_S)

    # -- the background thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause_s = self._backoff.first_s
        while self.state is not LinkState.CLOSED:
            addresses = self._addresses
            channel = self._dial_round(self._in_order(addresses))
            if channel is None:
                self._sleep(pause_s, addresses)
                pause_s = self._backoff.longer(pause_s)
                continue
            pause_s = self._backoff.first_s
            try:
                channel.attend()
            except Exception:  # not foreseen; the link must come back all the same
                logger.exception("%s: cannot attend to the connection", channel.address)
                channel.fail("cannot attend to the connection")
            self._drop(channel)

    def _in_order(self, addresses: Sequence[Address]) -> list[Address]:
        """Return the addresses in the order in which they are to be tried: first where the seeker was welcome."""
        better, self._better = self._better, None
        return sorted(addresses, key=lambda address: address != better)

    def _dial_round(self, addresses: Sequence[Address]) -> Channel | None:
        """Try each address once; return a verified channel, made READY, or None."""
        attempt = _Round(len(addresses) > 1)
        for address in addresses:
            channel = self._try(address, self._verify, attempt)
            if channel is not None or self.state is LinkState.CLOSED:
                return channel
        if self._second_best is not None:
            for address in attempt.read_only:
                channel = self._try(address, self._second_best.verify, attempt)
                if channel is not None:
                    logger.warning("%s takes no writes; it is used until a server is found that does", address)
                    return channel
        if len(attempt.refusals) >= len(addresses):
            with self._changed:
                self._refusal = attempt.refusals[0]
                self._changed.notify_all()
        return None

    def _try(self, address: Address, verify: OnConnected, attempt: "_Round") -> Channel | None:
        """Try an address; note in `attempt` why not."""
        self._move(LinkEvent.DIAL, None)
        if self.state is LinkState.CLOSED:
            return None
        try:
            return self._dial(address, verify, attempt.several)
        except ClientDisconnected as error:
            reason = error.reason
        except OSError as error:
            reason = str(error)
        except (ValueError, ReadOnlyError, AccessDeniedError) as error:
            if isinstance(error, ReadOnlyError) and self._second_best is not None and verify is self._verify:
                attempt.read_only.append(address)
            else:
                attempt.refusals.append(error)
            reason = str(error)
        except Exception as error:
            logger.exception("%s: cannot verify", address)
            reason = f"{type(error).__name__}: {error}"
        self._faults[address] = f"{address}: {reason}"
        self._move(LinkEvent.LOST, "; ".join(self._faults[each] for each in self._addresses if each in self._faults))
        return None

    def _dial(self, address: Address, verify: OnConnected, others_wait: bool) -> Channel:
        channel = self._dialler.dial(address, others_wait=others_wait)
        try:
            self._move(LinkEvent.GREETED, None)
            verify(channel)
            channel.set_timeout(None)
        except BaseException:
            channel.close()
            raise
        with self._changed:
            if self.state is not LinkState.CLOSED:
                self._ready, self._refusal, self._address = channel, None, str(address)
                self._inferior = None if verify is self._verify else channel  # the seeker begins to look
                self._step(LinkEvent.VERIFIED, None)
        logger.info("connected to %s", address)
        return channel

    def _drop(self, channel: Channel) -> None:
        logger.info("disconnected from %s: %s", channel.address, channel.lost)
        with self._changed:
            self._ready = self._inferior = None
            self._faults = {}
            self._lost_at, self._lost_when = time.monotonic(), channel.lost_when
            self._step(LinkEvent.LOST, f"{channel.lost}")
        channel.close()

    # -- going over to a better server ----------------------------------------------------------------------------

    def _next_round(self, pause_s: float) -> Sequence[Address]:
        """Wait while there is nothing better to look for, and for a pause; return the addresses, none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self.state is LinkState.CLOSED or self._inferior is not None)
        self._sleep(pause_s, self._addresses)
        return () if self.state is LinkState.CLOSED else self._addresses

    def _go_over(self, better: Address) -> None:
        """Give the channel up: new calls wait for the next one, those under way have some time to end on this one."""
        with self._changed:
            channel, self._inferior = self._inferior, None
            if channel is None or self._ready is not channel:
                return
            self._ready, self._better = None, better
            self._lost_at, self._reason = time.monotonic(), f"going over to {better}"
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        while channel.pending_calls() and channel.lost is None and time.monotonic() < deadline:
            time.sleep(TICK_S)
        logger.info("going over from %s to %s, which takes writes", channel.address, better)
        channel.fail(f"this client went over to {better}, which takes writes")

    # -- state ----------------------------------------------------------------------------------------------------

    def _move(self, event: LinkEvent, reason: str | None) -> None:
        with self._changed:
            self._step(event, reason)

    def _step(self, event: LinkEvent, reason: str | None) -> None:
        if self.state is not LinkState.CLOSED:
            self.state = TRANSITIONS[self.state][event]
            self._reason = reason if reason is not None else self._reason
        self._changed.notify_all()

    def _sleep(self, pause_s: float, tried: Sequence[Address]) -> None:
        """Pause between two rounds; no longer once there are other addresses to try, or none any more."""
        with self._changed:
            self._changed.wait_for(
                lambda: self.state is LinkState.CLOSED or self._addresses is not tried, shortened(pause_s)
            )

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
        return ClientDisconnected(", ".join(map(str, self._addresses)), reason, self._lost_when)


class _Round:
    """What a round of attempts has found out so far."""

    def __init__(self, several: bool) -> None:
        self.several = several
        self.refusals: list[Exception] = []
        self.read_only: list[Address] = []


def _unheard(_channel: Channel, _method: str, _args: tuple[object, ...]) -> None:
    """Take no notice: a server tells all clients that are registered what changes, those that only ask, too."""
