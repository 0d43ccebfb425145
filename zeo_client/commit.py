"""What a connection's transaction changes: savepoints, and the phases of committing or forgetting it."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any, Final

from transaction.interfaces import InvalidSavepointRollbackError

from zeo_client.blob import Blob
from zeo_client.blob_access import BlobAccess
from zeo_client.export import ImportedObject
from zeo_client.revival import revive
from zeo_client.savepoint import SPOOL_MEMORY_BYTES, Mark, Savepoint, Spool
from zeo_client.serialize import Jar, ObjectWriter, dotted_name
from zeo_client.snapshot import InvalidationHub, View
from zeo_core.errors import ConflictError, InvalidObjectReference, OpenedBlobError, StorageTransactionError
from zeo_core.ids import ZERO_TID, Oid, Tid, oid_repr
from zeo_core.storage import Transacts

__all__ = ["LARGE_RECORD_BYTES", "Commit", "StorageTransaction", "claim"]

LARGE_RECORD_BYTES: Final = 16 * 1024 * 1024
"""ZODB's default for the size from which on a record is worth a warning."""

_Store = Callable[[Oid, Tid, bytes, str | None], object]
"""Stores an oid, the serial it was made from, its data, and the file of a blob, which is taken over."""


class StorageTransaction:
    """What the storage is told of a transaction; the very object is the storage's key to it."""

    __slots__ = ("description", "extension", "user")

    def __init__(self, user: str, description: str, extension: dict[str, Any]) -> None:
        self.user = user
        self.description = description
        self.extension = extension


def claim(transaction: Any, storage: Transacts, claimant: object) -> None:
    """Note that `claimant` is who commits to `storage` in this transaction; StorageTransactionError if another does.

    Two would wait for each other, or commit in two parts.
    """
    try:
        transaction.data(storage)
    except KeyError:
        transaction.set_data(storage, claimant)
    else:
        raise StorageTransactionError(
            f"two connections to {storage.name()}, or a connection and an undo, have changes in one transaction;"
            " use one connection a transaction, or give the second its own transaction manager"
        )


