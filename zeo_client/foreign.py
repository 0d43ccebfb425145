"""Storages of others, with ZODB's storage API, for our DB: ZEO's ClientStorage, ZODB's FileStorage, ...

    zeo_client.DB(ZEO.ClientStorage.ClientStorage(("db.example.org", 9999)))

Nothing of ZODB is imported here: whoever hands over such a storage has it. Storages that give each connection an
instance of its own (ZODB's IMVCCStorage: RelStorage) are not among them.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import IO, Any, cast

from zeo_core import errors
from zeo_core.ids import MAX_TID, Oid, Tid
from zeo_core.record import references
from zeo_core.storage import InvalidationSink, Transacts
from zeo_core.transaction import HistoryEntry, Revision, TransactionMetadata, extension_bytes

__all__ = ["BlobForeignStorage", "ForeignStorage", "contract_of"]

_OURS: dict[str, type[errors.ZeodError]] = {
    vars(cls)["twin_name"]: cls
    for cls in map(vars(errors).get, errors.__all__)
    if isinstance(cls, type) and "twin_name" in vars(cls)
}
"""ZODB's and ZEO's names -> our classes of the same meaning."""


def contract_of(storage: Any) -> Transacts:
    """Return `storage` itself if it keeps our contract, and a storage around it that does if it has ZODB's API.

    TypeError if it has neither.
    """
    # Its class is asked: a wrapper of a storage (ZODB's IStorageWrapper) that passes on all names it has not got would
    # pass on our contract's too, past what it does to the records.
    if issubclass(type(storage), Transacts):
        return cast(Transacts, storage)
    if not (hasattr(storage, "loadBefore") and hasattr(storage, "tpc_finish")):
        raise TypeError(f"{storage!r} is no storage: it has neither load_before, our contract's, nor ZODB's loadBefore")
    if hasattr(storage, "new_instance"):
        raise TypeError(f"{storage!r} wants an instance for each connection (IMVCCStorage); only ZODB.DB can use it")
    # A wrapper may have storeBlob whatever it wraps; the directory can only come from who keeps blobs.
    return (BlobForeignStorage if hasattr(storage, "temporaryDirectory") else ForeignStorage)(storage)


def _translated(error: Exception) -> Exception | None:
    """Return our error of the same meaning as ZODB's, or None."""
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__]
    cls = next((_OURS[name] for name in names if name in _OURS), None)
    if cls is None or isinstance(error, errors.ZeodError):
        return None
    if cls is errors.POSKeyError:
        return errors.POSKeyError(error.args[0])
    if issubclass(cls, errors.ConflictError):
        shown = {"oid": getattr(error, "oid", None), "serials": getattr(error, "serials", None)}
        return cls(getattr(error, "message", str(error)), class_name=getattr(error, "class_name", None), **shown)
    if cls is errors.MultipleUndoErrors:
        return cls(getattr(error, "_errs", [(None, str(error))]))
    if cls is errors.ClientDisconnected:
        return errors.ClientDisconnected("", str(error))
    return cls(str(error))


