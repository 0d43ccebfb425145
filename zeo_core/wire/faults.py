"""Errors as replies carry them: a class's name and its arguments, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

from zeo_core.errors import (
    ClientDisconnected,
    CommitInDoubtError,
    ConflictError,
    FileFormatError,
    FileLockedError,
    MultipleUndoErrors,
    NotCommittedError,
    POSKeyError,
    ServerError,
    StorageFullError,
    UndoError,
    class_on_the_wire,
    shown,
)
from zeo_core.ids import Oid, is_id

__all__ = ["from_wire", "to_wire"]

_TWO_TEXTS = (StorageFullError, ClientDisconnected, NotCommittedError, CommitInDoubtError)  # are their arguments

_Map = Mapping[str, Any]
_Scalar = bytes | str | int | float | None


def to_wire(error: BaseException) -> tuple[str, Sequence[object] | _Map]:
    """Return (dotted class name, arguments) as an M5 error reply carries them.

    A conflict travels as its attributes, all of which a ZEO client asks for; everything else as its `args`, reduced to
    text where msgpack could not carry them. Classes without a name on the wire travel under their own or their base's,
    which a ZEO client shows as a ServerException.
    """
    cls = type(error)
    name = getattr(cls, "wire_name", None) or f"{cls.__module__}.{cls.__qualname__}"
    if isinstance(error, ConflictError):
        serials = None if error.serials is None else [_carried(serial) for serial in error.serials]
        return name, {
            "message": _carried(error.message),
            "oid": _carried(error.oid),
            "serials": serials,
            "class_name": _carried(error.class_name),
        }
    if isinstance(error, MultipleUndoErrors):
        return name, {"_errs": [[_carried(oid), _carried(reason)] for oid, reason in error.errors]}
    if isinstance(error, FileFormatError | FileLockedError):
        return name, [_carried(str(error))]
    return name, [_carried(arg) for arg in error.args]


def _carried(value: object) -> object:
    """Return `value`, or the nearest text, as msgpack can carry it."""
    if isinstance(value, bytes | float | None) or (isinstance(value, int) and -(2**63) <= value < 2**64):
        return value
    # a file name that is no UTF-8 has lone surrogates in Python
    return str(value).encode("utf-8", "backslashreplace").decode()


def from_wire(name: object, arguments: object) -> Exception:
    """Return the exception that an error reply stands for: a class known here, or a ServerError.

    Whatever a peer sends, this does not raise, nor does the `str` of what it returns: arguments that do not fit the
    class make a ServerError that shows them.
    """
    cls = class_on_the_wire(name) if isinstance(name, str) else None
    if cls is None:
        return ServerError(name if isinstance(name, str) else shown(name), arguments)
    if issubclass(cls, ConflictError):
        known = _conflict_arguments(arguments)
        return ServerError(str(name), arguments) if known is None else cls(*known)
    if cls is MultipleUndoErrors:
        pairs = _undo_pairs(arguments)
        return cls(pairs) if pairs else ServerError(str(name), arguments)
    if isinstance(arguments, Mapping):
        arguments = tuple(arguments.values())
    if not isinstance(arguments, list | tuple) or not all(isinstance(value, _Scalar) for value in arguments):
        return ServerError(str(name), arguments)
    if cls in _TWO_TEXTS and not _texts_fit(cls, arguments):
        return ServerError(str(name), arguments)
    if cls is UndoError and not _undo_arguments_fit(arguments):
        return ServerError(str(name), arguments)
    if cls is POSKeyError:
        if len(arguments) == 3 and isinstance(arguments[0], str):
            arguments = arguments[1:2]  # where ZODB misses a blob: a text, the oid and the serial
        if not (len(arguments) == 1 and is_id(arguments[0])):
            return ServerError(str(name), arguments)
    return cls(*arguments)


def _texts_fit(cls: type[Exception], arguments: Sequence[object]) -> bool:
    most = 3 if issubclass(cls, ClientDisconnected) else 2  # with the time at which it was lost
    return 2 <= len(arguments) <= most and all(isinstance(value, str) for value in arguments)


def _undo_arguments_fit(arguments: Sequence[object]) -> bool:
    reason = arguments[0] if arguments else ""
    oid = arguments[1] if len(arguments) > 1 else None
    return len(arguments) <= 2 and isinstance(reason, str) and (oid is None or is_id(oid))


def _undo_pairs(arguments: object) -> list[tuple[Oid, str]]:
    """Return the pairs of a MultipleUndoErrors; none if they are not what they must be."""
    found = arguments.get("_errs") if isinstance(arguments, Mapping) else None
    if not isinstance(found, list | tuple):
        return []
    pairs = [tuple(pair) for pair in found if isinstance(pair, list | tuple) and len(pair) == 2]
    fit = all(is_id(oid) and isinstance(reason, str) for oid, reason in pairs)
    return pairs if fit and len(pairs) == len(found) else []


def _conflict_arguments(arguments: object) -> tuple[Any, ...] | None:
    """Return message, oid, serials and class name of a conflict, None if they are not what they must be."""
    if isinstance(arguments, Mapping):
        message, oid, serials, class_name = map(arguments.get, ("message", "oid", "serials", "class_name"))
    elif isinstance(arguments, list | tuple) and len(arguments) <= 4:
        message, oid, serials, class_name = (*arguments, None, None, None, None)[:4]
    else:
        return None
    if serials is not None:
        if not isinstance(serials, list | tuple) or len(serials) != 2 or not all(map(is_id, serials)):
            return None
        serials = tuple(serials)
    texts_fit = all(isinstance(text, str | None) for text in (message, class_name))
    return (message, oid, serials, class_name) if texts_fit and (oid is None or is_id(oid)) else None
