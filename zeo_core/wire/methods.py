"""The one table of RPC methods: what may be called, with which arguments, whether it replies and who may call it.

The session checks every message against it; handlers, client calls and the reference documentation are checked against
it by tests. The names and arguments are those of ZEO's protocol 5 (M5).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from zeo_core.commit_marker import MARKER_BYTES
from zeo_core.ids import is_id
from zeo_core.roles import ClientRole

__all__ = [
    "BLOB_CHUNK_MAX_BYTES",
    "BULK_LOADING",
    "CLIENT_CALLS",
    "CLIENT_LIST",
    "CLIENT_RESOLUTION",
    "COMMIT_OUTCOME",
    "COMPRESSED_LOADING",
    "CONCURRENT_TRANSACTIONS",
    "EXTENSION_BYTES",
    "LOAD_MANY_MAX_OIDS",
    "RESTORES_BLOBS",
    "SERVER_PUSHES",
    "Argument",
    "Check",
    "Method",
]

_NO_SERIAL = "\0" * 8  # how programs that are older than bytes name the serial of a new object; ZEO takes it

BLOB_CHUNK_MAX_BYTES = 16 * 1024 * 1024
"""The most of a blob that one message may bring, so that no peer makes the other hold a whole one. ZEO sends 59,000."""

BULK_LOADING = "bulk-loading"
"""An extension of zeod: load_many, which loads many objects, and those that they refer to, in one call."""

CLIENT_LIST = "clients"
"""An extension of zeod: the call `clients` tells who else uses the storage."""

CLIENT_RESOLUTION = "client-resolution"
"""An extension of zeod: a client that resolves conflicts may say so with each vote, whatever the server's settings for
all clients. What it gets is what ZEO's clients get, and the committed data as `committed` if they are at hand."""

COMMIT_OUTCOME = "commit-outcome"
"""An extension of zeod: tpc_begin takes a marker, by which transaction_outcome tells later, on any connection and after
any restart, whether the transaction was committed."""

COMPRESSED_LOADING = "compressed-loading"
"""An extension of zeod: load_many may be asked to compress the objects of its answer (zeo_core.wire.compression)."""

CONCURRENT_TRANSACTIONS = "concurrent-transactions"
"""An extension of zeod, announced in get_info's `extensions`: one connection may have several transactions open at
once, told apart by their ids. A ZEO server closes a connection that begins a second one."""

EXTENSION_BYTES = "extension-bytes"
"""An extension of zeod: what a transaction's metadata call its extension may travel as the bytes that stand in the log,
so that a copy is one to the byte, and a list stays one. tpc_begin takes them in the place of the map; iterator_next
gives them so where iterator_start was asked for `exact`."""

LOAD_MANY_MAX_OIDS = 1000
"""Objects that one load_many may name."""

RESTORES_BLOBS = "restores-blobs"
"""An extension of zeod: an object that is restored may bring a blob, by restoreBlobEnd. ZEO has no call for that."""

Check = Callable[[object], bool]
"""Tells whether a value fits an argument."""


class Argument(NamedTuple):
    """One argument: its name, what it must be in words, the check for that, and whether it may be left out.

    `plain` has the values that everybody may give who may call the method; others are for administrators. None if that
    makes no difference.
    """

    name: str
    expects: str
    check: Check
    optional: bool = False
    plain: tuple[object, ...] | None = None


