"""DemoStorage: changes over a base that stays as it is.

Both are storages of their own. A tid, the border, parts them: of the base only what was committed before the border is
ever seen, and whatever is in the changes was committed at or after it. So a base that goes on changing, such as a
Data.fs that another process writes to, or a server's storage, shows one fixed state, and a reader at any tid gets what
was current then, on whichever side that is.

For the border to be the same at the next opening, it is written down: the first commit puts an empty transaction
before its own, with the border for its tid. That also makes all later tids of the changes later than the base's
(lesson B24). The base is never written to.

A pack drops revisions of the changes, but no objects, unless the base is empty: which of them the base refers to the
changes do not know. For the same reason their deletions stay, lest the base's objects come back, and so does the mark.
Between the border and the first revision that a pack has left of an object there may have been others, so that the
base's is not shown for then.
"""

import random
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import chain
from typing import NamedTuple, NoReturn, Self, cast

from zeo_core.errors import POSKeyError, StorageClosedError, StorageError
from zeo_core.ids import MAX_TID, ZERO_TID, Oid, Tid, oid_repr, pack_id, successor, tid_repr, unpack_id
from zeo_core.storage import (
    Announce,
    Commits,
    HasBlobs,
    Iterates,
    Loads,
    LoadsCached,
    Progress,
    ServedStorage,
    Spools,
    WrittenGroup,
)
from zeo_core.transaction import (
    HistoryEntry,
    PreparedTransaction,
    RecordedTransaction,
    Revision,
    TransactionMetadata,
    UndoEntry,
)
from zeo_server.storages.local import LocalStorage, check_writable
from zeo_server.storages.logged import LoggedStorage
from zeo_server.storages.mapping import MappingStorage

__all__ = ["DemoStorage"]

_Load = Callable[[Oid, Tid], Revision | None]
_First = tuple[Tid, bool]

_BORDER = TransactionMetadata(description=b"The changes of a DemoStorage begin here.")
"""What the empty transaction says that marks the border."""

_RANDOM_OIDS = range(1 << 61, 1 << 62)
"""Where oids start over a base that cannot say which it has: far from those that are given out in order."""

_FIRSTS_MAX = 10_000
_LAST_OID: Oid = b"\xff" * 8


class _DemoGroup(NamedTuple):
    """A written group of the changes, which may have a border that this one does not show."""

    tids: Sequence[Tid]
    oids: Sequence[tuple[Oid, ...]]
    written: WrittenGroup


