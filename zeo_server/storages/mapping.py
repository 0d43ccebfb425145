"""MappingStorage: everything in memory, all revisions, gone when the process ends.

The reference for the storage contract: short enough to be seen to be right, and what FileStorage is compared with.
"""

import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

from zeo_core.errors import POSKeyError, StorageClosedError
from zeo_core.ids import ZERO_TID, Oid, Tid, next_tid
from zeo_core.storage import Announce, WrittenGroup
from zeo_core.transaction import (
    HistoryEntry,
    PreparedTransaction,
    RecordedObject,
    RecordedTransaction,
    Revision,
    TransactionMetadata,
)
from zeo_server.storages.local import LocalStorage, check_writable

__all__ = ["MappingStorage"]


class _Logged(NamedTuple):
    """A transaction with its tid."""

    tid: Tid
    transaction: PreparedTransaction


class _Saved(NamedTuple):
    """One revision of an object."""

    tid: Tid
    data: bytes
    metadata: TransactionMetadata


class _Group(NamedTuple):
    """A written group; being in memory, it is "written" once it has its tids."""

    tids: Sequence[Tid]
    logged: Sequence[_Logged]


_tid_of = attrgetter("tid")


class MappingStorage(LocalStorage):
    """A storage in memory that keeps every revision until it is closed."""

    def __init__(self, name: str = "Mapping Storage") -> None:
        super().__init__(name)
        self._revisions: dict[Oid, list[_Saved]] = {}
        self._log: list[_Logged] = []
        self._written_tid = ZERO_TID
        self._byte_size = 0
        self._closed = False

    def load_before(self, oid: Oid, tid: Tid) -> Revision | None:
        """Return the newest revision written before `tid`, None if there was none yet; POSKeyError if unknown."""
        revisions = self._revisions_of(oid)
        # The list may grow meanwhile, at its end: one look at its length makes one answer.
        count = len(revisions)
        index = bisect_left(revisions, tid, 0, count, key=_tid_of)
        if index == 0:
            return None
        found = revisions[index - 1]
        return Revision(found.data, found.tid, revisions[index].tid if index < count else None)

    def load_serial(self, oid: Oid, tid: Tid) -> bytes:
        """Return the data that transaction `tid` wrote for `oid`; POSKeyError if it wrote none."""
        for revision in reversed(self._revisions_of(oid)):
            if revision.tid == tid:
                return revision.data
        raise POSKeyError(oid)

    def revisions(self, oid: Oid, size: int) -> list[HistoryEntry]:
        """Return up to `size` revisions, newest first; POSKeyError for an unknown oid."""
        newest_first = self._revisions_of(oid)[::-1][: max(size, 0)]
        return [HistoryEntry(tid, metadata, len(data)) for tid, data, metadata in newest_first]

    def object_count(self) -> int:
        """Return how many objects there are."""
        return len(self._revisions)

    def byte_size(self) -> int:
        """Return how many bytes of data all revisions take together."""
        return self._byte_size

    def check_room(self, byte_count: int) -> None:
        """Nothing is known about memory in advance."""

    def current_tid(self, oid: Oid) -> Tid | None:
        """Return the current revision's tid, None for an unknown oid."""
        self._check_open()
        revisions = self._revisions.get(oid)
        return revisions[-1].tid if revisions else None

    def write_group(self, transactions: Sequence[PreparedTransaction]) -> _Group:
        """Give tids."""
        self._check_open()
        check_writable(transactions)
        now_s = time.time()
        logged = []
        for transaction in transactions:
            self._written_tid = next_tid(self._written_tid, now_s)
            logged.append(_Logged(self._written_tid, transaction))
        return _Group([tid for tid, _ in logged], logged)

    def publish(self, group: WrittenGroup, announce: Announce | None = None) -> None:
        """Make a group of this storage's own visible."""
        if not isinstance(group, _Group):
            raise TypeError(f"{group!r} was not written by a MappingStorage")
        for tid, transaction in group.logged:
            self._oids.pass_by(write.oid for write in transaction.writes)
            for oid, _, data in transaction.writes:
                self._revisions.setdefault(oid, []).append(_Saved(tid, data, transaction.metadata))
                self._byte_size += len(data)
        self._log.extend(group.logged)
        self._announce([(tid, [write.oid for write in t.writes]) for tid, t in group.logged], announce)

    def transactions(self, start: Tid | None = None, stop: Tid | None = None) -> Iterator[RecordedTransaction]:
        """Walk the transactions with start <= tid <= stop; the end is fixed here, at the call."""
        self._check_open()
        first = 0 if start is None else bisect_left(self._log, start, key=_tid_of)
        end = len(self._log) if stop is None else bisect_right(self._log, stop, key=_tid_of)
        return (
            RecordedTransaction(tid, b" ", metadata=t.metadata, records=_records(tid, t))
            for tid, t in self._log[first:end]
        )

    def close(self) -> None:
        """Let go of everything."""
        self._closed = True
        self._revisions = {}
        self._log = []

    def _revisions_of(self, oid: Oid) -> list[_Saved]:
        self._check_open()
        try:
            return self._revisions[oid]
        except KeyError:
            raise POSKeyError(oid) from None

    def _check_open(self) -> None:
        if self._closed:
            raise StorageClosedError(f"{self._name} is closed")


def _records(tid: Tid, transaction: PreparedTransaction) -> list[RecordedObject]:
    return [RecordedObject(oid, tid, data, None) for oid, _, data in transaction.writes]
