"""A storage of another server, as a server needs it that serves it to clients of its own: beyond the storage contract.

Rules of order:

1. What the sink (`register_sink`) is told of, by any thread, is in the order in which the other server committed it.
2. What `load_cached` and `load_before` answer may be newer than what the sink was told of last; never older.
3. The server may be lost and come back. The sink's `invalidateCache` is called then, once there is a new connection;
   `changes_since` tells what happened meanwhile.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from zeo_core.ids import Oid, Tid
from zeo_core.storage import InvalidationSink, Iterates, Loads
from zeo_core.transaction import Revision, UndoEntry

__all__ = ["RemoteStorage", "Upstream"]


class Upstream(Protocol):
    """The way to the other server. Only `changes_since` waits for it; ClientDisconnected."""

    def load_cached(self, oid: Oid, tid: Tid) -> Revision | None:
        """Return the newest revision before `tid` out of memory, or raise BlockingIOError."""

    def changes_since(self, tid: Tid) -> tuple[Tid, Sequence[Oid]] | None:
        """Return the server's last tid and each oid that changed after `tid`, None if it cannot tell."""

    def known_tid(self) -> Tid:
        """Return the last transaction that has arrived from there."""

    def address(self) -> str:
        """Return the address of the server that is connected, or was last; of all, if none was yet."""

    def away_s(self) -> float:
        """Return for how many seconds there has been no connection, 0.0 if there is one."""


@runtime_checkable
class RemoteStorage(Loads, Iterates, Protocol):
    """The storage itself, as ClientStorage is one."""

    def upstream(self) -> Upstream:
        """Return the way to its server."""

    def register_sink(self, sink: InvalidationSink) -> None:
        """Name who hears of what is committed on the other server."""

    def prefetch(self, oids: Iterable[Oid], tid: Tid, depth: int = 0, max_bytes: int | None = None) -> None:
        """Load the states before `tid` of many objects together."""

    def undo_log(self) -> Iterator[UndoEntry]:
        """Walk the transactions that may be undone, newest first."""

    def record_iternext(self, next: Oid | None = None) -> tuple[Oid, Tid, bytes, Oid | None]:  # noqa: A002 - ZODB's
        """Return (oid, serial, data, following oid or None) of the first object from oid `next` on."""

    def pack(self, time_s: float, referencesf: object = None, *, wait: bool = True) -> None:
        """Have the other server pack."""

    def cache_stats(self) -> dict[str, Any]:
        """Return the cache's figures."""