def _in_our_words(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a call raise our errors where ZODB has an error of the same meaning."""

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except Exception as error:
            ours = _translated(error)
            if ours is None:
                raise
            raise ours from error

    return call


def _metadata(user: str | bytes, description: str | bytes, extension: bytes = b"") -> TransactionMetadata:
    user, description = (text.encode() if isinstance(text, str) else text for text in (user, description))
    return TransactionMetadata(user, description, extension)


class _Transaction:
    """A transaction as ZODB's storages want it: metadata in bytes, and a place for each storage's notes."""

    def __init__(self, transaction: Any) -> None:
        extension = getattr(transaction, "extension", None) or {}
        metadata = _metadata(transaction.user, transaction.description, extension_bytes(extension))
        self.user = metadata.user
        self.description = metadata.description
        self.extension = extension
        self.extension_bytes = metadata.extension
        self._notes: dict[int, Any] = {}

    def data(self, ob: object) -> Any:
        """Return what `ob` has kept here; KeyError if nothing."""
        return self._notes[id(ob)]

    def set_data(self, ob: object, data: Any) -> None:
        """Keep `data` for `ob`."""
        self._notes[id(ob)] = data


class _Wrapper:
    """What ZODB's storages expect of the DB that registers: the ear, and the hooks for storages that wrap others."""

    def __init__(self, sink: InvalidationSink) -> None:
        self._sink = sink
        self.invalidate = sink.invalidate
        self.invalidateCache = sink.invalidateCache

    def transform_record_data(self, data: bytes) -> bytes:
        """Return a record as it is stored: as it is."""
        return data

    untransform_record_data = transform_record_data

    def references(self, record: bytes, oids: list[Oid] | None = None) -> list[Oid]:
        """Return the oids that a record refers to, as ZODB's storages ask for them."""
        return _references(record, oids)


def _references(record: bytes, oids: list[Oid] | None = None) -> list[Oid]:
    found = references(record)
    if oids is None:
        return found
    oids.extend(found)
    return oids


class ForeignStorage(Transacts):
    """Our contract over a storage with ZODB's storage API. What the contract does not have is passed on."""

    def __init__(self, storage: Any) -> None:
        self.storage = storage
        """The storage that does the work."""
        self._transactions: dict[int, tuple[Any, _Transaction]] = {}
        self._load_before = storage.loadBefore

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.storage, name)
        return _in_our_words(found) if callable(found) else found

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        return self.object_count()

    # -- reading ---------------------------------------------------------------------------------------------------

    def name(self) -> str:
        """Return the storage's name."""
        return str(self.storage.getName())

    def read_only(self) -> bool:
        """Tell whether every write would raise ReadOnlyError."""
        return bool(self.storage.isReadOnly())

    def last_tid(self) -> Tid:
        """Return the last transaction's tid."""
        tid: Tid = self.storage.lastTransaction()
        return tid

    def load_before(self, oid: Oid, tid: Tid) -> Revision | None:
        """Return the newest revision before `tid`."""
        try:
            found = self._load_before(oid, tid)
        except Exception as error:
            # ZODB's DB takes any KeyError for a missing object, and there are storages that raise just that.
            ours = errors.POSKeyError(oid) if isinstance(error, KeyError) else _translated(error)
            if ours is None:
                raise
            raise ours from error
        return None if found is None else Revision(*found)

    def load(self, oid: Oid, version: str = "") -> tuple[bytes, Tid]:
        """Return the data and the serial of the current revision."""
        found = self.load_before(oid, MAX_TID)
        if found is None:
            raise errors.POSKeyError(oid)
        return found.data, found.tid

    def load_serial(self, oid: Oid, tid: Tid) -> bytes:
        """Return the data that transaction `tid` wrote for `oid`."""
        data: bytes = _in_our_words(self.storage.loadSerial)(oid, tid)
        return data

    def revisions(self, oid: Oid, size: int) -> list[HistoryEntry]:
        """Return up to `size` revisions, newest first."""
        return [
            HistoryEntry(line["tid"], _metadata(line["user_name"], line["description"]), line["size"])
            for line in _in_our_words(self.storage.history)(oid, size=size)
        ]

    def object_count(self) -> int:
        """Return how many objects there are, roughly."""
        return len(self.storage)

    def byte_size(self) -> int:
        """Return the size in bytes."""
        return int(self.storage.getSize())

    def close(self) -> None:
        """Close the storage."""
        self.storage.close()

    # -- two-phase commit ------------------------------------------------------------------------------------------

    def new_oid(self) -> Oid:
        """Return a fresh oid."""
        oid: Oid = _in_our_words(self.storage.new_oid)()
        return oid

    def tpc_begin(self, transaction: Any) -> None:
        """Begin."""
        theirs = _Transaction(transaction)
        _in_our_words(self.storage.tpc_begin)(theirs)
        self._transactions[id(transaction)] = transaction, theirs

    def store(self, oid: Oid, serial: Tid, data: bytes, version: str, transaction: Any) -> None:
        """Add an object."""
        _in_our_words(self.storage.store)(oid, serial, data, version, self._theirs(transaction))

    def check_current(self, oid: Oid, serial: Tid, transaction: Any) -> None:
        """Ask that `serial` is still current at commit."""
        _in_our_words(self.storage.checkCurrentSerialInTransaction)(oid, serial, self._theirs(transaction))

    def undo(self, transaction_id: bytes, transaction: Any) -> tuple[Tid | None, list[Oid]]:
        """Take back a transaction; return its pair of the new tid, if it is known, and the oids changed."""
        tid, oids = _in_our_words(self.storage.undo)(transaction_id, self._theirs(transaction)) or (None, [])
        return tid, list(oids)

    def tpc_vote(self, transaction: Any) -> Sequence[Oid]:
        """Ask for the storage's promise; return the oids resolved on the way."""
        return list(_in_our_words(self.storage.tpc_vote)(self._theirs(transaction)) or ())

    def tpc_finish(self, transaction: Any, announce: Callable[[Tid], None] | None = None) -> Tid:
        """Commit."""
        theirs = self._theirs(transaction)
        tid: Tid = _in_our_words(self.storage.tpc_finish)(theirs, announce or _nobody)
        self._transactions.pop(id(transaction), None)
        return tid

    def tpc_abort(self, transaction: Any) -> None:
        """Forget the transaction."""
        found = self._transactions.get(id(transaction))
        if found is not None and found[0] is transaction:
            del self._transactions[id(transaction)]
            _in_our_words(self.storage.tpc_abort)(found[1])

    def register_sink(self, sink: InvalidationSink) -> None:
        """Name the DB that hears of commits made by others."""
        if hasattr(self.storage, "registerDB"):
            self.storage.registerDB(_Wrapper(sink))

    def pack(self, time_s: float, referencesf: Any = _references) -> None:
        """Drop what was replaced by `time_s` (seconds since 1970)."""
        _in_our_words(self.storage.pack)(time_s, referencesf)

    def _theirs(self, transaction: Any) -> _Transaction:
        known, theirs = self._transactions.get(id(transaction), (None, None))
        if theirs is None or known is not transaction:
            raise errors.StorageTransactionError("this transaction is not in progress; call tpc_begin first")
        return theirs


