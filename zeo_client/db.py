"""A DB: one storage, and the connections through which threads use its objects."""

import functools
import threading
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from types import TracebackType
from typing import Any, Self, TypeVar

import transaction as transaction_package

from zeo_client import reports
from zeo_client.activity import Monitor
from zeo_client.attempts import DEFAULT_ATTEMPTS, Attempts
from zeo_client.broken import find_class
from zeo_client.connection import Connection
from zeo_client.creation import ensure_root
from zeo_client.events import DatabaseClosed, DatabaseOpened, tell, tell_of_end
from zeo_client.foreign import contract_of
from zeo_client.historical import Moment, tid_before
from zeo_client.pool import NEVER_S, ConnectionPool
from zeo_client.registry import storage_factory
from zeo_client.serialize import FindClass
from zeo_client.snapshot import InvalidationHub
from zeo_client.undo import Undo, undo_ids
from zeo_core.errors import ConnectionStateError, StorageError
from zeo_core.ids import Oid, Tid, successor, tid_repr
from zeo_core.storage import Packs, Transacts

__all__ = ["DB", "ClassFactory"]

ClassFactory = Callable[[Connection, str, str], Any]
"""Returns the class, or a stand-in, for a connection, a module and a name."""

_Result = TypeVar("_Result")

_DAY_S = 86_400
_TEXTS = ("user_name", "description")


