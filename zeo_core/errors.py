"""Every error that zeod raises on purpose.

    ZeodError
    +- StorageError                     the storage cannot do what was asked
    |  +- POSKeyError (KeyError)        no such object; wire: ZODB.POSException.POSKeyError
    |  +- ReadOnlyError                 a write to a read-only storage; wire: ZODB.POSException.ReadOnlyError
    |  +- AccessDeniedError             the client lacks a role; wire: zeo_core.errors.AccessDeniedError
    |  +- StorageTransactionError       a call outside its transaction; wire: ...StorageTransactionError
    |  +- StorageClosedError            closed, or unsafe to go on with; wire: zeo_core.errors.StorageClosedError
    |  +- FileFormatError               a file is not what it claims; carries path and position
    |  +- UndoError                     the transaction cannot be undone; wire: ZODB.POSException.UndoError
    |  |  +- MultipleUndoErrors         nor can it, for several objects; wire: ZODB.POSException.MultipleUndoErrors
    |  +- MetadataError (TypeError)     what is said of a transaction cannot be kept; wire: builtins.TypeError
    |  +- UnknownIteratorError (KeyError)   a walk over the log that has ended; wire: builtins.KeyError
    |  +- RecordFormatError             an object's record is of an unknown format, or damaged
    |  +- FileLockedError               another process has the database open; carries path
    |  +- StorageFullError              no room: disk, quota; carries path; wire: zeo_core.errors.StorageFullError
    +- ConflictError (TransientError)   another transaction changed the object; wire: ...ConflictError
    |  +- ReadConflictError             what was read is no longer current; wire: ...ReadConflictError
    +- ClientDisconnected (TransientError)  the server is away, or went away; wire: ZEO.Exceptions.ClientDisconnected
    |  +- NotCommittedError             it was not committed and may be retried; wire: zeo_core.errors.NotCommittedError
    +- CommitInDoubtError               it went away before it confirmed; wire: zeo_core.errors.CommitInDoubtError
    +- ServerError                      an error that the server reported and this client has no class for
    +- InvalidObjectReference           a persistent object of another database or connection was referenced
    +- ReadOnlyHistoryError             a write through a connection that shows the past
    +- ConnectionStateError             a database or connection was used while closed, or closed while in use
    +- BlobError                        a blob is used in a way that its state does not allow
    |  +- OpenedBlobError (ValueError)  it is to be committed while its file is open for writing or reading
    +- Unsupported                      the storage cannot do this at all
    +- ExportError                      an export file is damaged, or none; carries path
    +- StateLoadError                   an object's record was found, but its state could not be made from it
    +- UnpicklableError (TypeError)     an object cannot be stored: something in its state has no pickle
    +- ConfigurationError               a configuration file, option or address that cannot be used
    +- ProtocolError
       +- LocalProtocolError            our side broke the rules: a bug here
       +- RemoteProtocolError           the peer broke the rules

A ConflictError and a ClientDisconnected are `transaction.interfaces.TransientError`, which is what the retry loops of
`transaction` look for. A CommitInDoubtError is no TransientError: to retry it could apply a change twice.

Programs that were written for ZODB catch ZODB's errors. Where ZODB has an error of the same meaning (`twin_name`) and
is imported, what is raised here is an instance of a class made of both, so that `except
ZODB.POSException.ConflictError` catches it. Whoever can write that has ZODB imported; nothing here imports it.
"""

import reprlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self, TypeVar, cast

from transaction.interfaces import TransientError

from zeo_core.ids import Oid, Tid, oid_repr, tid_repr

__all__ = [
    "AccessDeniedError",
    "BlobError",
    "ClientDisconnected",
    "CommitInDoubtError",
    "ConfigurationError",
    "ConflictError",
    "ConnectionStateError",
    "ExportError",
    "FileFormatError",
    "FileLockedError",
    "InvalidObjectReference",
    "LocalProtocolError",
    "MetadataError",
    "MultipleUndoErrors",
    "NotCommittedError",
    "OpenedBlobError",
    "POSKeyError",
    "ProtocolError",
    "ReadConflictError",
    "ReadOnlyError",
    "ReadOnlyHistoryError",
    "RecordFormatError",
    "RemoteProtocolError",
    "ServerError",
    "StateLoadError",
    "StorageClosedError",
    "StorageError",
    "StorageFullError",
    "StorageTransactionError",
    "UndoError",
    "UnknownIteratorError",
    "UnpicklableError",
    "Unsupported",
    "ZeodError",
    "class_on_the_wire",
    "shown",
]


