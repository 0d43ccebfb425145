"""Records with a message for a state: written from objects of the classes that ProtobufState makes, and read again.

zeo_core.protobuf_record has the envelope. Here the references in it become objects.
"""

import sys
from collections.abc import Callable
from typing import Any, NoReturn

from zeo_client.broken import Broken
from zeo_client.protobuf.envelope import (
    NO_DATABASE,
    class_metadata,
    encoded_class,
    encoded_reference,
    read_envelope,
    write_envelope,
)
from zeo_client.protobuf.state import StateTuple
from zeo_client.state_formats import register_state_format
from zeo_client.zodb_names import stored_names
from zeo_core.errors import InvalidObjectReference, UnpicklableError
from zeo_core.protobuf_record import PROTOBUF

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
        return write_envelope(_class_part(obj, cls), data, references)

    def class_names(self, data: bytes) -> tuple[str, str]:
        """Return the class's names."""
        return class_metadata(read_envelope(data).class_meta)

    def state(self, data: bytes, load_reference: Callable[[Any], Any]) -> StateTuple:
        """Return the state."""
        record = read_envelope(data)
        return StateTuple((record.state, {each.refid: load_reference(_read(each)) for each in record.references}))


def _written(obj: Any, refid: int, target: Any, reference: Any) -> bytes:
    """Return a reference as it stands in the record, from one as it would stand in a pickle."""
    if type(reference) is tuple:
        return encoded_reference(refid, reference[0], _class_part(obj, type(target)))
    match reference:
        case bytes(oid):
            return encoded_reference(refid, oid)
        case ["n", (database, oid)]:
            return encoded_reference(refid, oid, database=database)
        case ["m", (database, oid, _)]:
            return encoded_reference(refid, oid, _class_part(obj, type(target)), database)
        case ["w", (oid,)]:
            return encoded_reference(refid, oid, weak=True)
        case ["w", _]:
            _refuse(obj, f"a record of this kind has no weak references into other databases: {target!r:.100}")
    raise InvalidObjectReference(
        f"{type(obj).__module__}.{type(obj).__qualname__}: protobuf reference target is not a persistent object:"
        f" {target!r:.200}"
    )


def _read(reference: Any) -> Any:
    """Return a reference as it would stand in a pickle, with the names of the class for the class."""
    oid = reference.zoid.to_bytes(8, "big")
    if reference.weak:
        return ["w", (oid,)]
    database, encoded = reference.database, reference.class_meta
    if database == NO_DATABASE:
        return (oid, class_metadata(encoded)) if encoded else oid
    return ["m", (database, oid, class_metadata(encoded))] if encoded else ["n", (database, oid)]


def _class_part(obj: Any, cls: type) -> bytes:
    module, name = stored_names(cls)
    known_otherwise = module != cls.__module__ or issubclass(cls, Broken)
    if not known_otherwise and getattr(sys.modules.get(module), name, None) is not cls:
        _refuse(obj, f"the class {module}.{cls.__qualname__} is not found under its name at the top of its module")
    return encoded_class(module, name)


def _refuse(obj: Any, reason: str) -> NoReturn:
    raise UnpicklableError(f"{type(obj).__module__}.{type(obj).__qualname__}", obj._p_oid, "", reason)


def register() -> None:
    """Switch the format on for the process; harmless when repeated.

    Before that, objects with a message for a state are pickled, and their records of this format cannot be read.
    """
    register_state_format(PROTOBUF, StateTuple, ProtobufRecords())
