"""A DB: one storage, and the connections through which threads use its objects."""

import functools
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from persistent.mapping import PersistentMapping

from zeo_client.attempts import DEFAULT_ATTEMPTS, Attempts
from zeo_client.broken import find_class
from zeo_client.connection import Connection
from zeo_client.foreign import contract_of
from zeo_client.pool import ConnectionPool
from zeo_client.serialize import FindClass
from zeo_client.snapshot import InvalidationHub
from zeo_core.errors import ConnectionStateError, POSKeyError, ReadOnlyError
from zeo_core.ids import ROOT_OID, Oid, Tid
from zeo_core.storage import Transacts

__all__ = ["DB", "ClassFactory"]

ClassFactory = Callable[[Connection, str, str], Any]
"""Returns the class, or a stand-in, for a connection, a module and a name."""

_Result = TypeVar("_Result")

_ROOT_ATTEMPTS = 5  # several programs may meet in an empty database; all but the first find the root made


class DB:
    """The objects of one storage. Any number of threads may use it, each with its own connection.

    `storage` is one of ours, or any with ZODB's storage API that does not keep an instance for each connection.

    `pool_size` is how many closed connections are kept, `cache_size` how many objects each may have in memory at a
    transaction's end, `cache_size_bytes` how many bytes of records (0: any number). `class_factory(connection, module,
    name)` may take the place of importing classes. Closing the DB closes the storage; so does leaving `with DB(...)`.

    An empty storage gets its root object, a PersistentMapping: ReadOnlyError if it cannot be written.
    """

    def __init__(
        self,
        storage: Transacts,
        pool_size: int = 7,
        cache_size: int = 400,
        *,
        cache_size_bytes: int = 0,
        database_name: str = "unnamed",
        class_factory: ClassFactory | None = None,
    ) -> None:
        self.storage = storage = contract_of(storage)
        self.database_name = database_name
        self.hub = InvalidationHub()
        """Tells the connections what has changed; for them, not for applications."""
        self._class_factory = class_factory
        self._cache_size = cache_size
        self._cache_size_bytes = cache_size_bytes
        self._lock = threading.Lock()
        self._pool = ConnectionPool(pool_size)
        self._closed = False
        storage.register_sink(self.hub)
        self._ensure_root()

    def __repr__(self) -> str:
        return f"<DB {self.database_name!r} on {self.storage.name()}>"

    def open(self, transaction_manager: Any = None) -> Connection:
        """Return a connection, an idle one if there is one; close it after use.

        It takes part in the transactions of `transaction_manager`, by default the calling thread's own.
        """
        with self._lock:
            if self._closed:
                raise ConnectionStateError(f"{self!r} is closed")
            connection = self._pool.take()
            if connection is None:
                connection = Connection(self, self._cache_size, self._cache_size_bytes)
                self._pool.add(connection)
        connection.open(transaction_manager)
        return connection

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

    def lastTransaction(self) -> Tid:  # noqa: N802 - ZODB's name
        """Return the tid of the last transaction, ZERO_TID if there is none."""
        return self.storage.last_tid()

    def close(self) -> None:
        """Close the storage; connections that are still open lose their changes. Harmless when repeated."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            connections = self._pool.clear()
        for connection in connections:
            connection.release()
        self.storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- for connections -----------------------------------------------------------------------------------------------

    def put_back(self, connection: Connection) -> None:
        """Take a connection that was closed."""
        with self._lock:
            surplus = [connection] if self._closed else self._pool.put_back(connection)
        for each in surplus:
            each.release()

    def class_finder(self, connection: Connection) -> FindClass:
        """Return how `connection` finds classes."""
        if self._class_factory is None:
            return find_class
        return functools.partial(self._class_factory, connection)

    def _ensure_root(self) -> None:
        self.run(self._make_root, _ROOT_ATTEMPTS, note="initial database creation")

    def _make_root(self, connection: Connection) -> None:
        if _has(connection, ROOT_OID):
            return
        if self.storage.read_only():
            raise ReadOnlyError(f"{self.storage.name()} is empty and read-only: there is no root object to open")
        root = PersistentMapping()
        connection.adopt(root, ROOT_OID)
        connection.register(root)


def _has(connection: Connection, oid: Oid) -> bool:
    try:
        connection.get(oid)
    except POSKeyError:
        return False
    return True
