"""The storage contract: what a storage promises, split by capability.

Rules of order, which no signature can say:

1. tids grow strictly: each `write_group` gives tids later than every tid given before, across restarts and clocks that
   step back (lesson B24).
2. Write, publish, announce, in this order. `write_group` returns when the transactions are on disk; until `publish`
   no load sees them. `publish` first makes the records answer loads, then calls `announce`, and only then lets
   `last_tid()` move: whoever reads last_tid() == T can rely on T's invalidations having been handed on (lesson B4).
3. One caller at a time writes; groups are published in the order in which they were written.
4. Loads may run in any thread, at any time, also during a write. They never see a part of a group: a reader that asks
   for the state before a tid it got from `last_tid()` gets one and the same answer whatever is committed meanwhile.
5. `load_before` tells three things apart: a Revision; None for an object that did not exist yet (or whose older
   revisions are packed away); POSKeyError for an oid that the storage does not have, or that is deleted as of that tid.
   `current_tid` tells these last two apart: a deletion is a revision with a tid, an unknown oid has none (lesson B36).
6. An oid given out by `new_oids` is never given out again, not even after a restart if it was ever stored (lesson B25).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, Final, NamedTuple, Protocol, runtime_checkable

from zeo_core.ids import Oid, Tid
from zeo_core.transaction import (
    HistoryEntry,
    ObjectWrite,
    PreparedTransaction,
    RecordedTransaction,
    Revision,
    UndoEntry,
)

__all__ = [
    "Announce",
    "Anticipates",
    "BlobStage",
    "Commits",
    "HasBlobs",
    "InvalidationSink",
    "Iterates",
    "Loads",
    "LoadsCached",
    "Packs",
    "Prefetches",
    "Progress",
    "ServedStorage",
    "Spools",
    "Syncs",
    "Transacts",
    "TransactsBlobs",
    "Undoes",
    "WrittenGroup",
]

Announce = Callable[[Tid, Sequence[Oid]], None]
"""Called with a transaction's tid and the oids it changed; rule 2 says when."""


_NOTES: Final = frozenset(("__implemented__", "__providedBy__", "__provides__"))
"""The attributes by which zope.interface remembers what it knows of a class."""


class _ContractType(type(Protocol)):  # type: ignore[misc]
    """The type of the protocols below, which keeps zope.interface's notes off them.

    It takes notes of all bases of a class that it is asked about, and before Python 3.12 `isinstance` would take them
    for a part of the contract, which objects then do not keep. A TypeError is how other classes refuse; zope.interface
    keeps its notes elsewhere then.
    """

    def __setattr__(cls, name: str, value: object) -> None:
        if name in _NOTES and vars(cls).get("_is_protocol"):
            raise TypeError(f"{cls.__name__} takes no {name}")
        super().__setattr__(name, value)


@runtime_checkable
class Loads(Protocol, metaclass=_ContractType):
    """A storage that can be read."""

    def name(self) -> str:
        """Return what log lines and errors call this storage."""

    def read_only(self) -> bool:
        """Tell whether every write would raise ReadOnlyError."""

    def last_tid(self) -> Tid:
        """Return the tid of the last transaction, ZERO_TID if there is none."""

    def load_before(self, oid: Oid, tid: Tid) -> Revision | None:
        """Return the newest revision written before `tid`; see rule 5."""

    def load_serial(self, oid: Oid, tid: Tid) -> bytes:
        """Return the data that transaction `tid` wrote for `oid`; POSKeyError if it wrote none."""

    def revisions(self, oid: Oid, size: int) -> list[HistoryEntry]:
        """Return up to `size` revisions, newest first; POSKeyError for an unknown oid."""

    def object_count(self) -> int:
        """Return how many objects there are, roughly if exactness is dear."""

    def byte_size(self) -> int:
        """Return how many bytes the storage takes."""

    def close(self) -> None:
        """Write what makes the next opening fast, let go of files and locks; harmless when repeated."""


@runtime_checkable
class LoadsCached(Protocol, metaclass=_ContractType):
    """A storage that can tell beforehand whether a load would wait for the disk, so that a server's loop need not."""

    def load_cached(self, oid: Oid, tid: Tid) -> Revision | None:
        """Do as `load_before` does, but raise BlockingIOError rather than wait."""


@runtime_checkable
class Prefetches(Protocol, metaclass=_ContractType):
    """A storage for which many loads at once are cheaper than one after the other."""

    def prefetch(self, oids: Iterable[Oid], tid: Tid, depth: int = 0, max_bytes: int | None = None) -> None:
        """Make later loads of these objects' states before `tid` fast. What cannot be loaded is passed over.

        With `depth`, which not every storage knows, also of what they refer to in so many steps, up to `max_bytes`.
        """


