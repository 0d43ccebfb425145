"""A Connection: the objects of a database as one transaction sees them."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn

import transaction as transaction_package
from persistent import PickleCache
from transaction.interfaces import NoTransaction

from zeo_client import export
from zeo_client.commit import Commit
from zeo_client.export import ExportFile, ImportedObject, Importers
from zeo_client.historical import HistoricalView
from zeo_client.prefetch import oids_of
from zeo_client.root import Root
from zeo_client.savepoint import Savepoint
from zeo_client.serialize import ObjectReader, dotted_name, report_load
from zeo_client.snapshot import Snapshot, View
from zeo_core.errors import (
    ConnectionStateError,
    InvalidObjectReference,
    ReadOnlyHistoryError,
)
from zeo_core.ids import ROOT_OID, ZERO_TID, Oid, Tid, oid_repr, tid_repr
from zeo_core.storage import Prefetches, Syncs
from zeo_core.zodb_interfaces import ZODBInterfaces

if TYPE_CHECKING:
    from zeo_client.db import DB

__all__ = ["Connection", "resetCaches"]

_get_ident = threading.get_ident

logger = logging.getLogger(__name__)

_NOBODY: Final = 0
"""The number of no thread."""

_reset_at = 0.0  # time.monotonic() of the last resetCaches


def resetCaches() -> None:  # noqa: N802 - ZODB's name
    """Have every connection start with an empty cache when it is opened next.

    For programs that load modules anew while they run: what a cache has is of the classes as they were.
    """
    global _reset_at
    _reset_at = time.monotonic()


class Connection:
    """Loads objects, keeps them in a cache, and commits what was changed. `DB.open` makes connections.

    To `persistent` it is a data manager (`_p_jar`), to `transaction` a resource and a synchronizer. All that it loads
    in a transaction is of one state of the database; it moves on to the newest state when a transaction begins and
    when one ends. One thread at a time may use a connection and its objects.

    With `before` it is a historical one: it shows the state before that tid for ever, and commits nothing.
    """

    __providedBy__ = ZODBInterfaces()

    def __init__(self, db: "DB", cache_size: int, cache_size_bytes: int, before: Tid | None = None) -> None:
        self._db = db
        self._storage = db.storage
        self.before = before
        """The tid before which a historical connection sees the database, None for others."""
        self.connections = {db.database_name: self}
        """The connections to several databases that are open together, by the databases' names; they share this."""
        self._snapshot: View = Snapshot(db.storage, db.hub) if before is None else HistoricalView(db.storage, before)
        self._cache = PickleCache(self, cache_size, cache_size_bytes)
        self._reader = ObjectReader(self, self._cache, db.class_finder(self))
        self._commit = Commit(self, self._cache, db.storage, self._snapshot, db.hub)
        self._commit.large_record_bytes = db.large_record_size
        self._cache_made_at = time.monotonic()
        self.blobs = self._commit.blobs
        """The way to the files of the connection's blobs, for them."""
        self._load = self._snapshot.load  # once there is a savepoint, Commit.load
        self._sync = db.storage.sync if before is None and isinstance(db.storage, Syncs) else None
        self._load_count = 0
        self._user = _NOBODY  # the thread that is loading or committing at the moment
        self._joined = False
        self._explicit = False
        self._debug_info: tuple[Any, ...] = ()
        self._close_callbacks: list[Callable[[], object]] = []
        self.transaction_manager: Any = None
        self.opened: float | None = None
        """When DB.open gave this connection out (time.time()), None while it is closed."""

    def __repr__(self) -> str:
        state = "open" if self.opened else "closed"
        return f"<{state} Connection to {self._db.database_name!r} at {id(self):#x}>"

    # -- for applications --------------------------------------------------------------------------------------------

    @property
    def root(self) -> Root:
        """The database's root: `conn.root()` is the mapping, `conn.root.name` one of its items."""
        return Root(self.get(ROOT_OID))

    def get(self, oid: Oid) -> Any:
        """Return the object with this oid; POSKeyError if there is none."""
        if self.opened is None:
            self._refuse(f"get object {oid_repr(oid)}")
        obj = self._cache.get(oid)
        if obj is None:
            obj = self._commit.new_object(oid)
        if obj is None:
            data, _ = self._load(oid)
            obj = self._reader.cached_ghost(oid, data)
        return obj

    def __getitem__(self, oid: Oid) -> Any:
        return self.get(oid)

    def add(self, obj: Any) -> None:
        """Store `obj` with the transaction, also if nothing refers to it; it has its `_p_oid` from now on.

        TypeError if it is not persistent, InvalidObjectReference if it belongs to another connection.
        """
        if self.opened is None:
            self._refuse("add an object")
        if not hasattr(obj, "_p_oid"):
            raise TypeError(f"only persistent objects can be added, not {dotted_name(obj)}: derive it from Persistent")
        if obj._p_jar is None:
            self._join()
            self._refuse_to_rewrite_history()
            self._commit.add(obj)
        elif obj._p_jar is not self:
            raise InvalidObjectReference(
                f"{dotted_name(obj)} with oid {oid_repr(obj._p_oid)} cannot be added to {self!r}:"
                f" it belongs to {obj._p_jar!r}; get it here by its oid, or add a copy"
            )

    def readCurrent(self, ob: Any) -> None:  # noqa: N802 - ZODB's name, as all of this kind below
        """Let the transaction fail with a ReadConflictError if `ob` is changed by another before this one commits.

        For an object that decided what this transaction changes elsewhere. Nothing is checked if it changes nothing.
        """
        ob._p_activate()  # noqa: SLF001 - a ghost does not know its serial
        if ob._p_serial != ZERO_TID:
            self._commit.read_current(ob._p_oid, ob._p_serial)

    def sync(self) -> None:
        """Begin a new transaction, abandoning the changes of this one, and so see the database's newest state."""
        if self.opened is None:
            self._refuse("sync")
        self.transaction_manager.begin()

    def cacheMinimize(self) -> None:  # noqa: N802
        """Make all unchanged objects ghosts, those of the other databases that are open with this one too."""
        for connection in self.connections.values():
            connection.cache.minimize()

    def cacheGC(self) -> None:  # noqa: N802
        """Make the objects that were not used for the longest time ghosts, down to the caches' sizes."""
        for connection in self.connections.values():
            connection.cache.incrgc()

    def cacheFullSweep(self) -> None:  # noqa: N802
        """Make all unchanged objects ghosts but those that were used since the last sweep."""
        self._cache.full_sweep()

    def prefetch(self, *args: Oid | Any | Iterable[Oid | Any], depth: int = 0, max_bytes: int | None = None) -> None:
        """Make it fast to load these objects next: given as oids, objects, or collections of oids and objects.

        And what they refer to in `depth` steps, up to `max_bytes`. That pays off with a storage that is far away.
        """
        if isinstance(self._storage, Prefetches):
            further = (depth, max_bytes) if depth else ()
            self._storage.prefetch(oids_of(args), self._snapshot.start, *further)

    def isReadOnly(self) -> bool:  # noqa: N802
        """Tell whether all changes are refused."""
        if self.opened is None:
            self._refuse("ask whether it is read-only")
        return self.before is not None or self._storage.read_only()

    def db(self) -> "DB":
        """Return the database."""
        return self._db

    def get_connection(self, database_name: str) -> "Connection":
        """Return the connection to another of the databases that the DB knows, opened and closed with this one.

        It takes part in the same transactions. KeyError if there is no database of that name.
        """
        connection = self.connections.get(database_name)
        if connection is None:
            if self.opened is None:
                self._refuse(f"get a connection to {database_name!r}")
            connection = self._db.databases[database_name].open_beside(self)
            self.connections[database_name] = connection
            connection.connections = self.connections
        return connection

    def onCloseCallback(self, f: Callable[[], object]) -> None:  # noqa: N802
        """Call `f` when this connection is closed, once; its errors are logged."""
        self._close_callbacks.append(f)

    def getDebugInfo(self) -> tuple[Any, ...]:  # noqa: N802
        """Return what setDebugInfo was given since the connection was opened."""
        return self._debug_info

    def setDebugInfo(self, *args: Any) -> None:  # noqa: N802
        """Add something that DB.connectionDebugInfo is to tell of this connection, such as the request it serves."""
        self._debug_info += args

    def getTransferCounts(self, clear: bool = False) -> tuple[int, int]:  # noqa: N802
        """Return how many objects were loaded and stored, since the last call that said `clear`."""
        counts = self._load_count, self._commit.stored_count
        if clear:
            self._load_count = self._commit.stored_count = 0
        return counts

    def exportFile(self, oid: Oid, f: ExportFile | None = None, bufsize: int = 1 << 16) -> IO[bytes]:  # noqa: N802
        """Write an object and all that it reaches, as committed or of a savepoint, to `f`; see `export.export_file`."""
        if self.opened is None:
            self._refuse("export")
        return export.export_file(self._load, self.blobs, oid, f, bufsize)

    def importFile(self, f: ExportFile, clue: str = "", customImporters: Importers | None = None) -> Any:  # noqa: N802, N803
        """Take in an export as new objects of this transaction, return the one exported; see `export.import_file`."""
        if self.opened is None:
            self._refuse("import")
        return export.import_file(self, self._db.class_finder(self), f, clue, customImporters or {})

    def close(self) -> None:
        """Give the connection back to the database's pool, with the objects in its cache.

        The connections to other databases that were opened through it are closed too. ConnectionStateError if one of
        them has changes: commit or abort first. Harmless when repeated.
        """
        together = list(self.connections.values())
        for connection in together:
            connection.check_unchanged()
        if self.opened is None:
            return
        for connection in together:
            connection.leave()
        # From here on another thread may have it.
        self._db.put_back(self)

    # -- for the database --------------------------------------------------------------------------------------------

    def open(self, transaction_manager: Any = None) -> None:
        """Begin a new life in the hands of a user, with all connections that belong to this one; DB.open calls this."""
        if transaction_manager is None:
            # The thread's own manager, and not the name that means another one in each thread: close may be called
            # from another.
            transaction_manager = transaction_package.manager.manager
        for connection in self.connections.values():
            connection.enter(transaction_manager)

    def enter(self, transaction_manager: Any) -> None:
        """Take part in the transactions of `transaction_manager` from now on."""
        self.transaction_manager = transaction_manager
        self._explicit = getattr(transaction_manager, "explicit", False)
        if self._cache_made_at < _reset_at:
            self._renew_cache()
        if not self._explicit:
            self._move_on()
        transaction_manager.registerSynch(self)
        self.opened = time.time()

    def _renew_cache(self) -> None:
        old = self._cache
        self._cache = PickleCache(self, old.cache_size, old.cache_size_bytes)
        self._reader = ObjectReader(self, self._cache, self._db.class_finder(self))
        self._commit = Commit(self, self._cache, self._storage, self._snapshot, self._db.hub)
        self._commit.large_record_bytes = self._db.large_record_size
        self._cache_made_at = time.monotonic()

    def check_unchanged(self) -> None:
        """Raise ConnectionStateError if there are uncommitted changes."""
        if self._joined:
            raise ConnectionStateError(
                f"{self!r} cannot be closed: it has uncommitted changes; commit or abort its transaction first"
            )

    def leave(self) -> None:
        """Take part in transactions no longer; the objects stay in the cache."""
        self._cache.incrgc()
        callbacks, self._close_callbacks = self._close_callbacks, []
        for callback in callbacks:
            try:
                callback()
            except Exception:
                logger.exception("%r: %r failed, which was to be called when it is closed", self, callback)
        self._debug_info = ()
        self._db.closed_connection(self)
        if self.opened is not None:  # a callback may have closed the database, and this connection with it
            self._leave()

    def release(self) -> None:
        """End for good, abandoning changes: the database is closed, or has enough connections in its pool."""
        if self.opened is not None:
            self._explicit = True  # the abort is not to begin anything new
            with contextlib.suppress(NoTransaction):
                self.transaction_manager.abort()
            self._leave()
        self.connections.pop(self._db.database_name, None)
        self.connections = {self._db.database_name: self}
        self._snapshot.release()
        self._cache.minimize()

    @property
    def cache(self) -> Any:
        """The PickleCache, for the database's reports."""
        return self._cache

    @property
    def cached(self) -> int:
        """How many objects have their state in memory."""
        count: int = self._cache.cache_non_ghost_count
        return count

    def _leave(self) -> None:
        self.transaction_manager.unregisterSynch(self)
        self.transaction_manager = None
        self.opened = None

    def _refuse(self, action: str) -> NoReturn:
        raise ConnectionStateError(f"cannot {action}: {self!r} is closed; open a new one with DB.open()")

    # -- for persistent and for the pickling of objects ----------------------------------------------------------------

    def setstate(self, obj: Any) -> None:
        """Load the state of a ghost."""
        user, ident = self._user, _get_ident()
        if user not in (_NOBODY, ident):
            self._refuse_two_threads(user)
        oid = obj._p_oid
        self._user = ident
        try:
            if self.opened is None:
                self._refuse(f"load the state of {dotted_name(obj)} with oid {oid_repr(oid)}")
            data, serial = self._load(oid)
            self._reader.set_state(obj, data)
        except Exception as error:
            report_load(obj, oid, error)
            raise
        finally:
            self._user = user
        obj._p_serial = serial
        size = len(data)
        self._cache.update_object_size_estimation(oid, size)
        obj._p_estimated_size = size
        self._load_count += 1

    def oldstate(self, obj: Any, tid: Tid) -> Any:
        """Return the state that transaction `tid` gave to `obj`; POSKeyError if it gave it none."""
        return self._reader.state(obj, self._storage.load_serial(obj._p_oid, tid))

    def register(self, obj: Any) -> None:
        """Take note that `obj` is about to be changed for the first time in this transaction."""
        if self._user:
            self._check_thread()
        if not self._joined:
            # Before the object is noted: joining may take a savepoint, which must not have the change.
            self._join()
        self._commit.register(obj)

    def _check_thread(self) -> None:
        user = self._user
        if user not in (_NOBODY, _get_ident()):
            self._refuse_two_threads(user)

    def _refuse_two_threads(self, user: int) -> NoReturn:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        raise ConnectionStateError(
            f"{self!r} is used by two threads at once, {names.get(user, user)!r} and"
            f" {threading.current_thread().name!r}; give each its own connection from DB.open()"
        )

    def _join(self) -> None:
        if not self._joined:
            if self.transaction_manager is None:
                self._refuse("change an object")
            self.transaction_manager.get().join(self)
            self._joined = True

    def new_oid(self) -> Oid:
        """Return a fresh oid; ReadOnlyHistoryError if nothing new can be stored."""
        self._refuse_to_rewrite_history()
        return self._storage.new_oid()

    def take_in(self, objects: Iterable[ImportedObject]) -> None:
        """Add new objects by their records, to be loaded when they are used; none if the walk of them raises."""
        self._join()
        self._commit.take_in(objects)
        self._load = self._commit.load

    def adopt(self, obj: Any, oid: Oid | None = None) -> Oid:
        """Give a new object an oid and this connection; until it is committed, an abort takes both away again."""
        self._refuse_to_rewrite_history()
        return self._commit.adopt(obj, oid)

    def ghost_of(self, oid: Oid, cls: Any) -> Any:
        """Return the object with this oid, a ghost of `cls` if it is not in memory; for references from elsewhere."""
        obj = self._cache.get(oid)
        if obj is None:
            obj = self._commit.new_object(oid)
        return self._reader.strong(oid, cls) if obj is None else obj

    def implicitly_added(self, oid: Oid) -> bool:
        """Tell whether this is a new object that nobody added, but that others refer to."""
        return self._commit.implicitly_added(oid)

    def _refuse_to_rewrite_history(self) -> None:
        if self.before is not None:
            raise ReadOnlyHistoryError(
                f"{self!r} shows the database as it was before {tid_repr(self.before)}; open another to change it"
            )

    # -- for transaction: a resource -----------------------------------------------------------------------------------

    def sortKey(self) -> str:  # noqa: N802
        """Return the text that puts the resources of a transaction into the same order everywhere."""
        return f"{self._storage.name()}:{id(self)}"

    def savepoint(self) -> Savepoint:
        """Keep aside what was changed so far, let objects go from the cache, and return the way back."""
        self._refuse_to_rewrite_history()
        self._check_thread()
        self._user = _get_ident()
        try:
            savepoint = self._commit.savepoint()
        finally:
            self._user = _NOBODY
        self._load = self._commit.load
        self.cacheGC()
        return savepoint

    def tpc_begin(self, transaction: Any) -> None:
        """Begin the commit; ReadOnlyHistoryError for a historical connection."""
        self._refuse_to_rewrite_history()
        self._check_thread()
        self._user = _get_ident()  # until tpc_finish or tpc_abort
        self._commit.begin(transaction)

    def commit(self, transaction: Any) -> None:
        """Store what was changed; ConflictError where the storage finds out at once."""
        self._commit.store()

    def tpc_vote(self, transaction: Any) -> None:
        """Ask for the storage's promise; ConflictError, ReadConflictError."""
        self._commit.vote()

    def tpc_finish(self, transaction: Any) -> None:
        """Commit for good."""
        self._commit.finish()
        self._load = self._snapshot.load
        self._user = _NOBODY
        self._joined = False

    def tpc_abort(self, transaction: Any) -> None:
        """Forget all changes, in whatever phase of the commit."""
        self.abort(transaction)

    def abort(self, transaction: Any) -> None:
        """Forget all changes; new objects lose `_p_oid` and `_p_jar`."""
        self._joined = False
        try:
            self._commit.abort()
        finally:
            self._load = self._snapshot.load
            self._user = _NOBODY

    # -- for transaction: a synchronizer -------------------------------------------------------------------------------

    def beforeCompletion(self, transaction: Any) -> None:  # noqa: N802
        """Do nothing."""

    def newTransaction(self, transaction: Any, sync: bool = True) -> None:  # noqa: N802
        """See the newest state of the database from now on; with `sync`, what the storage finds when it looks anew."""
        if sync and self._sync is not None:
            self._sync()
        self._move_on()

    def afterCompletion(self, transaction: Any) -> None:  # noqa: N802
        """See the newest state from now on, too: not everybody begins transactions explicitly."""
        if not self._explicit:
            self._move_on()
        self._cache.incrgc()

    def _move_on(self) -> None:
        if self._user:
            self._check_thread()
        self._commit.forget_reads()
        changed = self._snapshot.advance()
        if changed is None:
            changed = self._cache.cache_data
        if changed:
            self._cache.invalidate(list(changed))
