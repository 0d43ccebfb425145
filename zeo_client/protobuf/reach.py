"""Where in a message there are references: the messages of types that have a field `_p_refid` of type uint32."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor

__all__ = ["REFID", "is_pure_reference", "is_reference", "refids_in"]

REFID: Final = "_p_refid"
"""The field that makes a type of messages one of references."""

_Visit = Callable[[Any, str, dict[int, None]], None]


@cache
def is_reference(descriptor: Any) -> bool:
    """Tell whether messages of this type are references."""
    field = descriptor.fields_by_name.get(REFID)
    return field is not None and field.type == FieldDescriptor.TYPE_UINT32 and not field.is_repeated


@cache
def is_pure_reference(descriptor: Any) -> bool:
    """Tell whether messages of this type have nothing but the reference, so that the target can stand for them."""
    return is_reference(descriptor) and len(descriptor.fields) == 1


def refids_in(message: Any) -> Iterable[int]:
    """Return the refids that a message and its parts refer to targets by, each once, in the order of the fields."""
    descriptor = message.DESCRIPTOR
    if not _ways(descriptor) and not is_reference(descriptor):
        return ()
    found: dict[int, None] = {}
    _collect(message, found)
    found.pop(0, None)  # no target
    return found


def _collect(message: Any, found: dict[int, None]) -> None:
    descriptor = message.DESCRIPTOR
    if is_reference(descriptor):
        found[getattr(message, REFID)] = None
    for name, visit in _ways(descriptor):
        visit(message, name, found)


@cache
def _ways(descriptor: Any) -> tuple[tuple[str, _Visit], ...]:
    """Return the fields through which references can be reached, each with how to visit its messages."""
    return tuple((field.name, _visitor(field)) for field in descriptor.fields if _leads_to_reference(field))


def _leads_to_reference(field: Any) -> bool:
    """Tell whether a reference is of the field's type or can be in it; types may contain each other."""
    seen, waiting = set(), [field.message_type]
    while waiting:
        descriptor = waiting.pop()
        if descriptor is None or descriptor in seen:
            continue
        if is_reference(descriptor):
            return True
        seen.add(descriptor)
        waiting += [each.message_type for each in descriptor.fields]
    return False


def _visitor(field: Any) -> _Visit:
    if field.is_repeated:
        return _visit_map if field.message_type.GetOptions().map_entry else _visit_elements
    return _visit_reference if is_pure_reference(field.message_type) else _visit_field


def _visit_reference(message: Any, name: str, found: dict[int, None]) -> None:
    found[getattr(getattr(message, name), REFID)] = None  # without a step for what may be in it; 0 if it is not set


def _visit_field(message: Any, name: str, found: dict[int, None]) -> None:
    if message.HasField(name):  # to look into one that is not set would never end, in a type that contains itself
        _collect(getattr(message, name), found)


def _visit_elements(message: Any, name: str, found: dict[int, None]) -> None:
    for each in getattr(message, name):
        _collect(each, found)


def _visit_map(message: Any, name: str, found: dict[int, None]) -> None:
    for each in getattr(message, name).values():
        _collect(each, found)
