"""A storage of another server, served on: as of the last transaction that this server's own clients were told of.

What the other server commits is known to its client here, in some thread, a moment before this server's loop tells its
clients. In that moment nobody may be given what is newer (invariant 3). So this storage has a state of its own, what is
`shown`, which only the loop moves, by `show`, in the very callback that tells the clients; every answer is as of then.
It costs nothing: what was current then is in the cache, too, with the tid that ended it.
"""

import tempfile
import threading
from binascii import b2a_base64
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import NamedTuple, Protocol

from zeo_core.errors import ClientDisconnected, POSKeyError, ReadOnlyError, StorageError, UndoError
from zeo_core.ids import MAX_TID, ZERO_TID, Oid, Tid, successor
from zeo_core.storage import Announce, InvalidationSink, Progress, WrittenGroup
from zeo_core.transaction import (
    HistoryEntry,
    ObjectWrite,
    PreparedTransaction,
    RecordedTransaction,
    Revision,
    UndoEntry,
    whole,
)
from zeo_core.upstream import RemoteStorage, Upstream, UpstreamTransaction

__all__ = ["THREADS", "Follower", "RelayedGroup", "RelayedStorage", "load_threads"]

THREADS = 16
"""Threads that may wait for the other server at a time: its client has all their calls under way together."""


def load_threads(storage: object) -> Executor | None:
    """Return the threads in which to load from a storage, None for those that everybody shares.

    Who waits for another server must not keep those waiting that want something of a disk here.
    """
    return storage.threads if isinstance(storage, RelayedStorage) else None


_Outcome = Revision | POSKeyError | None


class Follower(InvalidationSink, Protocol):
    """Who shows what the other server commits."""

    def in_turn(self, show: Callable[[], None]) -> None:
        """Have `show` called in the loop after all that was heard before; for any thread."""


class RelayedGroup(NamedTuple):
    """A transaction that the other server has committed, and what it changed."""

    tids: tuple[Tid]
    oids: Sequence[Oid]


class _Load:
    """A load on its way: whether the object was changed meanwhile."""

    __slots__ = ("changed", "oid")

    def __init__(self, oid: Oid) -> None:
        self.oid = oid
        self.changed = False


