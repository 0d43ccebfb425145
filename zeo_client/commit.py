"""What a connection's transaction changes, and the phases of committing or forgetting it."""

from typing import Any

from zeo_client.serialize import Jar, ObjectWriter, dotted_name
from zeo_client.snapshot import InvalidationHub, Snapshot
from zeo_core.errors import ConflictError, InvalidObjectReference, ReadConflictError, StorageTransactionError
from zeo_core.ids import ZERO_TID, Oid, Tid, oid_repr
from zeo_core.storage import Transacts

__all__ = ["Commit", "StorageTransaction"]


class StorageTransaction:
    """What the storage is told of a transaction; the very object is the storage's key to it."""

    __slots__ = ("description", "extension", "user")

    def __init__(self, user: str, description: str, extension: dict[str, Any]) -> None:
        self.user = user
        self.description = description
        self.extension = extension


class Commit:
    """The changes of one connection, transaction after transaction, and their way into the storage.

    The calls come in the order of `transaction`'s two-phase commit: begin, store, vote, then finish, or abort at any
    time, also without begin and more than once.
    """

    def __init__(self, jar: Jar, cache: Any, storage: Transacts, snapshot: Snapshot, hub: InvalidationHub) -> None:
        self._jar = jar
        self._cache = cache
        self._storage = storage
        self._snapshot = snapshot
        self._hub = hub
        self._writer = ObjectWriter(jar)
        self._registered: list[Any] = []  # changed by the application, or added; the order of the changes
        self._new: dict[Oid, Any] = {}  # without a committed revision: added, or met while storing
        self._stored: dict[Oid, Any] = {}  # given to the storage in this commit
        self._current: dict[Oid, Tid] = {}  # to be current still, by readCurrent
        self._key: StorageTransaction | None = None

    def register(self, obj: Any) -> None:
        """Take note that `obj` was changed."""
        self._registered.append(obj)

    def adopt(self, obj: Any, oid: Oid | None = None) -> Oid:
        """Give a new object its oid; it loses it again if the transaction is aborted."""
        if oid is None:
            oid = self._storage.new_oid()
        obj._p_jar = self._jar
        obj._p_oid = oid
        self._new[oid] = obj
        return oid

    def new_object(self, oid: Oid) -> Any:
        """Return the object without a committed revision that has this oid, None if there is none."""
        return self._new.get(oid)

    def read_current(self, oid: Oid, serial: Tid) -> None:
        """Make the commit depend on `serial` being current."""
        self._current[oid] = serial

    def forget_reads(self) -> None:
        """Drop what read_current asked for; a new transaction begins."""
        self._current.clear()

    def begin(self, transaction: Any) -> None:
        """First phase: tell the storage."""
        self._refuse_a_second_connection(transaction)
        key = StorageTransaction(transaction.user, transaction.description, transaction.extension)
        self._storage.tpc_begin(key)
        self._key = key

    def _refuse_a_second_connection(self, transaction: Any) -> None:
        """Two connections to one storage in one transaction would wait for each other, or commit in two parts."""
        try:
            transaction.data(self._storage)
        except KeyError:
            transaction.set_data(self._storage, self._jar)
        else:
            raise StorageTransactionError(
                f"two connections to {self._storage.name()} have changes in one transaction;"
                " use one connection a transaction, or give the second its own transaction manager"
            )

    def store(self) -> None:
        """Second phase: store all changed objects, and the new ones that can be reached from them."""
        # The list may grow meanwhile: a __getstate__ may change or add objects.
        for obj in self._registered:
            oid = obj._p_oid
            if oid is None or obj._p_jar is not self._jar:
                raise InvalidObjectReference(f"{dotted_name(obj)} with oid {oid_repr(oid)} was moved to {obj._p_jar!r}")
            if oid in self._stored if oid in self._new else not obj._p_changed:
                continue  # stored with an object that refers to it; or the application took its change back
            self._store_reachable(obj)
        for oid, serial in self._current.items():
            try:
                self._storage.check_current(oid, serial, self._key)
            except ConflictError:
                self._cache.invalidate(oid)
                raise

    def _store_reachable(self, obj: Any) -> None:
        writer, cache, storage, new, key = self._writer, self._cache, self._storage, self._new, self._key
        waiting = writer.new
        waiting.append(obj)
        while waiting:
            obj = waiting.pop()
            oid = obj._p_oid
            data = writer.serialize(obj)
            storage.store(oid, getattr(obj, "_p_serial", ZERO_TID), data, "", key)
            if oid in new:
                cache[oid] = obj
            self._stored[oid] = obj
            size = len(data)
            cache.update_object_size_estimation(oid, size)
            obj._p_estimated_size = size
            # Storing it proves that it was current. (BTrees ask for the check of buckets that they change afterwards.)
            self._current.pop(oid, None)

    def vote(self) -> None:
        """Third phase: the storage's last word on conflicts."""
        try:
            resolved = self._storage.tpc_vote(self._key)
        except ReadConflictError as error:
            if error.oid is not None:
                self._cache.invalidate(error.oid)
            raise
        for oid in resolved or ():
            obj = self._stored.get(oid)
            if obj is not None:
                del obj._p_changed  # a ghost: the state here is not the one that was resolved to

    def finish(self) -> Tid:
        """Last phase: commit; every other connection of the DB is told before the storage's last tid moves."""
        stored = self._stored

        def announce(tid: Tid) -> None:
            self._hub.committed(tid, stored, self._snapshot)

        tid = self._storage.tpc_finish(self._key, announce)
        for obj in stored.values():
            if obj._p_changed is not None:
                obj._p_changed = False
                obj._p_serial = tid
        self._start_afresh()
        return tid

    def abort(self) -> None:
        """Forget all changes: changed objects become ghosts, new ones belong to no database any more."""
        key, self._key = self._key, None
        try:
            if key is not None:
                self._storage.tpc_abort(key)
        finally:
            changed = {obj._p_oid for obj in self._registered} | self._stored.keys()
            self._cache.invalidate(list(changed - self._new.keys() - {None}))
            for oid, obj in self._new.items():
                self._disown(oid, obj)
            self._start_afresh()

    def _disown(self, oid: Oid, obj: Any) -> None:
        if obj._p_jar is not self._jar:
            return  # the application took it away meanwhile, and may have given it to another connection
        if self._cache.get(oid) is not None:
            del self._cache[oid]
        del obj._p_jar
        del obj._p_oid
        if obj._p_changed:
            obj._p_changed = False

    def _start_afresh(self) -> None:
        self._key = None
        self._registered = []
        self._new = {}
        self._stored = {}
        self._writer.forget()
