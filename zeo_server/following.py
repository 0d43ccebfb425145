"""Telling this server's clients what another server committed, whose storage is served on.

The other server's client hears of it in some thread, and hands it to the loop; here, in one callback, it is shown,
noted for those who come back, and told to everybody (invariants 2 and 3).

When the other server was away and is back, what happened meanwhile is known as a whole, without the tid of each change:
nobody who stays connected could be told (lesson B11). So everybody is disconnected; they come back at once, and ask
what they missed. What arrives before it is known what was missed waits.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial

from zeo_core.errors import ClientDisconnected
from zeo_core.ids import Oid, Tid
from zeo_core.transaction import Invalidation
from zeo_core.wire.codec import Encoder
from zeo_server.commit.coordinator import Coordinator
from zeo_server.invalidation import InvalidationLog
from zeo_server.storages.relayed import RelayedStorage

__all__ = ["RETRY_S", "Following"]

_log = logging.getLogger("ZEO.StorageServer")

RETRY_S = 1.0
"""How soon it is asked again what was missed, if the other server could not be asked."""

_Missed = tuple[Tid, Sequence[Oid] | None]


class Following:
    """Hears what is committed to one storage elsewhere. `invalidate` and `invalidateCache` are for any thread."""

    def __init__(
        self, storage: RelayedStorage, log: InvalidationLog, loop: asyncio.AbstractEventLoop, name: str
    ) -> None:
        self._storage = storage
        self._log = log
        self._loop = loop
        self._name = name
        self._encoder = Encoder()
        self._coordinator: Coordinator | None = None
        self._held: list[Callable[[], None]] | None = None  # what waits until it is known what was missed
        self._reconnections = 0
        self._read_only = storage.read_only()  # as of the last connection

    def begin(self) -> None:
        """Show what there is by now, and follow from there."""
        self._storage.follow(self)
        self._log.restart(self._storage.last_tid())
        if self._storage.link.away_s():
            self._reconnected()  # it may be connecting at this very moment, too late for it to tell

    def tell(self, coordinator: Coordinator) -> None:
        """Tell the clients of `coordinator`."""
        self._coordinator = coordinator

    # -- for any thread -----------------------------------------------------------------------------------------------

    def invalidate(self, tid: Tid, oids: Sequence[Oid]) -> None:
        """Take note of a transaction on the other server."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and all clients are gone
            self._loop.call_soon_threadsafe(self._heard, Invalidation(tid, tuple(oids)))

    def in_turn(self, show: Callable[[], None]) -> None:
        """Have `show` called in the loop after all that was heard before: it shows what was committed through here."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._take_turn, show)

    def invalidateCache(self) -> None:  # noqa: N802 - ZODB's name
        """Take note that the other server was away, and is back."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._reconnected)

    # -- in the loop --------------------------------------------------------------------------------------------------

    def _heard(self, change: Invalidation) -> None:
        self._take_turn(partial(self._show, change, self._reconnections))

    def _take_turn(self, show: Callable[[], None]) -> None:
        if self._held is None:
            show()
        else:
            self._held.append(show)

    def _show(self, change: Invalidation, number: int) -> None:
        tid, oids = change
        if number != self._reconnections or tid <= self._storage.last_tid():
            return  # it was among what was missed
        self._storage.show(tid, oids)
        self._log.add(tid, oids)
        if self._coordinator is not None:
            self._coordinator.audience.tell(self._encoder.one_way("invalidateTransaction", (tid, oids)))

    def _reconnected(self) -> None:
        # What waits from an earlier connection stays: a client here waits for each of its own transactions.
        self._held = self._held or []
        self._reconnections += 1
        self._ask(self._reconnections)

    def _ask(self, number: int) -> None:
        if number == self._reconnections:
            with contextlib.suppress(RuntimeError):  # the storage is closed: the server stops
                missed = self._loop.run_in_executor(self._storage.threads, self._storage.missed)
                missed.add_done_callback(partial(self._caught_up, number))

    def _caught_up(self, number: int, future: "asyncio.Future[_Missed]") -> None:
        if future.cancelled():
            return  # the server stops
        error = future.exception()
        if number != self._reconnections:
            return  # there is a newer connection, which asks anew
        if isinstance(error, ClientDisconnected):
            self._loop.call_later(RETRY_S, self._ask, number)
            return
        if error is not None:
            _log.error("%s: what happened meanwhile was not told: %s", self._name, error)
        self._resume(*((self._storage.link.known_tid(), None) if error is not None else future.result()))

    def _resume(self, tid: Tid, oids: Sequence[Oid] | None) -> None:
        before = self._storage.last_tid()
        was_read_only, self._read_only = self._read_only, self._storage.read_only()
        if oids is None or tid != before:
            self._storage.show(tid, oids)
            if oids is None:
                self._log.restart(tid)
            else:
                self._log.add(tid, oids)
            self._have_clients_verify()
        elif not (was_read_only and self._read_only):
            # Writers keep oids that they were given, and the other server may have been restarted (lesson B25). Or it
            # is a server that takes no writes, or takes some at last: who may write is decided when clients register.
            self._have_clients_verify()
        changed = "nothing is known of" if oids is None else f"{len(oids)} objects were changed in"
        _log.info("%s: back at %s: %s the time between", self._name, self._storage.link.address(), changed)
        held, self._held = self._held or [], None
        for show in held:
            show()

    def _have_clients_verify(self) -> None:
        if self._coordinator is not None:
            for member in self._coordinator.audience.members():
                member.disconnect(f"the connection to {self._storage.link.address()} was lost meanwhile")
