"""What has changed in the database, as an asynchronous iterator."""

import asyncio
import contextlib
import threading
from collections.abc import Collection
from typing import NamedTuple, Self

from zeo_client.snapshot import MAX_PENDING, InvalidationHub
from zeo_core.ids import ZERO_TID, Oid, Tid

__all__ = ["Change", "Changes"]


class Change(NamedTuple):
    """What was committed since the last one: up to which transaction, and what it replaced.

    `oids` is None when any object may have changed: after a time without the server, or when very many have.
    """

    tid: Tid
    oids: frozenset[Oid] | None


class Changes:
    """Yields a Change whenever something was committed, here or elsewhere, from its making on until `close`.

    A transaction that is begun after a Change sees it. What comes while nobody asks is put together into one Change:
    a slow reader falls behind in detail, never in time, and never costs memory without bound.

    Made by `DB.changes()`, in the event loop; one task reads it.
    """

    def __init__(self, hub: InvalidationHub) -> None:
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()  # notes come from the threads that read from the server
        self._tid = ZERO_TID
        self._oids: set[Oid] | None = set()
        self._news = False
        self._something = asyncio.Event()
        self._closed = False
        hub.register(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        while not self._closed:
            change = self._take()
            if change is not None:
                return change
            await self._something.wait()
        raise StopAsyncIteration

    def _take(self) -> Change | None:
        with self._lock:
            self._something.clear()
            if not self._news:
                return None
            oids, self._oids, self._news = self._oids, set(), False
            return Change(self._tid, None if oids is None else frozenset(oids))

    def close(self) -> None:
        """End the iteration; what was not yielded is dropped. To be called in the event loop."""
        self._hub.unregister(self)
        self._closed = True
        self._something.set()

    # -- for the hub ----------------------------------------------------------------------------------------------

    def note(self, tid: Tid, oids: Collection[Oid]) -> None:
        """Take note of a transaction."""
        with self._lock:
            self._tid = max(self._tid, tid)
            if self._oids is not None:
                self._oids.update(oids)
                if len(self._oids) > MAX_PENDING:
                    self._oids = None
            self._announce()

    def note_everything(self) -> None:
        """Take note that anything may have changed."""
        with self._lock:
            self._oids = None
            self._announce()

    def _announce(self) -> None:
        if not self._news:
            self._news = True
            # A loop that was closed with this in it has nobody left who asks.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._something.set)
