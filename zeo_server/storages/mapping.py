"""MappingStorage: everything in memory, all revisions until they are packed away, gone when the process ends.

The reference for the storage contract: short enough to be seen to be right, and what FileStorage is compared with.
"""

import time
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator, Sequence
from threading import Lock
from typing import NamedTuple

from zeo_core.errors import POSKeyError, StorageClosedError, StorageError
from zeo_core.ids import ZERO_TID, Oid, Tid
from zeo_core.storage import Announce, Progress, WrittenGroup
from zeo_core.transaction import HistoryEntry, PreparedTransaction, RecordedTransaction, Revision, UndoEntry
from zeo_server.storages.local import check_writable, tid_for
from zeo_server.storages.logged import LoggedStorage, pack_tid
from zeo_server.storages.mapping_contents import Contents, Logged, Saved, tid_of
from zeo_server.storages.mapping_pack import MappingPack

__all__ = ["MappingStorage"]


class _Group(NamedTuple):
    """A written group; being in memory, it is "written" once it has its tids."""

    tids: Sequence[Tid]
    logged: Sequence[Logged]


class MappingStorage(LoggedStorage):
    """A storage in memory that keeps every revision until it is packed or closed."""

    def __init__(self, name: str = "Mapping Storage") -> None:
        super().__init__(name)
        self._contents = Contents([], {}, 0)
        self._switch_lock = Lock()  # held to publish and to put packed contents in place
        self._packing = False
        self._sorted: tuple[Contents, list[Oid]] = (self._contents, [])
        self._written_tid = ZERO_TID
        self._closed = False

    def load_before(self, oid: Oid, tid: Tid) -> Revision | None:
        """Return the newest revision written before `tid`, None if there was none yet; POSKeyError if unknown."""
        revisions = self._revisions_of(oid)
        # The list may grow meanwhile, at its end: one look at its length makes one answer.
        count = len(revisions)
        index = bisect_left(revisions, tid, 0, count, key=tid_of)
        if index == 0:
            return None
        found = revisions[index - 1]
        if found.data is None:
            raise POSKeyError(oid)
        return Revision(found.data, found.tid, revisions[index].tid if index < count else None)

    def load_serial(self, oid: Oid, tid: Tid) -> bytes:
        """Return the data that transaction `tid` wrote for `oid`; POSKeyError if it wrote none."""
        self._check_open()
        saved = self._contents.saved_at(oid, tid)
        if saved is None or saved.data is None:
            raise POSKeyError(oid)
        return saved.data

    def revisions(self, oid: Oid, size: int) -> list[HistoryEntry]:
        """Return up to `size` revisions, newest first; POSKeyError for an unknown oid."""
        newest_first = self._revisions_of(oid)[::-1][: max(size, 0)]
        return [HistoryEntry(saved.tid, saved.metadata, len(saved.data or b"")) for saved in newest_first]

    def first_revision(self, oid: Oid) -> tuple[Tid, bool]:
        """Return the tid of the oldest revision, and whether a pack may have dropped earlier ones."""
        self._check_open()
        contents = self._contents
        if oid not in contents.revisions:
            raise POSKeyError(oid)
        tid = contents.revisions[oid][0].tid
        return tid, contents.log[bisect_left(contents.log, tid, key=tid_of)].transaction.status != b" "

    def object_count(self) -> int:
        """Return how many objects there are, those deleted included."""
        return len(self._contents.revisions)

    def byte_size(self) -> int:
        """Return how many bytes of data all revisions take together."""
        return self._contents.byte_size

    def check_room(self, byte_count: int) -> None:
        """Nothing is known about memory in advance."""

    def current_tid(self, oid: Oid) -> Tid | None:
        """Return the current revision's tid, also that of a deletion; None for an unknown oid."""
        self._check_open()
        revisions = self._contents.revisions.get(oid)
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
            logged.append(Logged(last_tid, transaction))
        self._written_tid = last_tid
        return _Group([tid for tid, _ in logged], logged)

    def publish(self, group: WrittenGroup, announce: Announce | None = None) -> None:
        """Make a group of this storage's own visible."""
        if not isinstance(group, _Group):
            raise TypeError(f"{group!r} was not written by a MappingStorage")
        for _, transaction in group.logged:
            self._oids.pass_by(write.oid for write in transaction.writes)
        with self._switch_lock:
            self._contents.add(group.logged)
        self._announce([(tid, [write.oid for write in t.writes]) for tid, t in group.logged], announce)

    def transactions(self, start: Tid | None = None, stop: Tid | None = None) -> Iterator[RecordedTransaction]:
        """Walk the transactions with start <= tid <= stop; the end is fixed here, at the call."""
        self._check_open()
        contents = self._contents
        first = 0 if start is None else bisect_left(contents.log, start, key=tid_of)
        end = len(contents.log) if stop is None else bisect_right(contents.log, stop, key=tid_of)
        return map(contents.recorded, contents.log[first:end])

    def pack_steps(self, until_s: float, *, gc: bool | None = None) -> Generator[Progress, None, None]:
        """Pack step by step, garbage collection included unless `gc` is False; see the contract."""
        self._check_open()
        pack = MappingPack(self._name, self._contents, pack_tid(self._name, until_s), gc=gc is not False)
        if pack.is_redundant:
            return
        with self._switch_lock:
            if self._packing:
                raise StorageError(f"{self._name}: is being packed already")
            self._packing = True
        try:
            yield from pack.steps()
            with self._switch_lock:
                self._check_open()
                self._contents = pack.finish()
        finally:
            self._packing = False

    def undo_log(self) -> Iterator[UndoEntry]:
        """Walk the transactions that may be undone, newest first."""
        self._check_open()
        for tid, transaction in self._contents.log[::-1]:
            if transaction.status != b" ":
                return
            yield UndoEntry(tid, transaction.metadata, sum(len(write.data or b"") for write in transaction.writes))

    def start_of_last(self, count: int) -> Tid:
        """Return the tid of the first of the last `count` transactions."""
        self._check_open()
        log = self._contents.log
        return log[-count:][0].tid if log else ZERO_TID

    def first_oid(self, start: Oid) -> Oid | None:
        """Return the lowest oid that is not below `start`, also of a deleted object; None if there is none."""
        self._check_open()
        contents, oids = self._sorted
        if contents is not self._contents or len(oids) != len(contents.revisions):
            contents = self._contents
            oids = sorted(contents.revisions)
            self._sorted = contents, oids
        index = bisect_left(oids, start)
        return oids[index] if index < len(oids) else None

    def close(self) -> None:
        """Let go of everything."""
        self._closed = True
        self._contents = Contents([], {}, 0)

    def _revisions_of(self, oid: Oid) -> list[Saved]:
        self._check_open()
        try:
            return self._contents.revisions[oid]
        except KeyError:
            raise POSKeyError(oid) from None

    def _check_open(self) -> None:
        if self._closed:
            raise StorageClosedError(f"{self._name} is closed")