@dataclass(frozen=True, slots=True)
class Method:
    """One method. `reply` says what the reply holds, None for a one-way method; `role` is what a caller needs."""

    name: str
    arguments: tuple[Argument, ...]
    reply: str | None
    role: ClientRole
    doc: str
    _checks: tuple[Check, ...] = field(init=False, repr=False)
    _least: int = field(init=False, repr=False)
    _plain: tuple[tuple[int, tuple[object, ...]], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_checks", tuple(argument.check for argument in self.arguments))
        least = next((at for at, argument in enumerate(self.arguments) if argument.optional), len(self.arguments))
        object.__setattr__(self, "_least", least)
        plain = ((at, argument.plain) for at, argument in enumerate(self.arguments) if argument.plain is not None)
        object.__setattr__(self, "_plain", tuple(plain))

    def role_for(self, args: Sequence[object]) -> ClientRole:
        """Return the role that a call with these arguments needs."""
        if any(at < len(args) and args[at] not in plain for at, plain in self._plain):
            return ClientRole.ADMIN
        return self.role

    def transaction(self, args: Sequence[Any]) -> Any:
        """Return the id of the transaction that a call with these arguments is part of; ValueError if of none."""
        return args[[argument.name for argument in self.arguments].index("txn")]

    def fault(self, args: object) -> str | None:
        """Return what is wrong with `args`, None if they fit."""
        checks = self._checks
        if type(args) is not tuple or len(args) > len(checks):
            return f"{self.name} takes up to {len(checks)} arguments"
        if len(args) < self._least:
            return f"{self.name} lacks the argument {self.arguments[len(args)].name}"
        for check, value in zip(checks, args):  # noqa: B905 - shorter when optional arguments are left out
            if not check(value):
                return self._misfit(args)
        return None

    def _misfit(self, args: tuple[object, ...]) -> str:
        wrong = next(
            argument for argument, value in zip(self.arguments, args, strict=False) if not argument.check(value)
        )
        return f"{self.name}: {wrong.name} must be {wrong.expects}"


def _text(value: object) -> bool:
    return isinstance(value, str | bytes)


def _optional_id(value: object) -> bool:
    return value is None or is_id(value)


def _base(value: object) -> bool:
    return value is None or is_id(value) or value == _NO_SERIAL


def _count(value: object) -> bool:
    return type(value) is int and value >= 0


def _integer(value: object) -> bool:
    return type(value) is int


def _optional_map(value: object) -> bool:
    return value is None or isinstance(value, dict)


def _number(value: object) -> bool:
    return type(value) in (int, float)


def _key(value: object) -> bool:
    return isinstance(value, int | str | bytes)


def _flag(value: object) -> bool:
    return value is None or isinstance(value, int)


def _bytes(value: object) -> bool:
    return type(value) is bytes


def _marker(value: object) -> bool:
    return type(value) is bytes and len(value) == MARKER_BYTES


def _chunk(value: object) -> bool:
    return type(value) is bytes and len(value) <= BLOB_CHUNK_MAX_BYTES


def _map(value: object) -> bool:
    return isinstance(value, dict)


def _extension(value: object) -> bool:
    return value is None or isinstance(value, dict | bytes)


def _optional_bytes(value: object) -> bool:
    return value is None or type(value) is bytes


def _oids(value: object) -> bool:
    return isinstance(value, tuple) and all(map(is_id, value))


def _some_oids(value: object) -> bool:
    return _oids(value) and isinstance(value, tuple) and len(value) <= LOAD_MANY_MAX_OIDS


def _counts(value: object) -> bool:
    return isinstance(value, tuple) and all(map(_count, value))


_READER, _WRITER, _ADMIN = ClientRole
_OID = Argument("oid", "an oid of 8 bytes", is_id)
_TID = Argument("tid", "a tid of 8 bytes", is_id)
_SERIAL = Argument("serial", "a tid of 8 bytes", is_id)
_BASE = Argument("serial", "a tid of 8 bytes or None", _base)  # None stands for a new object, as in ZODB
_DATA = Argument("data", "bytes", _bytes)
_CHUNK = Argument("chunk", f"up to {BLOB_CHUNK_MAX_BYTES} bytes", _chunk)
_TXN = Argument("txn", "an integer or text, unique on the connection", _key)
_FIRST = Argument("first", "a count", _count, optional=True)
_LAST = Argument("last", "an integer", _integer, optional=True)
_ITERATOR = Argument("iterator", "an iterator's number", _count)


def _table(*methods: Method) -> Mapping[str, Method]:
    return MappingProxyType({method.name: method for method in methods})


CLIENT_CALLS: Mapping[str, Method] = _table(
    Method(
        "register",
        (Argument("storage", "text", _text), Argument("read_only", "a flag", _flag, optional=True)),
        "the last tid",
        _READER,
        "Choose a storage; the first call of a session. ReadOnlyError, or ValueError for an unknown storage.",
    ),
    Method("get_info", (), "a map: length, size, name, interfaces, ...", _READER, "What the storage is and offers."),
    Method("lastTransaction", (), "a tid", _READER, "The last transaction's tid, eight zero bytes if there is none."),
    Method("getTid", (_OID,), "a tid", _READER, "The serial of the current revision of `oid`; POSKeyError."),
    Method("getSize", (), "an integer", _READER, "The storage's size in bytes."),
    Method(
        "getInvalidations",
        (_TID,),
        "[tid, [oid...]] or None",
        _READER,
        "What changed after `tid`, up to the tid in the reply; None if the server cannot tell.",
    ),
    Method(
        "loadBefore",
        (_OID, _TID),
        "[data, start tid, end tid or None] or None",
        _READER,
        "The newest revision before `tid`; None if the object did not exist then; POSKeyError if it is unknown.",
    ),
    Method(
        "load_many",
        (
            Argument("oids", f"a list of up to {LOAD_MANY_MAX_OIDS} oids", _some_oids),
            _TID,
            Argument("depth", "a count", _count, optional=True),
            Argument("max_bytes", "a count", _count, optional=True),
            Argument("through", "text", _text, optional=True),
            Argument("compressed", "a flag", _flag, optional=True),
        ),
        "[[oid, data, start tid, end tid or None]...], compressed if that was asked for and pays, and the list of oids "
        "left out for want of room",
        _READER,
        "The newest revisions before `tid` of `oids`, and of what they refer to; what does not exist is passed over.",
    ),
    Method("loadSerial", (_OID, _SERIAL), "data", _READER, "What transaction `serial` wrote for `oid`; POSKeyError."),
    Method(
        "new_oids", (Argument("n", "a count", _count, optional=True),), "a list of oids", _WRITER, "Fresh oids (100)."
    ),
    Method(
        "tpc_begin",
        (
            _TXN,
            Argument("user", "text", _text),
            Argument("description", "text", _text),
            Argument("extension", "a map, bytes or None", _extension),
            Argument("tid", "a tid of 8 bytes or None", _optional_id, optional=True, plain=(None,)),
            Argument("status", "text", _text, optional=True, plain=(" ", b" ")),
            Argument("marker", f"{MARKER_BYTES} bytes", _marker, optional=True),
        ),
        None,
        _WRITER,
        "Begin a transaction; with a `tid` or a `status`, for administrators, one of another storage.",
    ),
    Method("storea", (_OID, _BASE, _DATA, _TXN), None, _WRITER, "Add an object made from revision `serial`."),
    Method("deleteObject", (_OID, _SERIAL, _TXN), None, _ADMIN, "Add the deletion of an object at revision `serial`."),
    Method(
        "restorea",
        (
            _OID,
            _SERIAL,
            Argument("data", "bytes or None", _optional_bytes),
            Argument("prev_txn", "a tid of 8 bytes or None", _optional_id),
            _TXN,
        ),
        None,
        _ADMIN,
        "Add an object of another storage's transaction, whose data may be `prev_txn`'s; for administrators.",
    ),
    Method(
        "checkCurrentSerialInTransaction",
        (_OID, _SERIAL, _TXN),
        None,
        _WRITER,
        "Ask that `serial` is still the current revision when the transaction commits.",
    ),
    Method("storeBlobStart", (), None, _WRITER, "Begin a blob; its chunks follow, and no other blob's before its end."),
    Method("storeBlobChunk", (_CHUNK,), None, _WRITER, "Bring the next bytes of the blob."),
    Method(
        "storeBlobEnd",
        (_OID, _BASE, _DATA, _TXN),
        None,
        _WRITER,
        "End the blob, and add the object to which it belongs as `storea` does.",
    ),
    Method(
        "restoreBlobEnd",
        (
            _OID,
            _DATA,
            Argument("prev_txn", "a tid of 8 bytes or None", _optional_id),
            _TXN,
        ),
        None,
        _ADMIN,
        "End the blob, and add the object to which it belongs as `restorea` does; for administrators.",
    ),
    Method(
        "storeBlobShared",
        (_OID, _BASE, _DATA, Argument("filename", "text", _text), _TXN),
        None,
        _WRITER,
        "Add an object whose blob is the file `filename` in the object's directory of a shared blob directory.",
    ),
    Method(
        "undoa",
        (Argument("transaction_id", "bytes", _bytes), _TXN),
        None,
        _ADMIN,
        "Take back the transaction of that id in an undo log; nothing may be stored after it.",
    ),
    Method(
        "vote",
        (_TXN, Argument("resolves", "a flag", _flag, optional=True)),
        "a list of oids that the server resolved or undid; or of conflicts, to be resolved before another vote",
        _WRITER,
        "Check everything and promise to finish; ConflictError, ReadConflictError, UndoError.",
    ),
    Method("tpc_finish", (_TXN,), "the new tid", _WRITER, "Commit: on disk when the reply comes."),
    Method(
        "transaction_outcome",
        (Argument("marker", f"{MARKER_BYTES} bytes", _marker), Argument("since", "a tid of 8 bytes", is_id)),
        "a tid, or None",
        _WRITER,
        "The tid of the transaction with that `marker`, later than `since`; None if it never will be committed.",
    ),
    Method("tpc_abort", (_TXN,), "None", _WRITER, "Forget the transaction; harmless for an unknown one."),
    Method(
        "history",
        (_OID, Argument("size", "a count", _count, optional=True)),
        "a list of maps: time, tid, user_name, description, size",
        _READER,
        "The newest revisions of `oid`; POSKeyError.",
    ),
    Method(
        "sendBlob",
        (_OID, _SERIAL),
        "None, after the blob was pushed",
        _READER,
        "Push the blob that transaction `serial` wrote for `oid`; POSKeyError.",
    ),
    Method(
        "undoLog",
        (_FIRST, _LAST),
        "a list of maps: id, time, user_name, description, size, and the extension's keys",
        _READER,
        "What may be undone, newest first, from line `first` to line `last`; a negative `last` counts lines.",
    ),
    Method(
        "undoInfo",
        (_FIRST, _LAST, Argument("specification", "a map or None", _optional_map, optional=True)),
        "a list of maps: id, time, user_name, description, size, and the extension's keys",
        _READER,
        "The same of those lines only that have these keys and values.",
    ),
    Method(
        "record_iternext",
        (Argument("next", "an oid of 8 bytes or None", _optional_id, optional=True),),
        "[oid, tid, data, next oid or None]",
        _READER,
        "The first object from oid `next` on; ValueError if there is none.",
    ),
    Method(
        "iterator_start",
        (
            Argument("start", "a tid of 8 bytes or None", _optional_id, optional=True),
            Argument("stop", "a tid of 8 bytes or None", _optional_id, optional=True),
            Argument("exact", "a flag", _flag, optional=True),
        ),
        "an iterator's number",
        _READER,
        "Begin to walk the transactions from `start` to `stop`, of those that there are now.",
    ),
    Method(
        "iterator_next",
        (_ITERATOR,),
        "[tid, status, user, description, extension], or None at the end",
        _READER,
        "The next transaction; KeyError if the iterator has ended.",
    ),
    Method(
        "iterator_record_start",
        (_ITERATOR, _TID),
        "an iterator's number",
        _READER,
        "Begin to walk the objects of the transaction that the iterator came to last, which is `tid`.",
    ),
    Method(
        "iterator_record_next",
        (_ITERATOR,),
        "[oid, tid, data or None, tid of the transaction whose data it repeats or None], or None at the end",
        _READER,
        "The next object; KeyError if the iterator has ended.",
    ),
    Method(
        "iterator_gc",
        (Argument("iterators", "a list of iterators' numbers", _counts),),
        None,
        _READER,
        "End these iterators, of whichever kind, if they have not ended.",
    ),
    Method(
        "pack",
        (Argument("time", "a number of seconds", _number), Argument("wait", "a flag", _flag, optional=True)),
        "None, when it is done or, without `wait`, at once",
        _ADMIN,
        "Drop the revisions that were replaced by `time` and the objects out of use then; StorageError.",
    ),
    Method("server_status", (), "a map of figures", _READER, "What the server is doing."),
    Method(
        "clients",
        (),
        "a list of maps: storage, label, address, read_only, since, loads, commits, ...",
        _READER,
        "Who is connected to the storage, and what each client does.",
    ),
    Method("set_client_label", (Argument("label", "text", _text),), None, _READER, "Name this client in the log."),
    Method("ping", (), "None", _READER, "Show that the server answers."),
)
"""What a client may call."""

SERVER_PUSHES: Mapping[str, Method] = _table(
    Method(
        "invalidateTransaction",
        (_TID, Argument("oids", "a list of oids", _oids)),
        None,
        _READER,
        "Another client's transaction `tid` changed `oids`, which may be none.",
    ),
    Method("info", (Argument("changes", "a map", _map),), None, _READER, "What changed in get_info's map."),
    Method("receiveBlobStart", (_OID, _SERIAL), None, _READER, "A blob that was asked for begins."),
    Method("receiveBlobChunk", (_OID, _SERIAL, _CHUNK), None, _READER, "The next bytes of that blob."),
    Method("receiveBlobStop", (_OID, _SERIAL), None, _READER, "That blob is whole."),
)
"""What a server may push, all one-way."""