def _nobody(tid: Tid) -> None:
    """Hear of a commit that no DB waits for."""


class BlobForeignStorage(ForeignStorage):
    """A storage of others that keeps blobs."""

    def storeBlob(  # noqa: N802 - this and the following are ZODB's names
        self, oid: Oid, oldserial: Tid | None, data: bytes, blobfilename: str, version: str, transaction: Any
    ) -> None:
        """Add an object with the blob in the file `blobfilename`, which is taken over."""
        theirs = self._theirs(transaction)
        _in_our_words(self.storage.storeBlob)(oid, oldserial, data, blobfilename, version, theirs)

    def loadBlob(self, oid: Oid, serial: Tid) -> str:  # noqa: N802
        """Return the path of the file that transaction `serial` wrote for `oid`."""
        return str(_in_our_words(self.storage.loadBlob)(oid, serial))

    def openCommittedBlobFile(self, oid: Oid, serial: Tid, blob: Any = None) -> IO[bytes]:  # noqa: N802
        """Open what `loadBlob` gives for reading."""
        found: IO[bytes] = _in_our_words(self.storage.openCommittedBlobFile)(oid, serial, blob)
        return found

    def temporaryDirectory(self) -> str:  # noqa: N802
        """Return the directory in which to write files that are to become blobs."""
        return str(self.storage.temporaryDirectory())