class DemoStorage(LoggedStorage):
    """A storage that keeps what is written to it apart from the base it is written over.

    `base` and `changes` are the two storages; what is not given is a MappingStorage. Closing closes those that were
    given, unless close_base_on_close or close_changes_on_close says otherwise. To throw the changes away, open without
    them; to keep them, give a FileStorage.

    Changes have to be reopened over the base that they were made over, or a later state of it.
    """

    def __new__(
        cls, _name: object = None, base: object = None, changes: object = None, *_flags: object, **_options: object
    ) -> Self:
        """Make a BlobDemoStorage if the changes have blobs, or, where none are given, if the base has."""
        if cls is DemoStorage and isinstance(base if changes is None else changes, HasBlobs):
            # Here, since that one's base is this class.
            from zeo_server.storages.demo_blobs import BlobDemoStorage

            return cast(Self, super().__new__(BlobDemoStorage))
        return super().__new__(cls)

    def __init__(
        self,
        name: str | None = None,
        base: Loads | None = None,
        changes: ServedStorage | None = None,
        close_base_on_close: bool | None = None,
        close_changes_on_close: bool | None = None,
    ) -> None:
        self.base: Loads = MappingStorage() if base is None else base
        changes = MappingStorage() if changes is None else changes
        if not isinstance(changes, LoggedStorage):
            raise StorageError(f"{changes!r} cannot take the changes of a DemoStorage")
        self.changes: LoggedStorage = changes
        super().__init__(
            name or f"DemoStorage({self.base.name()!r}, {self.changes.name()!r})", read_only=self.changes.read_only()
        )
        self.close_base_on_close = close_base_on_close is not False
        self.close_changes_on_close = close_changes_on_close is not False
        self._closed = False
        self._firsts: dict[Oid, _First] = {}
        first = _first_change(self.base, self.changes)
        if first is None:
            self._last_tid = self.base.last_tid()
            # an empty base has no end to be remembered
            self._border, self._marked = successor(self._last_tid), self._last_tid == ZERO_TID
        else:
            self._last_tid = self.changes.last_tid()
            self._border, self._marked = first.tid, True
        self._base_current_tid = self.base.current_tid if isinstance(self.base, Commits) else None
        self._base_highest_oid = _highest_oid(self.base)
        self._oids.pass_by([_first_free_oid(self._base_highest_oid, _highest_oid(self.changes))])
        self._base_cached, self._changes_cached = _load_cached(self.base), _load_cached(self.changes)
        self._counted_twice = 0

    def load_before(self, oid: Oid, tid: Tid) -> Revision | None:
        """Return the newest revision written before `tid`, None if there was none yet; POSKeyError if unknown.

        A deletion in the changes hides the base's revisions from its tid on (lesson B36).
        """
        return self._load(oid, tid, self.changes.load_before, self.base.load_before, self._first_change)

    def load_cached(self, oid: Oid, tid: Tid) -> Revision | None:
        """Do as `load_before` does, but raise BlockingIOError rather than wait."""
        return self._load(oid, tid, self._changes_cached, self._base_cached, self._known_first_change)

    def _load(
        self, oid: Oid, tid: Tid, load_changes: _Load, load_base: _Load, first_change: Callable[[Oid], _First]
    ) -> Revision | None:
        changes, changed = self._open_changes(), True
        if tid > self._border:
            try:
                revision = load_changes(oid, tid)
            except POSKeyError:
                changed = changes.current_tid(oid) is not None
                # deleted, or put there by a commit since the question: then it is not there yet before `tid`
                revision = load_changes(oid, tid) if changed else None
            if revision is not None:
                return revision
        else:
            changed = changes.current_tid(oid) is not None
        end_tid = None
        if changed:
            end_tid, is_packed = first_change(oid)
            if tid > self._border and (is_packed or tid > end_tid):
                return None  # packed away, now or just before `first_change` looked
            if is_packed:
                end_tid = self._border
        try:
            revision = load_base(oid, min(tid, self._border))
        except POSKeyError:
            # created in the changes, after `tid`: unless it is deleted in the base, there is no revision yet
            if changed and self._base_tid(oid) is None:
                return None
            raise
        if revision is None or (revision.end_tid is not None and revision.end_tid < self._border):
            return revision
        return Revision(revision.data, revision.tid, end_tid)

    def load_serial(self, oid: Oid, tid: Tid) -> bytes:
        """Return the data that transaction `tid` wrote for `oid`; POSKeyError if it wrote none."""
        changes = self._open_changes()
        return (changes if tid >= self._border else self.base).load_serial(oid, tid)

    def revisions(self, oid: Oid, size: int) -> list[HistoryEntry]:
        """Return up to `size` revisions, newest first; POSKeyError for an unknown oid."""
        changes = self._open_changes()
        if changes.current_tid(oid) is None:
            return self._base_revisions(oid, size)
        entries = changes.revisions(oid, size)
        if len(entries) < size and self._base_tid(oid) is not None:
            entries += self._base_revisions(oid, size - len(entries))
        return entries

    def current_tid(self, oid: Oid) -> Tid | None:
        """Return the current revision's tid, also that of a deletion; None for an unknown oid."""
        tid = self._open_changes().current_tid(oid)
        return self._base_tid(oid) if tid is None else tid

    def object_count(self) -> int:
        """Return how many objects there are. Those of the base that were changed before the opening count twice."""
        return self.base.object_count() + self.changes.object_count() - self._counted_twice

    def byte_size(self) -> int:
        """Return how many bytes the changes take."""
        return self.changes.byte_size()

    def check_room(self, byte_count: int) -> None:
        """Raise StorageFullError if the changes will hardly find room for `byte_count` more bytes."""
        check: Callable[[int], None] | None = getattr(self.changes, "check_room", None)
        if check is not None:
            check(byte_count)

    def spool_directory(self) -> str | None:
        """Return where the changes would have the records of a large transaction wait, if they would."""
        return self.changes.spool_directory() if isinstance(self.changes, Spools) else None

    def write_group(self, transactions: Sequence[PreparedTransaction]) -> _DemoGroup:
        """Have the changes write the transactions, before the first ones of all the border."""
        self._check_open()
        self.check_not_read_only()
        check_writable(transactions)
        # A transaction that brings the border's own tid marks it as well as an empty one.
        marked = self._marked or (len(transactions) > 0 and transactions[0].tid == self._border)
        unmarked = [] if marked else [PreparedTransaction(_BORDER, (), self._border)]
        written = self.changes.write_group([*unmarked, *transactions])
        self._marked = True
        oids = [tuple([write.oid for write in transaction.writes]) for transaction in transactions]
        for group in oids:
            self._oids.pass_by(group)
        return _DemoGroup(written.tids[len(unmarked) :], oids, written)

    def publish(self, group: WrittenGroup, announce: Announce | None = None) -> None:
        """Make a group of this storage's own visible."""
        if not isinstance(group, _DemoGroup):
            raise TypeError(f"{group!r} was not written by a DemoStorage")
        self._counted_twice += sum(self._is_first_change(oid) for oids in group.oids for oid in oids)
        self.changes.publish(group.written)
        self._announce(zip(group.tids, group.oids, strict=True), announce)

    def transactions(self, start: Tid | None = None, stop: Tid | None = None) -> Iterator[RecordedTransaction]:
        """Walk the transactions with start <= tid <= stop, the base's first; the end is fixed here, at the call."""
        start, stop = start or ZERO_TID, MAX_TID if stop is None else stop
        walk = self._open_changes().transactions(max(start, self._border), stop)
        changed = (found for found in walk if not self._is_mark(found))
        if start >= self._border:
            return changed
        if not isinstance(self.base, Iterates):
            raise StorageError(f"{self._name}: the transactions of {self.base.name()} cannot be walked")
        return chain(self.base.transactions(start, min(stop, _predecessor(self._border))), changed)

    def undo_log(self) -> Iterator[UndoEntry]:
        """Walk the transactions of the changes that may be undone, newest first; the base's are out of reach."""
        return (entry for entry in self._open_changes().undo_log() if not self._is_mark(entry))

    def pack_steps(self, until_s: float, *, gc: bool | None = None) -> Generator[Progress, None, None]:
        """Pack the changes, step by step. Over a base that has anything, StorageError if `gc` is asked for."""
        changes = self._open_changes()
        if self._border > successor(ZERO_TID) and self.base.last_tid() > ZERO_TID:
            if gc:
                raise StorageError(
                    f"{self._name}: what the base refers to is not known here, so no garbage is collected"
                )
            gc = False
        yield from changes.pack_steps(until_s, gc=gc)
        self._firsts = {}

    def first_revision(self, oid: Oid) -> tuple[Tid, bool]:
        """Return the tid of the oldest revision, and whether a pack may have dropped earlier ones."""
        changes = self._open_changes()
        if self._base_tid(oid) is None:
            return changes.first_revision(oid)
        if isinstance(self.base, LoggedStorage):
            return self.base.first_revision(oid)
        return self._base_revisions(oid, sys.maxsize)[-1].tid, False

    def first_oid(self, start: Oid) -> Oid | None:
        """Return the lowest oid that is not below `start`, also of a deleted object; None if there is none."""
        found = [self._open_changes().first_oid(start)]
        if isinstance(self.base, LoggedStorage):
            found.append(self.base.first_oid(start))
        elif self.base.object_count():
            raise StorageError(f"{self._name}: the objects of {self.base.name()} cannot be walked")
        return min((oid for oid in found if oid is not None), default=None)

    def start_of_last(self, count: int) -> Tid:
        """Return the tid of the first of the last `count` transactions, or of a later one if the base went on."""
        start = self._open_changes().start_of_last(count + 1)  # one more, since the border's may be among them
        tids = [transaction.tid for transaction in self.transactions(max(start, self._border))][-count:]
        missing = count - len(tids)
        if missing and isinstance(self.base, LoggedStorage):
            tids.insert(0, min(self.base.start_of_last(missing), *tids, self._last_tid))
        return tids[0] if tids else self._last_tid

    def push(self, changes: ServedStorage | None = None) -> "DemoStorage":
        """Return a storage over this one, for changes on top that `pop` throws away; this one stays open below it."""
        return DemoStorage(base=self, changes=changes, close_base_on_close=False)

    def pop(self) -> Loads:
        """Close the changes, and this storage, and return the base."""
        self._closed = True
        self.changes.close()
        return self.base

    def close(self) -> None:
        """Let go of the changes and the base."""
        self._closed = True
        if self.close_changes_on_close:
            self.changes.close()
        if self.close_base_on_close:
            self.base.close()

    def _is_mark(self, transaction: RecordedTransaction | UndoEntry) -> bool:
        """Tell whether this is the empty transaction that marks the border."""
        return transaction.tid == self._border and transaction.metadata == _BORDER

    def _first_change(self, oid: Oid) -> _First:
        """Return the oldest change of an object, and whether it may not be the first, which only a pack alters."""
        known = self._firsts  # a pack replaces it: what was found out before goes with it
        found = known.get(oid)
        if found is None:
            found = self.changes.first_revision(oid)
            if len(known) >= _FIRSTS_MAX:
                known.clear()
            known[oid] = found
        return found

    def _known_first_change(self, oid: Oid) -> _First:
        try:
            return self._firsts[oid]
        except KeyError:
            raise BlockingIOError(f"when {oid_repr(oid)} was changed first has to be read") from None

    def _is_first_change(self, oid: Oid) -> bool:
        """Tell whether an object that is about to be changed is the base's so far."""
        # New objects, of which there may be many, are told by their oids.
        if oid > self._base_highest_oid:
            return False
        return self.changes.current_tid(oid) is None and self._base_tid(oid) is not None

    def _base_tid(self, oid: Oid) -> Tid | None:
        """Return the tid of the base's revision that is current at the border, None if it has none."""
        if self._base_current_tid is not None:
            tid = self._base_current_tid(oid)
            if tid is None or tid < self._border:
                return tid
        try:
            return self._base_revisions(oid, 1)[0].tid
        except POSKeyError:
            return None

    def _base_revisions(self, oid: Oid, size: int) -> list[HistoryEntry]:
        """Return up to `size` revisions of the base's before the border; POSKeyError if there is none at all."""
        asked = max(size, 1)
        while True:
            found = self.base.revisions(oid, asked)
            seen = [entry for entry in found if entry.tid < self._border]
            if len(seen) >= max(size, 1) or len(found) < asked:
                break
            asked *= 4
        if not seen:
            raise POSKeyError(oid)
        return seen[: max(size, 0)]

    def _open_changes(self) -> LoggedStorage:
        if self._closed:
            self._refuse_closed()
        return self.changes

    def _check_open(self) -> None:
        if self._closed:
            self._refuse_closed()

    def _refuse_closed(self) -> NoReturn:
        raise StorageClosedError(f"{self._name} is closed")


