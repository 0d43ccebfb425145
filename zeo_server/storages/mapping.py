"""MappingStorage: everything in memory, all revisions, gone when the process ends.

The reference for the storage contract: short enough to be seen to be right, and what FileStorage is compared with.
"""

import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

from zeo_core.errors import POSKeyError, StorageClosedError
from zeo_core.ids import ZERO_TID, Oid, Tid
from zeo_core.storage import Announce, WrittenGroup
from zeo_core.transaction import (
    HistoryEntry,
    PreparedTransaction,
    RecordedObject,
    RecordedTransaction,
    Revision,
    TransactionMetadata,
    UndoEntry,
)
from zeo_server.storages.local import check_writable, tid_for
from zeo_server.storages.logged import LoggedStorage

__all__ = ["MappingStorage"]


class _Logged(NamedTuple):
    """A transaction with its tid."""

    tid: Tid
    transaction: PreparedTransaction


class _Saved(NamedTuple):
    """One revision of an object; without data, the end of its existence."""

    tid: Tid
    data: bytes | None
    data_tid: Tid | None
    metadata: TransactionMetadata


class _Group(NamedTuple):
    """A written group; being in memory, it is "written" once it has its tids."""

    tids: Sequence[Tid]
    logged: Sequence[_Logged]


_tid_of = attrgetter("tid")


class MappingStorage(LoggedStorage):
    """A storage in memory that keeps every revision until it is closed."""

    def __init__(self, name: str = "Mapping Storage") -> None:
        super().__init__(name)
        self._revisions: dict[Oid, list[_Saved]] = {}
        self._log: list[_Logged] = []
        self._sorted_oids: list[Oid] = []
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
        if found.data is None:
            raise POSKeyError(oid)
        return Revision(found.data, found.tid, revisions[index].tid if index < count else None)

    def load_serial(self, oid: Oid, tid: Tid) -> bytes:
        """Return the data that transaction `tid` wrote for `oid`; POSKeyError if it wrote none."""
        self._check_open()
        saved = self._saved_at(oid, tid)
        if saved is None or saved.data is None:
            raise POSKeyError(oid)
        return saved.data

    def revisions(self, oid: Oid, size: int) -> list[HistoryEntry]:
        """Return up to `size` revisions, newest first; POSKeyError for an unknown oid."""
        newest_first = self._revisions_of(oid)[::-1][: max(size, 0)]
        return [HistoryEntry(saved.tid, saved.metadata, len(saved.data or b"")) for saved in newest_first]

    def object_count(self) -> int:
        """Return how many objects there are, those deleted included."""
        return len(self._revisions)

    def byte_size(self) -> int:
        """Return how many bytes of data all revisions take together."""
        return self._byte_size

    def check_room(self, byte_count: int) -> None:
        """Nothing is known about memory in advance."""

    def current_tid(self, oid: Oid) -> Tid | None:
        """Return the current revision's tid, also that of a deletion; None for an unknown oid."""
        self._check_open()
        revisions = self._revisions.get(oid)
        return revisions[-1].tid if revisions else None

    def write_group(self, transactions: Sequence[PreparedTransaction]) -> _Group:
        """Give tids."""
        self._check_open()
        check_writable(transactions)
        now_s = time.time()
        logged = []
        last_tid = self._written_tid
        for transaction in transactions:
            last_tid = tid_for(transaction, last_tid, now_s)
            logged.append(_Logged(last_tid, transaction))
        self._written_tid = last_tid
        return _Group([tid for tid, _ in logged], logged)

    def publish(self, group: WrittenGroup, announce: Announce | None = None) -> None:
        """Make a group of this storage's own visible."""
        if not isinstance(group, _Group):
            raise TypeError(f"{group!r} was not written by a MappingStorage")
        for tid, transaction in group.logged:
            self._oids.pass_by(write.oid for write in transaction.writes)
            for oid, _, data, data_tid, _ in transaction.writes:
                repeated = None if data_tid is None else self._saved_at(oid, data_tid)
                source = None
                if repeated is not None and repeated.data == data:
                    source = repeated.data_tid or data_tid
                self._revisions.setdefault(oid, []).append(_Saved(tid, data, source, transaction.metadata))
                self._byte_size += len(data or b"")
        self._log.extend(group.logged)
        self._announce([(tid, [write.oid for write in t.writes]) for tid, t in group.logged], announce)

    def transactions(self, start: Tid | None = None, stop: Tid | None = None) -> Iterator[RecordedTransaction]:
        """Walk the transactions with start <= tid <= stop; the end is fixed here, at the call."""
        self._check_open()
        first = 0 if start is None else bisect_left(self._log, start, key=_tid_of)
        end = len(self._log) if stop is None else bisect_right(self._log, stop, key=_tid_of)
        return (
            RecordedTransaction(tid, t.status, metadata=t.metadata, records=self._records(tid, t))
            for tid, t in self._log[first:end]
        )

    def undo_log(self) -> Iterator[UndoEntry]:
        """Walk the transactions that may be undone, newest first."""
        self._check_open()
        for tid, transaction in self._log[::-1]:
            if transaction.status != b" ":
                return
            yield UndoEntry(tid, transaction.metadata, sum(len(write.data or b"") for write in transaction.writes))

    def start_of_last(self, count: int) -> Tid:
        """Return the tid of the first of the last `count` transactions."""
        self._check_open()
        return self._log[-count:][0].tid if self._log else ZERO_TID

    def first_oid(self, start: Oid) -> Oid | None:
        """Return the lowest oid that is not below `start`, also of a deleted object; None if there is none."""
        self._check_open()
        if len(self._sorted_oids) != len(self._revisions):
            self._sorted_oids = sorted(self._revisions)
        index = bisect_left(self._sorted_oids, start)
        return self._sorted_oids[index] if index < len(self._sorted_oids) else None

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

    def _records(self, tid: Tid, transaction: PreparedTransaction) -> list[RecordedObject]:
        """Return what a transaction wrote, from the revisions, which know whether data are truly repeated."""
        saved = [(oid, self._saved_at(oid, tid)) for oid, *_ in transaction.writes]
        return [RecordedObject(oid, tid, at.data, at.data_tid) for oid, at in saved if at is not None]

    def _saved_at(self, oid: Oid, tid: Tid) -> _Saved | None:
        """Return the revision that transaction `tid` wrote, None if it wrote none."""
        revisions = self._revisions.get(oid, [])
        index = bisect_left(revisions, tid, key=_tid_of)
        return revisions[index] if index < len(revisions) and revisions[index].tid == tid else None

    def _check_open(self) -> None:
        if self._closed:
            raise StorageClosedError(f"{self._name} is closed")
