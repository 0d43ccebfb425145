"""One state of the database for as long as a transaction lasts, and the hub that tells the views what has changed.

Every Connection has a Snapshot: all that it loads is as of one tid. The DB has an InvalidationHub, which hears of each
commit, its own and others', and notes in every snapshot which objects it changed. Only when its Connection says so, at
a transaction's boundary, a snapshot moves on to the newest state and hands over what has to be loaded again (B40).
"""

import threading
import weakref
from collections.abc import Collection, Sequence
from typing import Final, Protocol

from zeo_core.errors import ReadConflictError
from zeo_core.ids import ZERO_TID, Oid, Tid, oid_repr, successor, tid_repr, unpack_id
from zeo_core.storage import Loads

__all__ = ["MAX_PENDING", "InvalidationHub", "Listener", "Snapshot", "View"]

MAX_PENDING: Final = 100_000
"""So many oids a snapshot takes note of before it takes everything for changed: a view that sleeps in the pool must not
gather the whole database's history."""


class View(Protocol):
    """What a Connection sees of the database."""

    @property
    def start(self) -> Tid:
        """The tid before which it loads."""

    def advance(self) -> Collection[Oid] | None:
        """Move on to the newest state there is to see; return the oids that changed, None if any may have."""

    def load(self, oid: Oid) -> tuple[bytes, Tid]:
        """Return the data and the serial of an object."""

    def release(self) -> None:
        """End: nothing is to be seen any more."""


class Listener(Protocol):
    """Who hears from the hub of each transaction; in any thread, and with the hub's lock held: it is to be quick."""

    def note(self, tid: Tid, oids: Collection[Oid]) -> None:
        """Take note that a transaction changed `oids`."""

    def note_everything(self) -> None:
        """Take note that anything may have changed."""


class Snapshot:
    """The view of one Connection. One thread at a time uses it; the hub may write into it from any."""

    def __init__(self, storage: Loads, hub: "InvalidationHub") -> None:
        self._storage = storage
        self._hub = hub
        self._load_before = storage.load_before
        self._lock = hub.lock
        self._known: Tid = ZERO_TID  # the last transaction whose changes are in _pending or were handed over
        self._pending: set[Oid] | None = None  # None: anything may have changed
        self._distrusted = False  # invalidateCache came, and the view has not moved since that was handed over
        self._start: Tid = ZERO_TID
        self._shown: Tid = ZERO_TID  # the last transaction that it shows, the predecessor of _start
        # Before last_tid is read for the first time: no commit may fall between the two (B41).
        hub.register(self)

    @property
    def start(self) -> Tid:
        """The tid before which this view loads: the successor of the last transaction it shows."""
        return self._start

    def advance(self) -> Collection[Oid] | None:
        """Move on to the newest state; return the oids that changed since the last move, None if any may have.

        The new start and the set handed over are chosen under one lock, so they belong together (B5). The storage's
        last tid is read before that: all up to it has been noted by then (B4), and more of what is noted does no harm.
        """
        last = self._storage.last_tid()
        if last == self._shown == self._known and self._pending == set() and not self._distrusted:
            # Without the lock: `note` changes _known first, so what it is adding now is as if it came just after.
            return set()
        with self._lock:
            if last > self._known:
                # It moved without announcing what changed: somebody writes to the storage behind the DB's back.
                self._known, self._pending = last, None
            changed, self._pending = self._pending, set()
            start = successor(self._known)
            if changed is not None and self._distrusted and start != self._start:
                # A client that is connected again says invalidateCache first and moves its last tid then (B9). The
                # view may have looked at the old state in between, so the first move after it is not to be trusted.
                changed, self._distrusted = None, False
            self._start, self._shown = start, self._known
        return changed

    def load(self, oid: Oid) -> tuple[bytes, Tid]:
        """Return the data and the serial of an object as of this snapshot.

        POSKeyError if the storage has no such object; ReadConflictError if it has one, but not of that time.
        """
        revision = self._load_before(oid, self._start)
        if revision is None:
            raise ReadConflictError(self._not_of_that_time(oid), oid=oid)
        return revision[0], revision[1]

    def _not_of_that_time(self, oid: Oid) -> str:
        if self._start <= successor(ZERO_TID):
            return f"object {oid_repr(oid)} is newer than this empty state of the database"
        seen = (unpack_id(self._start) - 1).to_bytes(8, "big")
        return (
            f"object {oid_repr(oid)} has no revision as of {tid_repr(seen)}, the state that this transaction reads:"
            " the revision was packed away meanwhile, or the object is newer; begin a new transaction"
        )

    def release(self) -> None:
        """Hear of no more transactions."""
        self._hub.unregister(self)

    def note(self, tid: Tid, oids: Collection[Oid]) -> None:
        """Take note of a transaction; the hub calls it, holding the lock."""
        if tid > self._known:
            self._known = tid
        if self._pending is not None:
            self._pending.update(oids)
            if len(self._pending) > MAX_PENDING:
                self._pending = None

    def note_everything(self) -> None:
        """Take note that anything may have changed; the hub calls it, holding the lock."""
        self._pending, self._distrusted = None, True


class InvalidationHub:
    """The DB's ear: an InvalidationSink that passes each transaction on to all who listen, as a whole (B6)."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        # Weak, so that a Connection that its user forgot to close can go.
        self._listeners: weakref.WeakSet[Listener] = weakref.WeakSet()

    def register(self, listener: Listener) -> None:
        """Tell `listener` of every transaction from now on."""
        with self.lock:
            self._listeners.add(listener)

    def unregister(self, listener: Listener) -> None:
        """Tell `listener` nothing any more."""
        with self.lock:
            self._listeners.discard(listener)

    def invalidate(self, tid: Tid, oids: Sequence[Oid]) -> None:
        """Pass on a transaction that somebody else committed."""
        with self.lock:
            for listener in self._listeners:
                listener.note(tid, oids)

    def invalidateCache(self) -> None:  # noqa: N802 - ZODB's name
        """Pass on that anything may have changed."""
        with self.lock:
            for listener in self._listeners:
                listener.note_everything()

    def committed(self, tid: Tid, oids: Collection[Oid], committer: object) -> None:
        """Pass on a transaction of this DB's; its `committer`, if it has one, has the new states already."""
        with self.lock:
            for listener in self._listeners:
                listener.note(tid, () if listener is committer else oids)