def _first_change(base: Loads, changes: LoggedStorage) -> RecordedTransaction | None:
    """Return the first transaction of the changes; StorageError if they were not made over this base."""
    if base is changes:
        raise StorageError(f"{base.name()} cannot be base and changes of a DemoStorage")
    first, last = next(changes.transactions(), None), base.last_tid()
    if first is None:
        return None
    if first.metadata == _BORDER:
        fits = last >= _predecessor(first.tid)
    else:
        # Nobody wrote down where the base stood; if it has changed since, nobody can tell.
        fits = last < first.tid
    if not fits:
        raise StorageError(
            f"{changes.name()}: these changes, which begin at {tid_repr(first.tid)}, are not changes of {base.name()},"
            f" which ends at {tid_repr(last)}"
        )
    return first


def _load_cached(storage: Loads) -> _Load:
    """Return what loads from a storage without waiting for a disk."""
    return storage.load_cached if isinstance(storage, LoadsCached) else storage.load_before


def _highest_oid(storage: Loads) -> Oid:
    """Return an oid above which the storage has none; the highest of all if it cannot say."""
    return storage.highest_oid() if isinstance(storage, LocalStorage) else _LAST_OID


def _first_free_oid(base: Oid, changes: Oid) -> Oid:
    """Return an oid above which there are no others, neither in the base nor in the changes (lesson B25)."""
    if _LAST_OID not in (base, changes):
        return max(base, changes)
    if changes != _LAST_OID and unpack_id(changes) in _RANDOM_OIDS:
        return changes  # it was chosen at an earlier opening
    return pack_id(random.choice(_RANDOM_OIDS))  # noqa: S311 - nobody gains from guessing it


def _predecessor(tid: Tid) -> Tid:
    return pack_id(unpack_id(tid) - 1)
