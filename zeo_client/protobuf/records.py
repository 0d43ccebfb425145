"""Records with a message for a state: written from objects of the classes that ProtobufState makes, and read again.

zeo_core.protobuf_record has the envelope. Here the references in it become objects.
"""

import sys
from collections.abc import Callable
from typing import Any, NoReturn

from zeo_client.broken import Broken
from zeo_client.protobuf.state import StateTuple
from zeo_client.state_formats import register_state_format
from zeo_client.zodb_names import stored_names
from zeo_core.errors import InvalidObjectReference, UnpicklableError
from zeo_core.ids import unpack_id
from zeo_core.protobuf_record import PROTOBUF, ClassMetadata, ObjectRecord, Reference, decode, encode

__all__ = ["ProtobufRecords", "register"]


class ProtobufRecords:
    """The format, for the object layer; see zeo_client.state_formats.StateFormat."""

    def record(self, obj: Any, state: Any, reference_to: Callable[[Any], Any]) -> bytes:
        """Return an object's record."""
        cls = type(obj)
        if hasattr(cls, "__getnewargs__") and not issubclass(cls, Broken):
            _refuse(
                obj, "a class with a message for its state cannot have __getnewargs__: records have no place for it"
            )
        data, targets = state
        references = [_written(obj, refid, target, reference_to(target)) for refid, target in targets.items()]
        return encode(ObjectRecord(_class_metadata(obj, cls), data, tuple(references)))

    def class_names(self, data: bytes) -> tuple[str, str]:
        """Return the class's names."""
        return decode(data).class_meta

    def state(self, data: bytes, load_reference: Callable[[Any], Any]) -> StateTuple:
        """Return the state."""
        _, state, references = decode(data)
        return StateTuple((state, {each.refid: load_reference(_read(each)) for each in references}))


def _written(obj: Any, refid: int, target: Any, reference: Any) -> Reference:
    """Return a reference as it stands in the record, from one as it would stand in a pickle."""
    match reference:
        case bytes(oid):
            return Reference(refid, unpack_id(oid))
        case (bytes(oid), _):
            return Reference(refid, unpack_id(oid), _class_metadata(obj, type(target)))
        case ["n", (database, oid)]:
            return Reference(refid, unpack_id(oid), None, database)
        case ["m", (database, oid, _)]:
            return Reference(refid, unpack_id(oid), _class_metadata(obj, type(target)), database)
        case ["w", (oid,)]:
            return Reference(refid, unpack_id(oid), weak=True)
        case ["w", _]:
            _refuse(obj, f"a record of this kind has no weak references into other databases: {target!r:.100}")
    raise InvalidObjectReference(
        f"{type(obj).__module__}.{type(obj).__qualname__}: protobuf reference target is not a persistent object:"
        f" {target!r:.200}"
    )


def _read(reference: Reference) -> Any:
    """Return a reference as it would stand in a pickle, with the names of the class for the class."""
    _, _, class_meta, database, weak = reference
    oid = reference.oid
    if weak:
        return ["w", (oid,)]
    names = None if class_meta is None else tuple(class_meta)
    if database is None:
        return oid if names is None else (oid, names)
    return ["n", (database, oid)] if names is None else ["m", (database, oid, names)]


def _class_metadata(obj: Any, cls: type) -> ClassMetadata:
    module, name = stored_names(cls)
    known_otherwise = issubclass(cls, Broken) or module != cls.__module__
    if not known_otherwise and getattr(sys.modules.get(module), name, None) is not cls:
        _refuse(obj, f"the class {module}.{cls.__qualname__} is not found under its name at the top of its module")
    return ClassMetadata(module, name)


def _refuse(obj: Any, reason: str) -> NoReturn:
    raise UnpicklableError(f"{type(obj).__module__}.{type(obj).__qualname__}", obj._p_oid, "", reason)


def register() -> None:
    """Switch the format on for the process; harmless when repeated.

    Before that, objects with a message for a state are pickled, and their records of this format cannot be read.
    """
    register_state_format(PROTOBUF, StateTuple, ProtobufRecords())