class Commit:
    """The changes of one connection, transaction after transaction, and their way into the storage.

    The calls come in the order of `transaction`'s two-phase commit: begin, store, vote, then finish, or abort at any
    time, also without begin and more than once. Savepoints come before begin.
    """

    def __init__(self, jar: Jar, cache: Any, storage: Transacts, snapshot: View, hub: InvalidationHub) -> None:
        self.large_record_bytes = LARGE_RECORD_BYTES
        self.spool_memory_bytes = SPOOL_MEMORY_BYTES
        self.stored_count = 0
        """How many records were stored, savepoints' included, for Connection.getTransferCounts."""
        self._jar = jar
        self._cache = cache
        self._storage = storage
        self._snapshot = snapshot
        self._hub = hub
        self.blobs = BlobAccess(storage, lambda oid: None if self._spool is None else self._spool.blob(oid))
        """The way to the files of the connection's blobs."""
        self._writer = ObjectWriter(jar)
        self._registered: list[Any] = []  # changed by the application, or added; the order of the changes
        # Without a committed revision and in no savepoint yet: added, or met while storing.
        self._new: dict[Oid, Any] = {}
        self._added: set[Oid] = set()  # those of them that were added
        self._stored: dict[Oid, Any] = {}  # given to the storage, or to the savepoint that is being made
        self._current: dict[Oid, Tid] = {}  # to be current still, by readCurrent
        self._spool: Spool | None = None  # what the transaction's savepoints have
        self._key: StorageTransaction | None = None

    # -- what is changed -----------------------------------------------------------------------------------------------

    def register(self, obj: Any) -> None:
        """Take note that `obj` was changed."""
        self._registered.append(obj)

    def add(self, obj: Any) -> None:
        """Take a new object that is to be stored whether or not others refer to it."""
        self._added.add(self.adopt(obj))
        self._registered.append(obj)

    def adopt(self, obj: Any, oid: Oid | None = None) -> Oid:
        """Give a new object its oid; it loses it again if the transaction is aborted."""
        if type(obj).__module__ == "ZODB.blob":
            raise InvalidObjectReference(
                "a Blob of ZODB's can only be stored through ZODB.DB: use zeo_client.Blob here"
            )
        if oid is None:
            oid = self._storage.new_oid()
        obj._p_jar = self._jar
        obj._p_oid = oid
        self._new[oid] = obj
        return oid

    def new_object(self, oid: Oid) -> Any:
        """Return the object that has this oid, and no record yet; None if there is none."""
        return self._new.get(oid)

    def implicitly_added(self, oid: Oid) -> bool:
        """Tell whether this is a new object that nobody added, but that others refer to."""
        if oid in self._new:
            return oid not in self._added
        return self._spool is not None and self._spool.created.get(oid, False)

    def read_current(self, oid: Oid, serial: Tid) -> None:
        """Make the commit depend on `serial` being current."""
        self._current[oid] = serial

    def forget_reads(self) -> None:
        """Drop what read_current asked for; a new transaction begins."""
        self._current.clear()

    # -- savepoints ----------------------------------------------------------------------------------------------------

    def savepoint(self) -> Savepoint:
        """Keep the records of all objects that were changed since the last savepoint, and return the way back here.

        The objects are as if they were committed: their state may be let go from memory, `load` has it.
        """
        spool = self._spool_of_transaction()
        self._store_changed(spool.store)
        for oid, obj in self._stored.items():
            if oid in self._new:
                spool.created[oid] = oid not in self._added
            obj._p_changed = False
        self._start_afresh()
        return Savepoint(spool, self._roll_back)

    def take_in(self, objects: Iterable[ImportedObject]) -> None:
        """Keep new objects, which are in no memory yet, as a savepoint does; if the walk of them raises, none."""
        savepoint, spool = self.savepoint(), self._spool_of_transaction()
        try:
            for oid, data, blob in objects:
                spool.store(oid, ZERO_TID, data, blob)
                spool.created[oid] = False
        except BaseException:
            savepoint.rollback()
            raise

    def _spool_of_transaction(self) -> Spool:
        if self._spool is None:
            self._spool = Spool(self.spool_memory_bytes, blob_parent=self.blobs.temporary_directory)
        return self._spool

    def load(self, oid: Oid) -> tuple[bytes, Tid]:
        """Return an object's data and serial as of the last savepoint that has it, else of the snapshot."""
        spool = self._spool
        if spool is not None and oid in spool:
            return spool.load(oid)
        return self._snapshot.load(oid)

    def _roll_back(self, spool: Spool, mark: Mark) -> None:
        if spool is not self._spool:
            raise InvalidSavepointRollbackError("the transaction of this savepoint is over")
        changed = self._changed() | spool.oids_since(mark)
        disowned = self._disown_new(spool.created_since(mark))
        spool.reset(mark)  # before the objects are invalidated: those that load at once are to find the older state
        self._start_afresh()
        self._cache.invalidate(list(changed - disowned))

    # -- the phases of a commit ----------------------------------------------------------------------------------------

    def begin(self, transaction: Any) -> None:
        """First phase: tell the storage."""
        claim(transaction, self._storage, self._jar)
        key = StorageTransaction(transaction.user, transaction.description, transaction.extension)
        self._storage.tpc_begin(key)
        self._key = key

    def store(self) -> None:
        """Second phase: store all changed objects, the new ones that can be reached from them, and the savepoints'."""
        storage, key = self._storage, self._key

        def store(oid: Oid, serial: Tid, data: bytes, blob: str | None) -> None:
            if blob is None:
                storage.store(oid, serial, data, "", key)
            else:
                self.blobs.storage("Storing").storeBlob(oid, serial, data, blob, "", key)

        try:
            self._store_changed(store)
            self._store_spooled(store)
            for oid, serial in self._current.items():
                # To store it proves that it was current. (BTrees ask for the check of buckets that they change next.)
                if oid not in self._stored:
                    storage.check_current(oid, serial, key)
        except ConflictError as error:
            self._take_conflict(error)
            raise

    def _store_changed(self, store: _Store) -> None:
        """Store the objects that were changed since the last savepoint, and the new ones reached from them."""
        # The list may grow meanwhile: a __getstate__ may change or add objects.
        for obj in self._registered:
            oid = obj._p_oid
            if oid is None or obj._p_jar is not self._jar:
                raise InvalidObjectReference(
                    f"{dotted_name(obj)} with oid {oid_repr(oid)} was moved to {obj._p_jar!r}"
                    " after it was changed here; abort this transaction, and leave _p_oid and _p_jar to the"
                    " connections: to have the object twice,"
                    " store a copy"
                )
            if oid in self._stored if oid in self._new else not obj._p_changed:
                continue  # stored with an object that refers to it; or the application took its change back
            self._store_reachable(obj, store)
        self.stored_count += len(self._stored)

    def _store_reachable(self, obj: Any, store: _Store) -> None:
        writer, cache, new, stored = self._writer, self._cache, self._new, self._stored
        waiting = writer.new
        waiting.append(obj)
        while waiting:
            obj = waiting.pop()
            oid = obj._p_oid
            file = None
            if type(obj) is Blob:
                file = self._new_file_of(obj)
                if file is None:
                    continue
            data = writer.serialize(obj)
            size = len(data)
            if size >= self.large_record_bytes:
                self._warn_of_large_record(obj, size)
            store(oid, getattr(obj, "_p_serial", None) or ZERO_TID, data, file)
            if oid in new:
                cache[oid] = obj
            stored[oid] = obj
            cache.update_object_size_estimation(oid, size)
            obj._p_estimated_size = size

    def _store_spooled(self, store: _Store) -> None:
        """Store what only the savepoints have; it is not read into objects for that, some may be in no memory."""
        spool = self._spool
        if spool is None:
            return
        for oid in spool.oids():
            if oid not in self._stored:
                data, serial = spool.load(oid)
                store(oid, serial, data, spool.blob(oid))
                self._stored[oid] = None

    def _warn_of_large_record(self, obj: Any, size: int) -> None:
        warnings.warn(
            f"the record of {dotted_name(obj)} with oid {oid_repr(obj._p_oid)} is large: {size} bytes."
            " All of it is loaded and stored whenever a part of it is used or changed. Keep media in blobs, collections"
            " in BTrees, and parts in persistent objects of their own; or raise the DB's large_record_size.",
            UserWarning,
            stacklevel=2,
        )

    def _new_file_of(self, blob: Blob) -> str | None:
        """Return the file that the blob was given since it was stored last, to be taken over; None if it has none."""
        self.blobs.storage("Storing")
        if blob.opened():
            raise OpenedBlobError(f"the blob {oid_repr(blob._p_oid)} is open; close its files before the commit")
        file = blob.take_uncommitted()
        if file is None:
            blob._p_changed = False
        return file

    def vote(self) -> None:
        """Third phase: the storage's last word on conflicts."""
        try:
            resolved = self._storage.tpc_vote(self._key)
        except ConflictError as error:
            self._take_conflict(error)
            raise
        for oid in resolved or ():
            obj = self._cache.get(oid)
            if obj is not None:
                del obj._p_changed  # a ghost: the state here is not the one that was resolved to

    def _take_conflict(self, error: ConflictError) -> None:
        """Name the class of the object, which the storage may not know; what was read of it is out of date."""
        oid = error.oid
        obj = None if oid is None else self._cache.get(oid)
        if obj is None:
            return
        if error.class_name is None:
            error.name_class(dotted_name(obj))
        self._cache.invalidate(oid)

    def finish(self) -> Tid:
        """Last phase: commit; every other connection of the DB is told before the storage's last tid moves."""
        stored = self._stored

        def announce(tid: Tid) -> None:
            self._hub.committed(tid, stored, self._snapshot)

        tid = self._storage.tpc_finish(self._key, announce)
        for oid, obj in stored.items():
            if obj is None:  # from a savepoint
                obj = self._cache.get(oid)
            if obj is not None and obj._p_changed is not None:
                obj._p_changed = False
                obj._p_serial = tid
        self._end()
        return tid

    def abort(self) -> None:
        """Forget all changes: changed objects become ghosts, new ones belong to no database any more."""
        key, self._key = self._key, None
        try:
            if key is not None:
                self._storage.tpc_abort(key)
        finally:
            spool = self._spool
            changed = self._changed()
            disowned = self._disown_new(spool.created if spool is not None else ())
            if spool is not None:
                changed.update(spool.oids())
            self._end()  # before the objects are invalidated: some load their state at once
            self._cache.invalidate(list(changed - disowned))

    # -- forgetting ----------------------------------------------------------------------------------------------------

    def _changed(self) -> set[Oid]:
        """Return the oids of all objects changed since the last savepoint."""
        changed: set[Any] = {obj._p_oid for obj in self._registered if obj._p_jar is self._jar}
        changed.update(self._stored)
        changed.discard(None)
        return changed

    def _disown_new(self, spooled: Iterable[Oid]) -> set[Oid]:
        """Take oid and connection from the new objects and those of `spooled` oids; return the oids of all of them."""
        disowned = set(spooled)
        if self._spool is not None:
            revive(self._spool, self._cache, disowned)
        for oid in disowned:
            obj = self._cache.get(oid)
            if obj is not None:
                self._disown(oid, obj)
        for oid, obj in self._new.items():
            self._disown(oid, obj)
        disowned.update(self._new)
        return disowned

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
        """Forget the changes that are in a savepoint, committed or aborted."""
        self._registered = []
        self._new = {}
        self._added = set()
        self._stored = {}
        self._writer.forget()

    def _end(self) -> None:
        """Forget everything; the transaction is over."""
        self._key = None
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.close()
        self._start_afresh()