_twins: dict[type, type] = {}


def _with_twin(cls: type) -> type:
    """Return the class made of `cls` and its twin, or `cls` while the twin's module is not imported."""
    made = _twins.get(cls)
    if made is not None:
        return made
    module, _, name = str(getattr(cls, "twin_name", "")).rpartition(".")
    twin = getattr(sys.modules.get(module), name, None)
    if twin is None:
        return cls
    shown = {"__doc__": cls.__doc__, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
    made = type(cls.__name__, (cls, twin), {**shown, "__reduce__": _reduce(cls), "__setstate__": _set_state})
    _twins[cls] = _twins[made] = made
    return made


def _reduce(cls: type) -> Callable[[Any], tuple[object, ...]]:
    return lambda error: (cls, error.args, vars(error))  # by the name that can be imported


def _set_state(error: BaseException, state: dict[str, Any]) -> None:
    vars(error).update(state)


class ZeodError(Exception):
    """Base of all errors below."""

    def __new__(cls, *args: object, **_fields: object) -> Self:
        """Make an instance that is one of the twin's too."""
        return cast(Self, super().__new__(_with_twin(cls), *args))

    def __init__(self, *args: object) -> None:
        Exception.__init__(self, *args)  # not the twin's, which takes other arguments


_Class = TypeVar("_Class", bound=type[ZeodError])
_by_wire_name: dict[str, type[Exception]] = {
    "builtins.KeyError": KeyError,
    "builtins.TypeError": TypeError,
    "builtins.ValueError": ValueError,
}


def class_on_the_wire(name: str) -> type[Exception] | None:
    """Return the class that travels under `name` (zeo_core.wire.faults), None if there is none."""
    return _by_wire_name.get(name)


def _wire(name: str) -> Callable[[_Class], _Class]:
    """Register an error class under the name by which ZEO's clients know it."""

    def register(cls: _Class) -> _Class:
        cls.wire_name = cls.twin_name = name  # type: ignore[attr-defined]
        _by_wire_name[name] = cls
        return cls

    return register


class StorageError(ZeodError):
    """The storage cannot do what was asked."""

    wire_name: ClassVar[str] = "ZODB.POSException.StorageError"
    twin_name: ClassVar[str] = wire_name


_by_wire_name[StorageError.wire_name] = StorageError


@_wire("ZODB.POSException.POSKeyError")
class POSKeyError(StorageError, KeyError):
    """There is no such object; `oid` is the one that was asked for."""

    def __init__(self, oid: Oid) -> None:
        super().__init__(oid)
        self.oid = oid

    def __str__(self) -> str:
        return f"no object with oid {oid_repr(self.oid)}"


@_wire("ZODB.POSException.ReadOnlyError")
class ReadOnlyError(StorageError):
    """The storage, or this client's session, is read-only."""


def _own_wire(cls: _Class) -> _Class:
    """Register an error class under its own name, which a ZEO client shows as a ServerException: a StorageError."""
    cls.wire_name = f"zeo_core.errors.{cls.__name__}"  # type: ignore[attr-defined]
    _by_wire_name[cls.wire_name] = cls  # type: ignore[attr-defined]
    return cls


@_own_wire
class AccessDeniedError(StorageError):
    """The server's rules do not give this client the role that it needs."""


@_wire("ZODB.POSException.StorageTransactionError")
class StorageTransactionError(StorageError):
    """A call names a transaction that is not the one in progress, or in the wrong phase."""


@_own_wire
class StorageClosedError(StorageError):
    """The storage is closed, or refuses work because an earlier write failed."""


class FileFormatError(StorageError):
    """A file is not what it claims to be; `path` and `position` (a byte offset) say where."""

    def __init__(self, path: str, position: int, reason: str) -> None:
        super().__init__(path, position, reason)
        self.path, self.position, self.reason = path, position, reason

    def __str__(self) -> str:
        return f"{self.path}: damaged at byte {self.position}: {self.reason}"


@_wire("ZODB.POSException.UndoError")
class UndoError(StorageError):
    """A transaction cannot be undone: `reason` says why, `oid` names the object that stands against it, if one does."""

    def __init__(self, reason: str = "", oid: Oid | None = None) -> None:
        super().__init__(reason, oid)
        self.reason, self.oid = reason, oid

    def __str__(self) -> str:
        return f"cannot undo: {self.reason}" + (f" (oid {oid_repr(self.oid)})" if self.oid is not None else "")


@_wire("ZODB.POSException.MultipleUndoErrors")
class MultipleUndoErrors(UndoError):
    """A transaction cannot be undone because of several objects: `errors` has a pair of oid and reason for each."""

    def __init__(self, errors: Sequence[tuple[Oid, str]]) -> None:
        oid, reason = errors[0]
        super().__init__(reason, oid)
        self.args = (errors,)
        self.errors = errors

    def __str__(self) -> str:
        return "cannot undo: " + ", ".join(f"{reason} (oid {oid_repr(oid)})" for oid, reason in self.errors)


class MetadataError(StorageError, TypeError):
    """What a client says of a transaction could not be kept, or read again by others."""

    wire_name: ClassVar[str] = "builtins.TypeError"


class UnknownIteratorError(StorageError, KeyError):
    """A client names a walk over the log, `number`, that has ended or never was."""

    wire_name: ClassVar[str] = "builtins.KeyError"

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return f"no iterator {self.number} is open"


class RecordFormatError(StorageError):
    """An object's record is of a format that nobody registered, or is not what its format demands."""


class FileLockedError(StorageError):
    """Another process has the database at `path` open."""

    def __init__(self, path: str, holder: str = "") -> None:
        super().__init__(path, holder)
        self.path, self.holder = path, holder

    def __str__(self) -> str:
        return f"{self.path}: in use by another process" + (f" ({self.holder})" if self.holder else "")


@_own_wire
class StorageFullError(StorageError):
    """There is no room for the transaction; `path` names the file or directory that is full."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@_wire("ZODB.POSException.ConflictError")
class ConflictError(ZeodError, TransientError):
    """Two transactions changed one object.

    `oid` is the object, `serials` the pair (committed now, read by the loser), `class_name` the dotted name of its
    class if known. `message` is the text without these.
    """

    default_message: ClassVar[str] = "database conflict error"

    def __init__(
        self,
        message: str | None = None,
        oid: Oid | None = None,
        serials: tuple[Tid, Tid] | None = None,
        class_name: str | None = None,
    ) -> None:
        super().__init__(message, oid, serials, class_name)
        self.message = message or self.default_message
        self.oid, self.serials, self.class_name = oid, serials, class_name

    def name_class(self, class_name: str) -> None:
        """Add the object's class: a storage knows only those objects' that it has data of."""
        self.class_name = class_name
        self.args = (*self.args[:3], class_name)

    def __str__(self) -> str:
        extras = []
        if self.oid is not None:
            extras.append(f"oid {oid_repr(self.oid)}")
        if self.class_name:
            extras.append(f"class {self.class_name}")
        if self.serials:
            extras.append(f"serial this txn started with {tid_repr(self.serials[1])}")
            extras.append(f"serial currently committed {tid_repr(self.serials[0])}")
        return self.message + (f" ({', '.join(extras)})" if extras else "")


@_wire("ZODB.POSException.ReadConflictError")
class ReadConflictError(ConflictError):
    """An object that the transaction read, or asserted to be current, has changed."""

    default_message = "database read conflict error"


class ClientDisconnected(ZeodError, TransientError):
    """The server is away, or the connection was lost during the call: `address` and `reason` say which and why.

    `when` is the local time, as a text, at which it was lost; empty if it has never been there. A server
    that is about to go away answers with it, too.
    """

    wire_name: ClassVar[str] = "ZEO.Exceptions.ClientDisconnected"  # of a server whose storage is another server's
    twin_name: ClassVar[str] = wire_name

    def __init__(self, address: str = "", reason: str = "", when: str = "") -> None:
        super().__init__(address, reason, when)
        self.address, self.reason, self.when = address, reason, when

    def __str__(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        return f"disconnected from {self.address or 'the server'}{why}" + (f" (at {self.when})" if self.when else "")


class NotCommittedError(ClientDisconnected):
    """The connection was lost during tpc_finish, and the server said afterwards that nothing was committed.

    Nor will it be: the whole transaction may be tried again. A transaction of several databases is another matter: what
    the others have committed stays.
    """

    wire_name: ClassVar[str] = "zeo_core.errors.NotCommittedError"

    def __str__(self) -> str:
        return f"not committed: the connection to {self.address} was lost before the server wrote it: {self.reason}"


class CommitInDoubtError(ZeodError):
    """The connection was lost after tpc_finish was sent and before its reply came.

    The transaction may or may not be committed. It is deliberately no TransientError: a blind retry could apply the
    change a second time.
    """

    wire_name: ClassVar[str] = "zeo_core.errors.CommitInDoubtError"

    def __init__(self, address: str = "", reason: str = "") -> None:
        super().__init__(address, reason)
        self.address, self.reason = address, reason

    def __str__(self) -> str:
        return f"commit in doubt: the connection to {self.address} was lost before it was confirmed: {self.reason}"


_by_wire_name |= {
    ClientDisconnected.wire_name: ClientDisconnected,
    NotCommittedError.wire_name: NotCommittedError,
    CommitInDoubtError.wire_name: CommitInDoubtError,
}


_shown = reprlib.Repr()  # what a peer sent may be long, or nested too deep for repr
_shown.maxlevel, _shown.maxstring, _shown.maxother = 4, 500, 100


def shown(value: object) -> str:
    """Return a text for what a peer sent, of a bearable length whatever it is."""
    return _shown.repr(value)


class ServerError(ZeodError):
    """The server reported an error of a class that this client does not know: its dotted `name` and its arguments."""

    def __init__(self, name: str, arguments: object = ()) -> None:
        super().__init__(name, arguments)
        self.name, self.arguments = name, arguments

    def __str__(self) -> str:
        return f"the server reported {self.name[:100]}: {shown(self.arguments)}"


class InvalidObjectReference(ZeodError):
    """A stored object refers to a persistent object of another database, or of another connection."""

    twin_name: ClassVar[str] = "ZODB.POSException.InvalidObjectReference"


class ReadOnlyHistoryError(ZeodError):
    """A write through a historical connection: the past cannot be changed."""

    twin_name: ClassVar[str] = "ZODB.POSException.ReadOnlyHistoryError"


class ConnectionStateError(ZeodError):
    """A database or a connection was used while it is closed, or closed in the middle of a transaction."""

    twin_name: ClassVar[str] = "ZODB.POSException.ConnectionStateError"


class BlobError(ZeodError):
    """A blob's state does not allow what is asked: it is written while it is read, or has no committed data."""

    twin_name: ClassVar[str] = "ZODB.interfaces.BlobError"


class OpenedBlobError(BlobError, ValueError):
    """A changed blob is to be committed while one of its files is open."""


class Unsupported(ZeodError):
    """The storage cannot do this at all, whatever its state."""

    twin_name: ClassVar[str] = "ZODB.POSException.Unsupported"


class ExportError(ZeodError):
    """An export file is damaged or none at all; `path` and `reason` say which and why."""

    twin_name: ClassVar[str] = "ZODB.POSException.ExportError"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: cannot be imported: {self.reason}"


class StateLoadError(ZeodError):
    """The record of the object `oid`, of class `class_name`, is there, but its state could not be made from it.

    `reason` is the error behind it, which is also the exception's cause: often one raised by the class's own code.
    """

    twin_name: ClassVar[str] = "ZODB.POSException.StateLoadError"

    def __init__(self, class_name: str, oid: Oid | None, reason: str) -> None:
        super().__init__(class_name, oid, reason)
        self.class_name, self.oid, self.reason = class_name, oid, reason

    def __str__(self) -> str:
        return f"cannot load the state of {self.class_name} with oid {oid_repr(self.oid)}: {self.reason}"


class UnpicklableError(ZeodError, TypeError):
    """The object `oid` of class `class_name` cannot be stored.

    `path` leads from the object to the value at fault, such as ".items['x']"; it is empty if that could not be found.
    """

    def __init__(self, class_name: str, oid: Oid | None, path: str, reason: str) -> None:
        super().__init__(class_name, oid, path, reason)
        self.class_name, self.oid, self.path, self.reason = class_name, oid, path, reason

    def __str__(self) -> str:
        where = f", at {self.path}" if self.path else ""
        return f"cannot store {self.class_name} with oid {oid_repr(self.oid)}{where}: {self.reason}"


class ConfigurationError(ZeodError):
    """A configuration file, a command-line option or an address cannot be used; the text names it."""


class ProtocolError(ZeodError):
    """The rules of the wire were broken; the session is dead after it."""


class LocalProtocolError(ProtocolError):
    """This side tried to do what the protocol does not allow: a bug on this side."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what the protocol does not allow."""