@runtime_checkable
class Syncs(Protocol, metaclass=_ContractType):
    """A storage whose `last_tid` may lag behind what others have committed."""

    def sync(self, force: bool = True) -> None:
        """Catch up, before a transaction begins; without `force` only if that costs nothing."""


@runtime_checkable
class Iterates(Protocol, metaclass=_ContractType):
    """A storage whose log can be walked."""

    def transactions(self, start: Tid | None = None, stop: Tid | None = None) -> Iterator[RecordedTransaction]:
        """Walk the transactions with start <= tid <= stop in order; the end is fixed when the walk begins.

        A transaction's records may be walked more than once.
        """


class WrittenGroup(Protocol):
    """What `write_group` gave: on disk, not yet visible. Opaque but for its tids, one for each transaction in order."""

    @property
    def tids(self) -> Sequence[Tid]:
        """The tids given, growing."""


@runtime_checkable
class Commits(Protocol, metaclass=_ContractType):
    """A storage that takes transactions whose conflicts somebody else has checked, many at a time."""

    def new_oids(self, count: int) -> list[Oid]:
        """Return `count` fresh oids; rule 6."""

    def current_tid(self, oid: Oid) -> Tid | None:
        """Return the serial of the current revision, also of a deletion, None for an unknown oid. Reads no data."""

    def write_group(self, transactions: Sequence[PreparedTransaction]) -> WrittenGroup:
        """Give tids, write all transactions and bring them to disk: all of them or, with a StorageError, none.

        No two transactions of a group, and no two of groups that are written but not yet published, touch one oid.
        A transaction that brings its tid gets that one, or a StorageError if it is not later than all before it.
        May block; runs in the writer's thread.
        """

    def publish(self, group: WrittenGroup, announce: Announce | None = None) -> None:
        """Make a group visible; rule 2. Fast: it runs in the server's loop."""


@runtime_checkable
class Anticipates(Protocol, metaclass=_ContractType):
    """A storage that can do a part of a write beforehand, while its client is between the vote and the finish."""

    def anticipate(self, transaction: PreparedTransaction) -> None:
        """Bring to disk, unfinished, what will probably be the next group, all of it; a StorageError is no harm.

        If the next `write_group` gets exactly this object it has less to do, if it gets anything else it takes this
        back first: a crash in between leaves no trace of it either. The writer's thread calls it.
        """


@runtime_checkable
class Spools(Protocol, metaclass=_ContractType):
    """A storage on a disk, where the records of a large transaction can wait without being in memory.

    It takes ObjectWrites whose data are SpooledData, and keeps none of them after `write_group`, `anticipate` or
    `undo_writes`: they are gone when the transaction has ended.
    """

    def spool_directory(self) -> str | None:
        """Return the directory for files of such records; None if it cannot take them after all."""


@runtime_checkable
class Undoes(Protocol, metaclass=_ContractType):
    """A storage that can take back transactions.

    Undoing stages objects like any other change: `undo_writes` only says what to write, and the transaction that
    writes it is checked for conflicts, voted and written as all are.
    """

    def undo_log(self) -> Iterator[UndoEntry]:
        """Walk the transactions that may be undone, newest first; ends where the log was packed."""

    def undo_writes(self, tid: Tid, staged: Mapping[Oid, ObjectWrite]) -> list[ObjectWrite]:
        """Return what takes transaction `tid` back, on top of what the undoing transaction has `staged` before.

        UndoError for an unknown or packed transaction; MultipleUndoErrors, which is one, if objects were changed since
        in a way that cannot be resolved.
        """


class Progress(NamedTuple):
    """How far a long work has come: the phase it is in, and bytes done of that phase's total."""

    phase: str
    done_bytes: int
    total_bytes: int


@runtime_checkable
class Packs(Protocol, metaclass=_ContractType):
    """A storage that can drop revisions that were replaced, and objects that were out of use, at a time in the past."""

    def pack_steps(self, until_s: float, *, gc: bool | None = None) -> Iterator[Progress]:
        """Pack step by step; the work is done, and has any effect at all, only when the walk is at its end.

        Afterwards the state as of `until_s` (seconds since the Unix epoch; a later one than now counts as now), and
        every later one, can still be loaded. With `gc`, which the storage's settings decide if it is None, objects go
        as well that could not be reached from the root then and that nothing written later refers to (lesson B31).
        Loads and commits go on meanwhile. Packing to an earlier time than the last pack's does nothing (lesson B32).

        A StorageError leaves everything as it was, and so does closing the iterator. One pack at a time.
        """


class BlobStage(Protocol):
    """The blob files of one transaction until it is finished or aborted; all raise StorageError if the disk fails."""

    def take(self, source: str) -> str:
        """Take over the file at `source`, which is gone afterwards; return its new path, for `ObjectWrite.blob`."""

    def sync(self) -> None:
        """Bring the files' contents to disk. To be called at the vote: a transaction is not written before."""

    def discard(self) -> None:
        """Remove what is left of the files: when the transaction is finished, for good, or aborted."""