class RelayedStorage:
    """What zeod serves where the data are another server's.

    All that waits for the other server is for threads: `load_cached` and the figures are not.
    """

    def __init__(self, source: RemoteStorage, *, read_only: bool = False) -> None:
        self.link: Upstream = source.upstream()
        self.threads = ThreadPoolExecutor(THREADS, "zeod upstream")
        self.in_turn: Callable[[Callable[[], None]], None] = _nowhere
        """Calls in the loop, in its turn, what shows a transaction that was committed through here; for any thread."""
        self._source = source
        self._read_only = read_only
        self._lock = threading.Lock()  # over what follows
        self._shown: Tid = ZERO_TID
        self._serving = False  # the other server has been there
        self._loads: set[_Load] = set()
        # What was loaded and is not in the cache, until it is asked for again, as all that is loaded is: what had no
        # room there, and what does not exist. The tid before which it was asked for, and what came of it.
        self._in_hand: OrderedDict[Oid, tuple[Tid, _Outcome]] = OrderedDict()

    # -- what is shown ------------------------------------------------------------------------------------------------

    def follow(self, sink: Follower) -> None:
        """Have `sink` told of what the other server commits, after what is shown now."""
        self._source.register_sink(sink)
        self.in_turn = sink.in_turn
        self._serving = not self.link.away_s()
        self._shown = self._source.last_tid()

    def show(self, tid: Tid, oids: Collection[Oid] | None) -> None:
        """Answer as of `tid` from now on; `oids` is what changed since what was shown before, None for anything."""
        with self._lock:
            self._shown, self._serving = tid, True
            for load in self._loads:
                load.changed = load.changed or oids is None or load.oid in oids
            for oid in list(self._in_hand) if oids is None else oids:
                self._in_hand.pop(oid, None)

    def check_serving(self) -> None:
        """Raise ClientDisconnected as long as the other server was never there: caches may be out of date."""
        if not self._serving:
            raise ClientDisconnected(self.link.address(), "no connection yet")

    def missed(self) -> tuple[Tid, Sequence[Oid] | None]:
        """Return the other server's last tid and what changed after what is shown, None for anything; for a thread."""
        changes = self.link.changes_since(self._shown)
        return (self._source.last_tid(), None) if changes is None else changes

    def changes_since(self, tid: Tid) -> tuple[Tid, Sequence[Oid]] | None:
        """Return a last tid and each oid that changed after `tid`, as the other server knows them; for a thread.

        That may be later than what is shown: then clients hear of some changes once more.
        """
        return self.link.changes_since(tid)

    # -- reading ------------------------------------------------------------------------------------------------------

    def name(self) -> str:
        """Return the other server's address and the storage's name."""
        return self._source.name()

    def read_only(self) -> bool:
        """Tell whether nothing can be written: this is a replica, or the other server only lets it read."""
        return self._read_only or self._source.read_only()

    def last_tid(self) -> Tid:
        """Return the transaction as of which everything is shown."""
        return self._shown

    def load_cached(self, oid: Oid, tid: Tid) -> Revision | None:
        """Return the newest revision before `tid` if it is in memory; BlockingIOError if not."""
        shown = self._shown
        try:
            revision = self.link.load_cached(oid, min(tid, successor(shown)))
        except BlockingIOError:
            with self._lock:
                asked, outcome = self._in_hand.pop(oid, (None, None))
            if asked is None or not (asked == tid or (isinstance(outcome, Revision) and _is_before(outcome, tid))):
                raise
            if isinstance(outcome, POSKeyError):
                raise outcome from None
            return outcome
        return _as_of(revision, shown)

    def load_before(self, oid: Oid, tid: Tid) -> Revision | None:
        """Return the newest revision before `tid`, and have it in memory for `load_cached`."""
        load = _Load(oid)
        with self._lock:
            shown = self._shown
            self._loads.add(load)
        try:
            revision = _as_of(self._source.load_before(oid, min(tid, successor(shown))), shown)
            if revision is None or not self._is_in_memory(oid, tid):
                self._take_in_hand(load, tid, revision)
        except POSKeyError as error:
            self._take_in_hand(load, tid, error)
            raise
        else:
            return revision
        finally:
            with self._lock:
                self._loads.discard(load)

    def _take_in_hand(self, load: _Load, tid: Tid, outcome: _Outcome) -> None:
        with self._lock:
            if not load.changed:
                self._in_hand[load.oid] = tid, outcome
                if len(self._in_hand) > THREADS:
                    self._in_hand.popitem(last=False)

    def _is_in_memory(self, oid: Oid, tid: Tid) -> bool:
        try:
            return self.link.load_cached(oid, min(tid, successor(self._shown))) is not None
        except BlockingIOError:
            return False

    def prefetch(self, oids: Iterable[Oid], tid: Tid, depth: int = 0, max_bytes: int | None = None) -> None:
        """Bring many objects into memory, together."""
        self._source.prefetch(oids, min(tid, successor(self._shown)), depth, max_bytes)

    def load_serial(self, oid: Oid, tid: Tid) -> bytes:
        """Return the data that transaction `tid` wrote for `oid`."""
        if tid > self._shown:
            raise POSKeyError(oid)
        return self._source.load_serial(oid, tid)

    def revisions(self, oid: Oid, size: int) -> list[HistoryEntry]:
        """Return up to `size` revisions, newest first."""
        shown = self._shown
        return [entry for entry in self._source.revisions(oid, size) if entry.tid <= shown]

    def object_count(self) -> int:
        """Return the number of objects that the other server last told."""
        return self._source.object_count()

    def byte_size(self) -> int:
        """Return the size that the other server last told."""
        return self._source.byte_size()

    def transactions(self, start: Tid | None = None, stop: Tid | None = None) -> Iterator[RecordedTransaction]:
        """Walk the transactions with start <= tid <= stop, up to what is shown."""
        return self._source.transactions(start, min(stop or MAX_TID, self._shown))

    def record_iternext(self, next: Oid | None = None) -> tuple[Oid, Tid, bytes, Oid | None]:  # noqa: A002 - ZODB's
        """Return (oid, serial, data, following oid or None) of the first object from oid `next` on."""
        return self._source.record_iternext(next)

    def undo_log(self) -> Iterator[UndoEntry]:
        """Walk the transactions that may be undone, newest first."""
        return (entry for entry in self._source.undo_log() if entry.tid <= self._shown)

    def undo_writes(self, tid: Tid, staged: Mapping[Oid, ObjectWrite]) -> list[ObjectWrite]:
        """Raise UndoError: it is the other server that knows what takes a transaction back."""
        raise UndoError(f"{self.name()} is what undoes")

    def pack_steps(self, until_s: float, *, gc: bool | None = None) -> Iterator[Progress]:
        """Have the other server pack, as its settings say; it does not tell how far it has come."""
        self._check_writable()
        self._source.pack(until_s)
        yield from ()

    def close(self) -> None:
        """Disconnect for good."""
        self._source.close()
        self.threads.shutdown(cancel_futures=True)

    # -- writing ------------------------------------------------------------------------------------------------------

    def new_oids(self, count: int) -> list[Oid]:
        """Return up to `count` fresh oids of the other server; for a thread."""
        self._check_writable()
        return self.link.new_oids(count)

    def spool_directory(self) -> str:
        """Return where the records of a large transaction wait until the other server is given them."""
        return tempfile.gettempdir()

    def begin(self, key: UpstreamTransaction, tid: Tid | None, status: bytes) -> None:
        """Begin a transaction on the other server; this and the following, up to `abort`, are for threads."""
        self._check_writable()
        self._source.tpc_begin(key, tid, status)

    def stage(self, write: ObjectWrite, key: UpstreamTransaction, *, restored: bool) -> None:
        """Stage an object there."""
        oid, serial, _, data_tid, _ = write
        data = whole(write.data)
        if restored:
            self._source.restore(oid, serial, data, "", data_tid, key)
        elif data is None:
            self._source.deleteObject(oid, serial, key)
        else:
            self._source.store(oid, serial, data, "", key)

    def stage_check(self, oid: Oid, serial: Tid, key: UpstreamTransaction) -> None:
        """Ask there that an object is current."""
        self._source.check_current(oid, serial, key)

    def stage_undo(self, tid: Tid, key: UpstreamTransaction) -> None:
        """Have a transaction taken back there."""
        self._source.undo(b2a_base64(tid, newline=False), key)

    def finish(self, key: UpstreamTransaction, finished: Callable[[Tid], None]) -> None:
        """Have the other server commit; `finished` is called, by any thread, in its turn among all commits there."""
        self._source.tpc_finish(key, finished)

    def abort(self, key: UpstreamTransaction) -> None:
        """Have the other server forget a transaction."""
        self._source.tpc_abort(key)

    def current_tid(self, oid: Oid) -> Tid | None:
        """Refuse: the other server checks for conflicts."""
        raise StorageError(f"{self.name()} is what knows current serials")

    def write_group(self, transactions: Sequence[PreparedTransaction]) -> WrittenGroup:
        """Refuse: the other server writes, from `begin` to `finish`."""
        raise StorageError(f"{self.name()} is what writes")

    def publish(self, group: WrittenGroup, announce: Announce | None = None) -> None:
        """Show what the other server has committed, unless it was shown with what was missed."""
        if not isinstance(group, RelayedGroup):
            raise StorageError("a group that no other server has committed")
        [tid] = group.tids
        if tid > self._shown:
            self.show(tid, group.oids)
        if announce is not None:
            announce(tid, group.oids)

    def _check_writable(self) -> None:
        if self.read_only():
            raise ReadOnlyError(f"{self.name()} is served for reading only: write to the server itself")


def _nowhere(_show: Callable[[], None]) -> None:
    """Do nothing: nobody follows yet, and nothing was committed."""


def _is_before(revision: Revision, tid: Tid) -> bool:
    """Tell whether it is what was current just before `tid`."""
    return revision.tid < tid and (revision.end_tid is None or tid <= revision.end_tid)


def _as_of(revision: Revision | None, tid: Tid) -> Revision | None:
    """Return a revision as it looked when `tid` was the last transaction: current, if it ended later."""
    if revision is None or revision.end_tid is None or revision.end_tid <= tid:
        return revision
    return revision._replace(end_tid=None)
