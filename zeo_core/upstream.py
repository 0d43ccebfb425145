"""A storage of another server, as a server needs it that serves it to clients of its own: beyond the storage contract.

Rules of order:

1. What the sink (`register_sink`) is told of, by any thread, is in the order in which the other server committed it.
2. What `load_cached` and `load_before` answer may be newer than what the sink was told of last; never older.
3. The server may be lost and come back. The sink's `invalidateCache` is called then, once there is a new connection;
   `changes_since` tells what happened meanwhile.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from zeo_core.commit_marker import marker_of
from zeo_core.ids import Oid, Tid
from zeo_core.storage import Iterates, Transacts, TransactsBlobs
from zeo_core.transaction import Revision, TransactionMetadata, UndoEntry

__all__ = ["RemoteBlobStorage", "RemoteStorage", "Upstream", "UpstreamConflict", "UpstreamTransaction", "UpstreamVote"]


class UpstreamTransaction:
    """A transaction that is passed on, as the key to it and with what is said of it. Its commit marker goes along."""

    def __init__(self, metadata: TransactionMetadata) -> None:
        self.user = metadata.user
        self.description = metadata.description
        self.extension = self.extension_bytes = metadata.extension
        self.marker = marker_of(metadata.extension)


class UpstreamConflict(NamedTuple):
    """An object that was changed since: the serials committed and read, and the committed data if they were told."""

    oid: Oid
    committed: Tid
    read: Tid
    committed_data: bytes | None


class UpstreamVote(NamedTuple):
    """What the other server's vote came to: the oids that it changed, and the conflicts that are to be resolved."""

    changed: frozenset[Oid]
    conflicts: Sequence[UpstreamConflict]


class Upstream(Protocol):
    """The way to the other server. What waits for it is for threads, and may raise ClientDisconnected."""

    def load_cached(self, oid: Oid, tid: Tid) -> Revision | None:
        """Return the newest revision before `tid` out of memory, or raise BlockingIOError."""

    def changes_since(self, tid: Tid) -> tuple[Tid, Sequence[Oid]] | None:
        """Return the server's last tid and each oid that changed after `tid`, None if it cannot tell. Waits."""

    def new_oids(self, count: int) -> list[Oid]:
        """Return fresh oids, `count` of them or as many as the server gives at once. Waits."""

    def vote(
        self, transaction: UpstreamTransaction, *, resolves: bool, again: Sequence[tuple[Oid, Tid, bytes]] = ()
    ) -> UpstreamVote:
        """Give the server what is staged and have it vote; ConflictError and all that a vote may raise. Waits.

        With `resolves` there may be conflicts instead; `again` has what was made of them: oid, the committed serial,
        and data. No class is imported here.
        """

    def keeps_markers(self) -> bool:
        """Tell whether the server knows transactions by their commit markers."""

    def outcome(self, marker: bytes, since: Tid) -> Tid | None:
        """Return the tid of the transaction with that marker after `since`, None if there is none. Waits."""

    def memory_stats(self) -> Mapping[str, int]:
        """Return the figures of the cache in memory: hits, misses, bytes and others."""

    def known_tid(self) -> Tid:
        """Return the last transaction that has arrived from there."""

    def address(self) -> str:
        """Return the address of the server that is connected, or was last; of all, if none was yet."""

    def connection(self) -> object:
        """Return what stands for the present connection, None if there is none."""

    def away_s(self) -> float:
        """Return for how many seconds there has been no connection, 0.0 if there is one."""


@runtime_checkable
class RemoteStorage(Transacts, Iterates, Protocol):
    """The storage itself, as ClientStorage is one."""

    def upstream(self) -> Upstream:
        """Return the way to its server."""

    def tpc_begin(self, transaction: Any, tid: Tid | None = None, status: str | bytes = b" ") -> None:
        """Begin a transaction, one of another storage with its tid and status if these are given."""

    def deleteObject(self, oid: Oid, serial: Tid, transaction: Any) -> None:  # noqa: N802 - ZODB's name
        """Add an object's deletion."""

    def restore(
        self, oid: Oid, serial: Tid, data: bytes | None, version: str, prev_txn: Tid | None, transaction: Any
    ) -> None:
        """Add an object of another storage's transaction."""

    def undo(self, transaction_id: bytes, transaction: Any) -> object:
        """Take back a transaction, named as the undo log names it."""

    def prefetch(self, oids: Iterable[Oid], tid: Tid, depth: int = 0, max_bytes: int | None = None) -> None:
        """Load the states before `tid` of many objects together."""

    def undo_log(self) -> Iterator[UndoEntry]:
        """Walk the transactions that may be undone, newest first."""

    def record_iternext(self, next: Oid | None = None) -> tuple[Oid, Tid, bytes, Oid | None]:  # noqa: A002 - ZODB's
        """Return (oid, serial, data, following oid or None) of the first object from oid `next` on."""

    def pack(self, time_s: float, referencesf: object = None, *, wait: bool = True) -> None:
        """Have the other server pack."""


@runtime_checkable
class RemoteBlobStorage(RemoteStorage, TransactsBlobs, Protocol):
    """One that has blobs."""

    def restoreBlob(  # noqa: N802 - ZODB's name
        self, oid: Oid, serial: Tid, data: bytes, blobfilename: str, prev_txn: Tid | None, transaction: Any
    ) -> None:
        """Add an object of another storage's transaction and its blob, which is taken over."""
