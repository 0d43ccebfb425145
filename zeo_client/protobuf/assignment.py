"""Giving fields plain Python values: dictionaries for messages, datetimes for Timestamps, objects for references."""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.message import Message

from zeo_client.protobuf.messages import MessageView, clear, plain
from zeo_client.protobuf.reach import REFID, is_pure_reference
from zeo_client.protobuf.state import Held

__all__ = ["assign", "fill", "is_map", "new_element", "new_entry", "refer", "target_of"]


def is_map(field: Any) -> bool:
    """Tell whether a field is a map."""
    return bool(field.is_repeated and field.message_type is not None and field.message_type.GetOptions().map_entry)


def target_of(reference: Any, held: Held) -> Any:
    """Return the object that a reference message leads to, None if it has no target."""
    return held.targets.get(getattr(reference, REFID))


def refer(reference: Any, target: Any, held: Held) -> None:
    """Let a reference message lead to `target`: an object, None for none, or another message."""
    if target is None:
        reference.ClearField(REFID)
    elif _is_message_of(target, reference.DESCRIPTOR):
        reference.CopyFrom(plain(target))
    else:
        setattr(reference, REFID, held.refid_of(target))


def _is_message_of(value: Any, descriptor: Any) -> bool:
    return (type(value) is MessageView or isinstance(value, Message)) and value.DESCRIPTOR is descriptor


def fill(message: Any, values: Mapping[str, Any], held: Held, live: bool) -> None:
    """Give fields their values; None leaves one unset. AttributeError for a field that there is not."""
    fields = message.DESCRIPTOR.fields_by_name
    for name, value in values.items():
        if name not in fields:
            raise AttributeError(f"{message.DESCRIPTOR.full_name} has no field {name!r}")
        if value is not None:
            assign(message, fields[name], value, held, live)


def assign(message: Any, field: Any, value: Any, held: Held, live: bool) -> None:
    """Give a field of a message of `protobuf`'s a value, whatever kind it is; TypeError if that is of a wrong type.

    Nothing is changed if an error is raised. `live`: a reference takes the object that it is to lead to.
    """
    if field.message_type is None and not field.is_repeated:
        setattr(message, field.name, value)
    elif not field.is_repeated:
        _assign_message(message, field, value, held, live)
    elif is_map(field):
        _assign_map(message, field, value, held, live)
    else:
        _assign_list(message, field, value, held, live)


def _assign_message(message: Any, field: Any, value: Any, held: Held, live: bool) -> None:
    if value is None:
        clear(message, field.name)
        return
    made = type(message)()
    part = getattr(made, field.name)
    part.SetInParent()
    _become(part, value, held, live)
    # Merged into what is there, emptied, so that who holds the message there keeps a part of the state.
    here = getattr(message, field.name)
    if here.ByteSize():
        here.Clear()
    message.MergeFrom(made)


def _become(part: Any, value: Any, held: Held, live: bool) -> None:
    """Fill a new message by a value for a field of its type."""
    descriptor = part.DESCRIPTOR
    if _is_message_of(value, descriptor):
        part.CopyFrom(plain(value))
    elif live and is_pure_reference(descriptor):
        refer(part, value, held)
    elif descriptor.full_name.startswith("google.protobuf.") and not isinstance(value, Message):
        _become_well_known(part, value)
    elif isinstance(value, Mapping):
        fill(part, value, held, live)
    else:
        raise TypeError(f"{descriptor.full_name} wants a message of its type or a dictionary, not {value!r:.100}")


def _become_well_known(part: Any, value: Any) -> None:
    """Fill a message of one of Google's types by the plain value that it stands for: a datetime, a number, a list..."""
    descriptor = part.DESCRIPTOR
    if hasattr(part, "_internal_assign"):
        part._internal_assign(value)  # noqa: SLF001 - what the package itself calls in an assignment to a field
    elif list(descriptor.fields_by_name) == ["value"]:
        part.value = value
    else:
        raise TypeError(f"{descriptor.full_name} cannot become {value!r:.100}")


def new_element(message: Any, name: str, value: Any, held: Held, live: bool) -> Any:
    """Return a message that stands alone, for the repeated field `name` of messages like `message`."""
    return _new(getattr(type(message)(), name).add(), value, held, live)


def new_entry(message: Any, name: str, value: Any, held: Held, live: bool) -> Any:
    """Return a message that stands alone, for the map `name` of messages like `message`."""
    entry = getattr(type(message)(), name).GetEntryClass()()
    return _new(entry.value, value, held, live)


def _new(part: Any, value: Any, held: Held, live: bool) -> Any:
    made = type(part)()
    _become(made, value, held, live)
    return made


def _assign_list(message: Any, field: Any, value: Any, held: Held, live: bool) -> None:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise TypeError(f"{field.full_name} wants a list, not {value!r:.100}")
    made = type(message)()
    elements = getattr(made, field.name)
    if field.message_type is None:
        elements.extend(value)
    else:
        for each in value:
            _become(elements.add(), each, held, live)
    message.ClearField(field.name)
    message.MergeFrom(made)


def _assign_map(message: Any, field: Any, value: Any, held: Held, live: bool) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{field.full_name} wants a dictionary, not {value!r:.100}")
    made = type(message)()
    entries = getattr(made, field.name)
    scalars = field.message_type.fields_by_name["value"].message_type is None
    for key, each in value.items():
        if scalars:
            entries[key] = each
        else:
            _become(entries[key], each, held, live)
    message.ClearField(field.name)
    message.MergeFrom(made)