@runtime_checkable
class HasBlobs(Protocol, metaclass=_ContractType):
    """A storage that keeps a file, a blob, with a revision of an object.

    `write_group` gives the files that `ObjectWrite.blob` names their committed names before any of its transactions
    counts as finished, and leaves the staged ones, so that a group that failed can be tried again.
    """

    def stage_blobs(self) -> BlobStage:
        """Return the staging for the blobs of one transaction."""

    def loadBlob(self, oid: Oid, serial: Tid) -> str:  # noqa: N802 - ZODB's name
        """Return the path of the read-only file that transaction `serial` wrote for `oid`; POSKeyError if none."""

    def temporaryDirectory(self) -> str:  # noqa: N802 - ZODB's name
        """Return the directory for files that are to become blobs: to take one over from there is to rename it."""


class ServedStorage(Loads, Iterates, Commits, Protocol):
    """What zeod serves."""


@runtime_checkable
class InvalidationSink(Protocol, metaclass=_ContractType):
    """Who wants to hear of other people's commits: a DB. The names are those by which ZODB's storages call its DB.

    Both are called by the thread that reads what the server sends, which cannot read on before they return. So nobody
    may wait for the server, by a load or any other call, while holding a lock that the sink takes: the answer would
    never be read.
    """

    def invalidate(self, tid: Tid, oids: Sequence[Oid]) -> None:
        """Take note that transaction `tid` changed `oids`: all of one transaction at once (lesson B6)."""

    def invalidateCache(self) -> None:  # noqa: N802 - ZODB's name
        """Take note that anything may have changed."""


@runtime_checkable
class Transacts(Loads, Protocol):
    """A storage that runs two-phase commits for a DB, under the names that `transaction` and ZODB use.

    The order is tpc_begin, any number of stores and checks, tpc_vote, then tpc_finish or tpc_abort. `transaction` is
    any object with `user`, `description` (text or bytes) and `extension` (a dictionary); it is the key to the
    transaction in progress: any other one raises StorageTransactionError, but for tpc_abort, which ignores it.
    """

    def new_oid(self) -> Oid:
        """Return a fresh oid."""

    def tpc_begin(self, transaction: Any) -> None:
        """Begin; waits for another transaction in progress where the storage takes one at a time."""

    def store(self, oid: Oid, serial: Tid, data: bytes, version: str, transaction: Any) -> None:
        """Add an object; `version` is always "" (ZODB's signature). Conflicts are found here or at tpc_vote."""

    def check_current(self, oid: Oid, serial: Tid, transaction: Any) -> None:
        """Ask that `serial` is still current when the transaction commits, else ReadConflictError."""

    def tpc_vote(self, transaction: Any) -> Sequence[Oid]:
        """Promise that tpc_finish will not fail for reasons that can be known; return the oids resolved on the way."""

    def tpc_finish(self, transaction: Any, announce: Callable[[Tid], None] | None = None) -> Tid:
        """Commit: on disk and visible when this returns. `announce` runs as rule 2 says."""

    def tpc_abort(self, transaction: Any) -> None:
        """Forget the transaction; harmless for one that is not in progress."""

    def register_sink(self, sink: InvalidationSink) -> None:
        """Name the DB that is to hear of commits made by others."""


@runtime_checkable
class TransactsBlobs(Transacts, Protocol):
    """A storage whose transactions can bring blobs, under ZODB's names; a DB asks for this to know whether it may.

    A blob's file is committed with its transaction and never changes afterwards: a blob that is written again is a new
    file, of a later serial.
    """

    def storeBlob(  # noqa: N802 - this and the following are ZODB's names
        self, oid: Oid, oldserial: Tid | None, data: bytes, blobfilename: str, version: str, transaction: Any
    ) -> None:
        """Add an object, as `store` does, with the blob in the file `blobfilename`.

        The file is taken over: it is gone when this returns, also if the transaction is aborted later. It costs least
        where the file is in `temporaryDirectory()`, since taking it over is a rename then.
        """

    def loadBlob(self, oid: Oid, serial: Tid) -> str:  # noqa: N802
        """Return the path of the read-only file that transaction `serial` wrote for `oid`; POSKeyError if none.

        Over a network it is fetched first, and the file may be removed, when it has not been used for a while, to make
        room for others: who keeps the path for later calls this again, or opens it by `openCommittedBlobFile`.
        """

    def openCommittedBlobFile(self, oid: Oid, serial: Tid, blob: Any = None) -> IO[bytes]:  # noqa: N802
        """Open what `loadBlob` gives for reading; an open file stays readable whatever becomes of its name.

        `blob` is the object whose `closed(file)` is called when the file is closed.
        """

    def temporaryDirectory(self) -> str:  # noqa: N802
        """Return the directory in which to write files that are to become blobs."""
