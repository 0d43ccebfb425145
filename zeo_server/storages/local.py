"""What storages in this process have in common: oids, and the two-phase commit for embedded use.

A served storage commits by `write_group` and `publish`, driven by the server's coordinator, which finds the conflicts
under object locks. Embedded, there is no coordinator: `LocalStorage` drives the same two calls itself, one transaction
at a time, from tpc_begin to tpc_finish or tpc_abort.

Embedded, the program's classes are at hand, so that conflicts are resolved here, by `_p_resolveConflict`: from the
moment when a DB registers itself. A server has no DB and resolves nothing here.
"""

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from threading import Lock, RLock
from typing import Any, NoReturn

from zeo_core.classes import import_class
from zeo_core.errors import (
    ConflictError,
    POSKeyError,
    ReadConflictError,
    ReadOnlyError,
    RecordFormatError,
    StorageError,
    StorageTransactionError,
)
from zeo_core.ids import MAX_TID, ZERO_TID, Oid, Tid, is_id, next_tid, oid_repr, pack_id, tid_repr, unpack_id
from zeo_core.protobuf_resolve import RuleOf
from zeo_core.record import class_name
from zeo_core.resolve import ClassLoader, UnresolvedError, resolve
from zeo_core.storage import Announce, Commits, InvalidationSink
from zeo_core.transaction import ObjectWrite, PreparedTransaction, TransactionMetadata, extension_bytes
from zeo_core.zodb import ZODBLog

__all__ = [
    "MAX_METADATA_BYTES",
    "LocalStorage",
    "OidSequence",
    "check_writable",
    "metadata_of",
    "restored_metadata_of",
    "tid_for",
]

logger = logging.getLogger(__name__)

MAX_METADATA_BYTES = 0xFFFF
"""The longest user, description or extension: Data.fs keeps their lengths in two bytes, other storages follow."""

_RECORD_OVERHEAD_BYTES = 50
"""What an object takes in Data.fs beside its data."""

_LAST_OID = 2**64 - 1


class OidSequence:
    """Gives out oids, none twice: always above every oid given out or seen in the storage (lesson B25)."""

    def __init__(self, highest: int = 0) -> None:
        """Start above `highest`; 0 is the root's oid, which is never given out."""
        self._lock = Lock()
        self._highest = highest

    def take(self, count: int) -> list[Oid]:
        """Return `count` fresh oids, growing; StorageError when all 2**64 are used up."""
        with self._lock:
            first = self._highest + 1
            if first + count - 1 > _LAST_OID:
                raise StorageError(f"no oids left above {self._highest:#x}")
            self._highest += count
        return [pack_id(number) for number in range(first, first + count)]

    def highest(self) -> Oid:
        """Return the highest oid that was given out or seen."""
        return pack_id(self._highest)

    def pass_by(self, oids: Iterable[Oid]) -> None:
        """Take note of oids that are in use, so that none of them is given out."""
        highest = unpack_id(max(oids, default=bytes(8)))
        with self._lock:
            self._highest = max(self._highest, highest)


def _metadata_bytes(name: str, value: object) -> bytes:
    """Return a text of the transaction's as UTF-8; StorageError if the format has no room for it."""
    encoded = value if isinstance(value, bytes) else str(value or "").encode("utf-8", "surrogateescape")
    _check_length(name, encoded)
    return encoded


def _check_length(name: str, value: bytes) -> None:
    if len(value) > MAX_METADATA_BYTES:
        raise StorageError(f"the transaction's {name} takes {len(value)} bytes, more than {MAX_METADATA_BYTES}")


def metadata_of(transaction: Any) -> TransactionMetadata:
    """Return what `transaction` (user, description, extension) says of itself, as it will stand in the log.

    An extension that is bytes already is kept as it is, so that a copy repeats the original. TypeError for an
    extension that the wire could not carry, StorageError for a text that is too long: here, in the caller's thread,
    where it can be told to the culprit (lesson B42).
    """
    return _metadata(transaction, transaction.extension)