class DB:
    """The objects of one storage. Any number of threads may use it, each with its own connection.

    `storage` is one of ours, or any with ZODB's storage API that does not keep an instance for each connection. It may
    also be the name of a file, or None for a database in memory; `storage_args` are then for the storage.
    Closing the DB closes the storage; so does leaving `with DB(...)`. An empty storage gets its root object, a
    PersistentMapping: ReadOnlyError if it cannot be written.

    `pool_size` is how many closed connections are kept, and for how many seconds `pool_timeout`; `cache_size` how many
    objects each may have in memory at a transaction's end, `cache_size_bytes` how many bytes of records (0: any
    number). `historical_...` are the same for connections to the past, whose pool they share among them all.

    `databases` is a dictionary by name of the databases whose objects may refer to each other; this one joins it under
    its `database_name`: ValueError if there is one of that name already. Without `xrefs`, its objects may not refer to
    those of the others. Records of `large_record_size` bytes and more are warned of.
    `class_factory(connection, module, name)` may take the place of importing classes.
    """

    classFactory: ClassFactory | None = None  # noqa: N815 - ZODB's name
    """How the connections that are opened next find classes: set by `class_factory`, or a method of a subclass."""

    def __init__(
        self,
        storage: Transacts | str | None,
        pool_size: int = 7,
        pool_timeout: float = NEVER_S,
        cache_size: int = 400,
        cache_size_bytes: int = 0,
        historical_pool_size: int = 3,
        historical_cache_size: int = 1000,
        historical_cache_size_bytes: int = 0,
        historical_timeout: float = 300,
        database_name: str = "unnamed",
        databases: MutableMapping[str, Any] | None = None,
        xrefs: bool = True,
        large_record_size: int = 1 << 24,
        class_factory: ClassFactory | None = None,
        **storage_args: Any,
    ) -> None:
        databases = {} if databases is None else databases
        if not getattr(databases.get(database_name), "closed", True):
            raise ValueError(f"database_name {database_name!r} already in databases")
        self.storage = _storage(storage, storage_args)
        self.database_name = database_name
        self.databases = databases
        self.xrefs = xrefs
        self.large_record_size = large_record_size
        self.hub = InvalidationHub()
        """Tells the connections what has changed; for them, not for applications."""
        self.pool = ConnectionPool(pool_size, pool_timeout)
        self.historical_pool = ConnectionPool(historical_pool_size, historical_timeout)
        self._cache_size = cache_size
        self._cache_size_bytes = cache_size_bytes
        self._historical_cache_size = historical_cache_size
        self._historical_cache_size_bytes = historical_cache_size_bytes
        if class_factory is not None:
            self.classFactory = class_factory
        self._activity_monitor: Monitor | None = None
        self._lock = threading.Lock()
        self._closed = False
        self.storage.register_sink(self.hub)
        try:
            ensure_root(self)
        except BaseException:
            if storage is None or isinstance(storage, str):  # opened here
                self.storage.close()
            raise
        databases[database_name] = self
        try:
            tell(DatabaseOpened(self))
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<DB {self.database_name!r} on {self.storage.name()}>"

    # -- connections ---------------------------------------------------------------------------------------------------

    def open(
        self, transaction_manager: Any = None, at: Moment | None = None, before: Moment | None = None
    ) -> Connection:
        """Return a connection, an idle one if there is one; close it after use.

        It takes part in the transactions of `transaction_manager`, by default the calling thread's own.

        With `at` or `before`, each a tid, a datetime (UTC if it names no zone) or seconds since 1970, it shows the
        database as of that moment, or as it was before it, and nothing can be committed through it
        (ReadOnlyHistoryError). ValueError for a moment after the last transaction: what such a connection shows would
        change.
        """
        tid = tid_before(at, before)
        if tid is not None:
            self._refuse_the_future(tid)
        connection = self._take(tid)
        connection.open(transaction_manager)
        return connection

    def _refuse_the_future(self, before: Tid) -> None:
        last = self._last_before(before)
        if before > successor(last):
            raise ValueError(
                "cannot open an historical connection in the future:"
                f" {tid_repr(before)} is later than the last transaction, {tid_repr(last)}"
            )

    def _last_before(self, before: Tid) -> Tid:
        """Return the last transaction; if that is not known to be a later one than `before` asks for, make sure."""
        ask = getattr(self.storage, "ping", None)
        if ask is not None and before > successor(self.lastTransaction()):
            ask()  # another client may have committed what this one has not heard of yet
        return self.lastTransaction()

    def open_beside(self, primary: Connection) -> Connection:
        """Return a connection that joins those which are open together with `primary`; connections call this.

        Beside a historical one it shows the same moment, or what this database had last before it.
        """
        before = primary.before
        if before is not None:
            before = min(before, successor(self._last_before(before)))
        connection = self._take(before, alone=True)
        connection.open(primary.transaction_manager)
        return connection

    def _take(self, before: Tid | None, *, alone: bool = False) -> Connection:
        with self._lock:
            if self._closed:
                raise ConnectionStateError(f"{self!r} is closed; make a new DB, or close this one later")
            surplus = self.pool.reduce() + self.historical_pool.reduce()
            pool = self.pool if before is None else self.historical_pool
            connection = pool.take(before, alone=alone)
            if connection is None:
                connection = self._new_connection(before)
                pool.add(connection)
        _release(surplus)
        return connection

    def _new_connection(self, before: Tid | None) -> Connection:
        if before is None:
            return Connection(self, self._cache_size, self._cache_size_bytes)
        return Connection(self, self._historical_cache_size, self._historical_cache_size_bytes, before)

    def transaction(
        self,
        note: str | None = None,
        *,
        attempts: int | None = None,
        user: str | None = None,
        extension: Mapping[str, Any] | None = None,
    ) -> Attempts:
        """Give a connection with a transaction of its own: `with db.transaction() as conn:`.

        It is committed at the end of the block, aborted if an exception leaves it. `note`, `user` and `extension`
        (plain values by names) describe it in the database's history. A ConflictError comes out of the commit: run the
        block again. That is what `for attempt in db.transaction(attempts=5): with attempt as conn:` does; after the
        last attempt the error comes out. Between attempts it waits a moment, longer each time.
        """
        return Attempts(self, attempts, note, user, extension)

    def run(
        self,
        function: Callable[[Connection], _Result],
        attempts: int = DEFAULT_ATTEMPTS,
        *,
        note: str | None = None,
        user: str | None = None,
        extension: Mapping[str, Any] | None = None,
    ) -> _Result:
        """Call `function` with a connection, commit, and return what it returned; see `transaction`.

        It may be called several times, so all that it does is to be in the database. What it returns should not be
        persistent objects: their connection is closed afterwards.
        """
        for attempt in Attempts(self, attempts, note, user, extension):
            with attempt as connection:
                result = function(connection)
        return result

    # -- the storage ---------------------------------------------------------------------------------------------------

    def lastTransaction(self) -> Tid:  # noqa: N802 - ZODB's name, as all of this kind below
        """Return the tid of the last transaction, ZERO_TID if there is none."""
        return self.storage.last_tid()

    def getName(self) -> str:  # noqa: N802
        """Return the storage's name."""
        return self.storage.name()

    def getSize(self) -> int:  # noqa: N802
        """Return how many bytes the storage takes, roughly."""
        return self.storage.byte_size()

    def objectCount(self) -> int:  # noqa: N802
        """Return how many objects there are, roughly."""
        return self.storage.object_count()

    def pack(self, t: float | None = None, days: float = 0) -> None:
        """Drop what had been replaced, and was out of use, at `t` (seconds since 1970; now), or `days` before that.

        StorageError if the storage cannot be packed.
        """
        until_s = (time.time() if t is None else t) - days * _DAY_S
        pack = getattr(self.storage, "pack", None)
        if isinstance(self.storage, Packs):
            for _progress in self.storage.pack_steps(until_s):
                pass
        elif callable(pack):
            pack(until_s)
        else:
            raise StorageError(f"{self.getName()} cannot be packed: its storage has no pack")

    def close(self) -> None:
        """Close the storage; connections that are still open lose their changes. Harmless when repeated."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            connections = self.pool.clear() + self.historical_pool.clear()
        for connection in connections:
            connection.release()
        self.storage.close()
        self.databases = {}  # so that the others can go
        tell_of_end(DatabaseClosed(self))

    @property
    def closed(self) -> bool:
        """Tell whether the database was closed."""
        return self._closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- history -------------------------------------------------------------------------------------------------------

    def supportsUndo(self) -> bool:  # noqa: N802
        """Tell whether the storage can take back transactions."""
        supports = getattr(self.storage, "supportsUndo", None)
        return bool(supports and supports())

    def undo(self, id: bytes | str | Iterable[bytes | str], txn: Any = None) -> None:  # noqa: A002 - ZODB's name
        """Take back a transaction, or several, when `txn` (by default the current transaction) commits.

        Each is named by its tid, or by its `id` in undoLog. The commit raises an UndoError if later transactions
        changed the same objects in a way that cannot be kept. NotImplementedError if the storage keeps no history.
        """
        if not self.supportsUndo():
            raise NotImplementedError(f"{self.getName()} cannot undo transactions")
        ids = undo_ids(id)
        Undo.of(self, transaction_package.get() if txn is None else txn).add(ids)

    def undoMultiple(self, ids: Iterable[bytes | str], txn: Any = None) -> None:  # noqa: N802
        """Take back several transactions, in this order; see undo."""
        self.undo(ids, txn)

    def undoLog(  # noqa: N802
        self,
        first: int = 0,
        last: int = -20,
        filter: Callable[[dict[str, Any]], object] | None = None,  # noqa: A002 - ZODB's name
    ) -> list[dict[str, Any]]:
        """Return what may be undone, newest first, as dictionaries: id, time, user_name, description, size, extension.

        Those from number `first` up to number `last`; a negative `last` is how many. Only what `filter` wants counts;
        it is the storage that asks it, with bytes for user_name and description. Empty if the storage keeps no history.
        """
        storage: Any = self.storage
        return _with_texts(storage.undoLog(first, last, filter)) if self.supportsUndo() else []

    def undoInfo(  # noqa: N802
        self, first: int = 0, last: int = -20, specification: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Return what may be undone, of what has `specification`'s keys and values (texts as bytes); see undoLog."""
        storage: Any = self.storage
        return _with_texts(storage.undoInfo(first, last, specification)) if self.supportsUndo() else []

    undo_info = undoInfo

    def history(self, oid: Oid, size: int = 1) -> list[dict[str, Any]]:
        """Return up to `size` revisions of an object, newest first: time, tid, user_name, description, size."""
        storage: Any = self.storage
        return _with_texts(storage.history(oid, size))

    # -- pools and caches ----------------------------------------------------------------------------------------------

    def getPoolSize(self) -> int:  # noqa: N802
        """Return how many closed connections are kept."""
        return self.pool.size

    def setPoolSize(self, size: int) -> None:  # noqa: N802
        """Keep so many closed connections from now on."""
        self._resize(self.pool, size=size)

    def getHistoricalPoolSize(self) -> int:  # noqa: N802
        """Return how many closed connections to the past are kept."""
        return self.historical_pool.size

    def setHistoricalPoolSize(self, size: int) -> None:  # noqa: N802
        """Keep so many closed connections to the past from now on."""
        self._resize(self.historical_pool, size=size)

    def getHistoricalTimeout(self) -> float:  # noqa: N802
        """Return for how many seconds a closed connection to the past is kept."""
        return self.historical_pool.timeout

    def setHistoricalTimeout(self, timeout: float) -> None:  # noqa: N802
        """Keep closed connections to the past for so many seconds from now on."""
        self._resize(self.historical_pool, timeout=timeout)

    def _resize(self, pool: ConnectionPool, *, size: int | None = None, timeout: float | None = None) -> None:
        with self._lock:
            pool.size = pool.size if size is None else size
            pool.timeout = pool.timeout if timeout is None else timeout
            surplus = pool.reduce()
        _release(surplus)

    def getCacheSize(self) -> int:  # noqa: N802
        """Return how many objects a connection may keep in memory."""
        return self._cache_size

    def setCacheSize(self, size: int) -> None:  # noqa: N802
        """Let each connection keep so many objects in memory from now on."""
        with self._lock:
            self._cache_size = size
            for connection in self.pool.all:
                connection.cache.cache_size = size

    def getCacheSizeBytes(self) -> int:  # noqa: N802
        """Return how many bytes of records a connection may keep in memory, 0 for any number."""
        return self._cache_size_bytes

    def setCacheSizeBytes(self, size: int) -> None:  # noqa: N802
        """Let each connection keep so many bytes of records in memory from now on."""
        with self._lock:
            self._cache_size_bytes = size
            for connection in self.pool.all:
                connection.cache.cache_size_bytes = size

    def getHistoricalCacheSize(self) -> int:  # noqa: N802
        """Return how many objects a connection to the past may keep in memory."""
        return self._historical_cache_size

    def setHistoricalCacheSize(self, size: int) -> None:  # noqa: N802
        """Let each connection to the past keep so many objects in memory from now on."""
        with self._lock:
            self._historical_cache_size = size
            for connection in self.historical_pool.all:
                connection.cache.cache_size = size

    def getHistoricalCacheSizeBytes(self) -> int:  # noqa: N802
        """Return how many bytes of records a connection to the past may keep in memory, 0 for any number."""
        return self._historical_cache_size_bytes

    def setHistoricalCacheSizeBytes(self, size: int) -> None:  # noqa: N802
        """Let each connection to the past keep so many bytes of records in memory from now on."""
        with self._lock:
            self._historical_cache_size_bytes = size
            for connection in self.historical_pool.all:
                connection.cache.cache_size_bytes = size

    # -- reports -------------------------------------------------------------------------------------------------------

    def cacheSize(self) -> int:  # noqa: N802
        """Return how many objects have their state in the memory of any connection."""
        return sum(connection.cached for connection in self._connections())

    def cacheDetail(self) -> list[tuple[str, int]]:  # noqa: N802
        """Return (class, number of objects in all caches), sorted by class."""
        return reports.classes(self._connections())

    def cacheDetailSize(self) -> list[dict[str, Any]]:  # noqa: N802
        """Return a dictionary for each connection: connection, ngsize (objects with their state), size (all)."""
        return reports.sizes(self._connections())

    def cacheExtremeDetail(self) -> list[dict[str, Any]]:  # noqa: N802
        """Return a dictionary for each object in a cache: conn_no, oid, id, klass, rc (references to it), state."""
        return reports.objects(self._connections())

    def connectionDebugInfo(self) -> list[dict[str, Any]]:  # noqa: N802
        """Return a dictionary for each connection: opened, info (what Connection.setDebugInfo was given), before."""
        return reports.connection_info(self._connections())

    def cacheMinimize(self) -> None:  # noqa: N802
        """Make the unchanged objects of all connections ghosts."""
        for connection in self._connections():
            connection.cache.minimize()

    def cacheFullSweep(self) -> None:  # noqa: N802
        """Make the unchanged objects of all connections ghosts that were not used since the last sweep."""
        for connection in self._connections():
            connection.cache.full_sweep()

    def getActivityMonitor(self) -> Monitor | None:  # noqa: N802
        """Return the monitor that counts what connections load and store, None if there is none."""
        return self._activity_monitor

    def setActivityMonitor(self, am: Monitor | None) -> None:  # noqa: N802
        """Tell `am` of every connection that is closed from now on; zeo_client.activity has a monitor."""
        self._activity_monitor = am

    def _connections(self) -> list[Connection]:
        with self._lock:
            return self.pool.everything() + self.historical_pool.everything()

    # -- for connections -----------------------------------------------------------------------------------------------

    def put_back(self, connection: Connection) -> None:
        """Take a connection that was closed."""
        with self._lock:
            pool = self.pool if connection.before is None else self.historical_pool
            surplus = [connection] if self._closed else pool.put_back(connection)
        _release(surplus)

    def closed_connection(self, connection: Connection) -> None:
        """Let the activity monitor know of a connection that is being closed."""
        if self._activity_monitor is not None:
            self._activity_monitor.closedConnection(connection)

    def class_finder(self, connection: Connection) -> FindClass:
        """Return how `connection` finds classes."""
        if self.classFactory is None:
            return find_class
        return functools.partial(self.classFactory, connection)


def _storage(storage: Transacts | str | None, options: dict[str, Any]) -> Transacts:
    """Return the storage that is meant: itself, a file's, or a new one in memory."""
    if storage is None:
        return storage_factory("mappingstorage")(**options)
    if isinstance(storage, str):
        return storage_factory("filestorage")(storage, **options)
    if options:
        raise TypeError(f"options for a storage that is open already: {', '.join(sorted(options))}")
    return contract_of(storage)


def _release(connections: list[Connection]) -> None:
    """End connections that are closed, and those to other databases that were closed with them."""
    for connection in connections:
        for each in list(connection.connections.values()):
            each.release()


def _with_texts(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a storage's lines of history with text where it has bytes."""
    return [
        line | {name: line[name].decode() for name in _TEXTS if isinstance(line.get(name), bytes)} for line in lines
    ]