def restored_metadata_of(transaction: Any) -> TransactionMetadata:
    """Return what a transaction of another storage says of itself, its extension as it stands in that one's log."""
    return _metadata(transaction, getattr(transaction, "extension_bytes", transaction.extension))


def _metadata(transaction: Any, extension: Any) -> TransactionMetadata:
    if not isinstance(extension, bytes):
        extension = extension_bytes(extension)
    _check_length("extension", extension)
    return TransactionMetadata(
        _metadata_bytes("user", transaction.user),
        _metadata_bytes("description", transaction.description),
        extension,
    )


def check_writable(transactions: Sequence[PreparedTransaction]) -> None:
    """Raise StorageError, before anything is written, for transactions that no log could hold."""
    for transaction in transactions:
        if transaction.status not in (b" ", b"p"):
            raise StorageError(f"status {transaction.status!r} is not that of a finished transaction")
        metadata = transaction.metadata
        _check_length("user", metadata.user)
        _check_length("description", metadata.description)
        _check_length("extension", metadata.extension)
        for write in transaction.writes:
            # A length of zero is how Data.fs marks a record that repeats another one's data, or none.
            if write.data == b"":
                raise StorageError(f"no data to store for oid {oid_repr(write.oid)}")


def tid_for(transaction: PreparedTransaction, last_tid: Tid, now_s: float) -> Tid:
    """Return the tid that a transaction written after `last_tid` gets, or brings: then StorageError if it is too early.

    Were a restored tid not later than all others, snapshots that are open already would change (lesson B24).
    """
    if transaction.tid is None:
        return next_tid(last_tid, now_s)
    if not last_tid < transaction.tid < MAX_TID:
        raise StorageError(f"cannot restore transaction {tid_repr(transaction.tid)} after {tid_repr(last_tid)}")
    return transaction.tid


def _class_name(data: bytes) -> str | None:
    """Return the class of an object for an error's text; None if its record does not tell."""
    try:
        return class_name(data)
    except RecordFormatError:
        return None


def _unchanged(data: bytes) -> bytes:
    return data


@dataclass(slots=True)
class _Pending:
    """The one transaction in progress; `transaction` is the caller's object, the key to it."""

    transaction: Any
    metadata: TransactionMetadata
    tid: Tid | None
    status: bytes
    writes: dict[Oid, ObjectWrite] = field(default_factory=dict)
    checks: dict[Oid, Tid] = field(default_factory=dict)
    resolved: list[Oid] = field(default_factory=list)
    voted: bool = False

    def prepared(self) -> PreparedTransaction:
        """Return what is to be written."""
        return PreparedTransaction(self.metadata, tuple(self.writes.values()), self.tid, self.status)


class LocalStorage(ZODBLog, Commits):
    """A storage in this process: the base of MappingStorage and FileStorage.

    Embedded two-phase commits and a server's `write_group` are not to be mixed on one open storage: the commit lock
    below orders only the former.
    """

    def __init__(self, name: str, *, read_only: bool = False) -> None:
        self._name = name
        self._read_only = read_only
        self._last_tid = ZERO_TID
        self._oids = OidSequence()
        self._sinks: list[InvalidationSink] = []
        self._commit_lock = Lock()
        self._publish_lock = RLock()
        self._load_class: ClassLoader | None = None
        self._rule_of: RuleOf | None = None
        self._transform: Callable[[bytes], bytes] = _unchanged
        self._untransform: Callable[[bytes], bytes] = _unchanged
        self._pending: _Pending | None = None

    @abstractmethod
    def check_room(self, byte_count: int) -> None:
        """Raise StorageFullError if `byte_count` more bytes of data will hardly find room."""

    def name(self) -> str:
        """Return what log lines and errors call this storage."""
        return self._name

    def read_only(self) -> bool:
        """Tell whether every write would raise ReadOnlyError."""
        return self._read_only

    def last_tid(self) -> Tid:
        """Return the tid of the last transaction, ZERO_TID if there is none."""
        return self._last_tid

    def check_not_read_only(self) -> None:
        """Raise ReadOnlyError on a read-only storage."""
        if self._read_only:
            raise ReadOnlyError(f"{self._name} is read-only")

    def new_oids(self, count: int) -> list[Oid]:
        """Return `count` fresh oids, never given out before and not in the storage."""
        self.check_not_read_only()
        return self._oids.take(count)

    def highest_oid(self) -> Oid:
        """Return the highest oid that was given out or is in use: all above it are fresh."""
        return self._oids.highest()

    def new_oid(self) -> Oid:
        """Return a fresh oid."""
        return self.new_oids(1)[0]

    def lastTransaction(self) -> Tid:  # noqa: N802 - ZODB's name
        """Return the last transaction's tid; waits for one that is just being announced, as ZODB's storages do."""
        with self._publish_lock:
            return self.last_tid()

    def register_sink(self, sink: InvalidationSink) -> None:
        """Keep the DB; all commits here are its own, and announced through its tpc_finish.

        From now on conflicts are resolved, with the classes that can be imported here. A DB through which records are
        compressed or encrypted says how to undo and to repeat that (ZODB's IStorageWrapper).
        """
        self._sinks.append(sink)
        self._transform = getattr(sink, "transform_record_data", _unchanged)
        self._untransform = getattr(sink, "untransform_record_data", _unchanged)
        self.resolve_conflicts(import_class)

    def resolve_conflicts(self, load_class: ClassLoader | None, rule_of: RuleOf | None = None) -> None:
        """Resolve conflicts from now on with classes from `load_class`, or with None no longer.

        `rule_of` tells how states are merged that are protobuf messages, where that is not for the class to tell.
        """
        self._load_class, self._rule_of = load_class, rule_of

    def tpc_begin(self, transaction: Any, tid: Tid | None = None, status: str | bytes = b" ") -> None:
        """Begin; waits for the transaction in progress to end.

        `tid` and `status` are given to restore a transaction of another storage, see `restore`.
        """
        self.check_not_read_only()
        pending = self._pending
        if pending is not None and pending.transaction is transaction:
            raise StorageTransactionError(f"{self._name}: the transaction has begun already")
        metadata = metadata_of(transaction) if tid is None else restored_metadata_of(transaction)
        status = status if isinstance(status, bytes) else status.encode("ascii")
        self._commit_lock.acquire()
        self._pending = _Pending(transaction, metadata, tid, status)

    def store(self, oid: Oid, serial: Tid | None, data: bytes, version: str, transaction: Any) -> None:
        """Add an object to the transaction; ConflictError if `serial` is not its current one and cannot be made so.

        None for a serial stands for a new object, as eight zero bytes do.
        """
        self.check_not_read_only()
        pending = self._in_progress(transaction)
        serial = serial or ZERO_TID
        if not (is_id(oid) and is_id(serial)):
            raise StorageError(f"oid {oid!r} and serial {serial!r} must be 8 bytes each")
        if version:
            raise StorageError(f"version {version!r}: versions are not supported")
        committed = self.current_tid(oid) or ZERO_TID
        if committed != serial:
            data = self._resolved_store(oid, committed, serial, data)
            pending.resolved.append(oid)
        pending.writes[oid] = ObjectWrite(oid, committed, data)
        pending.voted = False

    def _resolved_store(self, oid: Oid, committed: Tid, serial: Tid, data: bytes) -> bytes:
        serials = (committed, serial)
        try:
            # A new object whose oid is taken has no state that both sides began with (lesson B25).
            states = None if serial == ZERO_TID else (self.load_serial(oid, serial), self.load_serial(oid, committed))
        except POSKeyError:
            states = None
        if states is None:
            raise ConflictError(oid=oid, serials=serials, class_name=_class_name(data))
        return self.resolved(oid, serials, (*states, data))

    def resolved(self, oid: Oid, serials: tuple[Tid, Tid], records: tuple[bytes, bytes, bytes]) -> bytes:
        """Return the record made of (old, committed, new) by the object's class; ConflictError if that cannot be."""
        old, committed, new = map(self._untransform, records)
        if self._load_class is not None:
            try:
                return self._transform(resolve(old, committed, new, self._load_class, self._rule_of))
            except UnresolvedError as error:
                if not error.expected:
                    logger.warning("%s: oid %s: conflict not resolved", self._name, oid_repr(oid), exc_info=True)
        raise ConflictError(oid=oid, serials=serials, class_name=_class_name(new))

    def deleteObject(self, oid: Oid, serial: Tid, transaction: Any) -> None:  # noqa: N802 - ZODB's name
        """Add an object's deletion; POSKeyError if there is none, ConflictError if `serial` is not its current one."""
        writes = self.pending_writes(transaction)
        committed = self.current_tid(oid)
        if committed is None:
            raise POSKeyError(oid)
        if committed != serial:
            raise ConflictError(oid=oid, serials=(committed, serial))
        writes[oid] = ObjectWrite(oid, serial, None)

    def restore(
        self, oid: Oid, serial: Tid, data: bytes | None, version: str, prev_txn: Tid | None, transaction: Any
    ) -> None:
        """Add an object of another storage's transaction as it stands there; conflicts are not looked for.

        Which tid it gets, `tpc_begin` was told. `prev_txn` is the transaction whose data it repeats; that is believed
        only if the data are there (lesson B30). No data: the object does not exist from now on.
        """
        writes = self.pending_writes(transaction)
        writes.pop(oid, None)  # of two records of one object the last counts, also for their order
        writes[oid] = ObjectWrite(oid, self.current_tid(oid) or ZERO_TID, data, prev_txn)

    def pending_writes(self, transaction: Any) -> dict[Oid, ObjectWrite]:
        """Return what the transaction has staged, to be changed; it needs a new vote then."""
        self.check_not_read_only()
        pending = self._in_progress(transaction)
        pending.voted = False
        return pending.writes

    def check_current(self, oid: Oid, serial: Tid, transaction: Any) -> None:
        """Ask that `serial` is still current at the vote, else ReadConflictError."""
        self._in_progress(transaction).checks[oid] = serial

    def tpc_vote(self, transaction: Any) -> Sequence[Oid]:
        """Check what was asserted to be current, and what can make writing fail; return the oids that were resolved."""
        pending = self._in_progress(transaction)
        for oid, serial in pending.checks.items():
            committed = self.current_tid(oid) or ZERO_TID
            if committed != serial:
                raise ReadConflictError(oid=oid, serials=(committed, serial))
        prepared = pending.prepared()
        check_writable([prepared])
        if prepared.tid is not None:
            tid_for(prepared, self._last_tid, 0.0)
        self.check_room(sum(len(write.data or b"") + _RECORD_OVERHEAD_BYTES for write in prepared.writes))
        pending.voted = True
        return list(dict.fromkeys(pending.resolved))

    def tpc_finish(self, transaction: Any, announce: Callable[[Tid], None] | None = None) -> Tid:
        """Commit; the transaction is over afterwards, also when writing it failed."""
        pending = self._in_progress(transaction)
        if not pending.voted:
            raise StorageTransactionError(f"{self._name}: the transaction must be voted before it is finished")
        try:
            group = self.write_group([pending.prepared()])
            with self._publish_lock:
                self.publish(group, None if announce is None else lambda tid, _oids: announce(tid))
        finally:
            self._forget()
        return group.tids[0]

    def tpc_abort(self, transaction: Any) -> None:
        """Forget the transaction; harmless for one that is not in progress."""
        pending = self._pending
        if pending is not None and pending.transaction is transaction:
            self._forget()

    def _announce(self, published: Iterable[tuple[Tid, Sequence[Oid]]], announce: Announce | None) -> None:
        """Announce published transactions in order; the last tid moves after each (rule 2 of the contract)."""
        for tid, oids in published:
            try:
                if announce is not None:
                    announce(tid, oids)
            finally:
                self._last_tid = tid  # it is committed, whatever became of telling so

    def _in_progress(self, transaction: Any) -> _Pending:
        pending = self._pending
        if pending is None or pending.transaction is not transaction:
            self._refuse()
        return pending

    def _refuse(self) -> NoReturn:
        raise StorageTransactionError(f"{self._name}: this transaction is not in progress")

    def _forget(self) -> None:
        self._pending = None
        self._commit_lock.release()
