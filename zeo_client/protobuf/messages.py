"""A message inside of an object's state, for programs: it looks like the message, and tells the object of changes."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from google.protobuf.message import Message

from zeo_client.protobuf.nodes import Node

__all__ = ["FieldAccess", "MessageView", "clear", "plain"]

# Types of Google's whose messages have methods of their own that change nothing but their fields' values.
_WITH_METHODS: Final = frozenset(f"google.protobuf.{name}" for name in ("Any", "Duration", "FieldMask", "Timestamp"))
_READ_ONLY: Final = frozenset(
    (
        "ByteSize",
        "FindInitializationErrors",
        "FromString",
        "HasField",
        "IsInitialized",
        "SerializePartialToString",
        "SerializeToString",
        "WhichOneof",
    )
)
_CHANGING: Final = frozenset(("Clear", "DiscardUnknownFields", "MergeFromString", "ParseFromString", "SetInParent"))
_HIDDEN: Final = frozenset(("Extensions", "UnknownFields"))  # what is reached through them could be changed unseen


class FieldAccess(Protocol):
    """How a field of the message at a node is read and written."""

    def get(self, node: Node) -> Any:
        """Return the value, a view of it if it can be changed in place."""

    def set(self, node: Node, value: Any) -> None:
        """Give it another value."""


def plain(value: Any) -> Any:
    """Return the message behind a view; everything else as it is."""
    return value._node.message if type(value) is MessageView else value  # noqa: SLF001 - the name keeps out of fields


def clear(message: Any, name: str) -> None:
    """Unset a field or a oneof; an unset member of a oneof stays so.

    To clear that can unset the member that is set: if somebody has looked at the unset message (protobuf 7.36).
    """
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is not None and field.containing_oneof is not None and not message.HasField(name):
        message.SetInParent()  # as to clear an unset field does
    else:
        message.ClearField(name)


class MessageView:
    """A message in an object's state; it has the message's fields and methods, and is equal to an equal message.

    It is no message of the package `protobuf` for functions written in C, such as another message's CopyFrom:
    `copy.deepcopy(view)` returns one that stands alone.
    """

    __slots__ = ("_fields", "_node")

    def __init__(self, node: Node, fields: Mapping[str, FieldAccess]) -> None:
        object.__setattr__(self, "_node", node)
        object.__setattr__(self, "_fields", fields)

    @property  # type: ignore[misc] # which objects may set elsewhere
    def __class__(self) -> Any:
        """The message's class, so that isinstance tells what the message is."""
        return type(self._node.message)

    def __getattr__(self, name: str) -> Any:
        field = self._fields.get(name)
        if field is not None:
            return field.get(self._node)
        return self._other(name)

    def _other(self, name: str) -> Any:
        """Return one of the message's methods, or what else its class has."""
        node = self._node
        message = node.message
        found = getattr(message, name)
        if name in _CHANGING or (message.DESCRIPTOR.full_name in _WITH_METHODS and not hasattr(Message, name)):
            return lambda *args, **options: node.edit(lambda each: getattr(each, name)(*args, **options))
        if name in _HIDDEN or (callable(found) and not isinstance(found, type) and name not in _READ_ONLY):
            raise AttributeError(f"{name} is not offered for a message in an object's state; copy.deepcopy it first")
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        field = self._fields.get(name)
        if field is None:
            raise AttributeError(f"{self._node.message.DESCRIPTOR.full_name} has no field {name!r}")
        field.set(self._node, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"can't delete attribute {name!r}: use ClearField")

    def ClearField(self, name: str) -> None:  # noqa: N802 - these names are the package protobuf's
        """Unset a field or a oneof."""
        self._node.edit(lambda message: clear(message, name))

    def CopyFrom(self, other: Any) -> None:  # noqa: N802
        """Become equal to another message of the type."""
        source = plain(other)
        if source is not self._node.message:
            self._node.edit(lambda message: message.CopyFrom(source))

    def MergeFrom(self, other: Any) -> None:  # noqa: N802
        """Take over what is set in another message of the type, and append its repeated fields."""
        source = plain(other)
        self._node.edit(lambda message: message.MergeFrom(source))

    def ListFields(self) -> list[tuple[Any, Any]]:  # noqa: N802
        """Return the fields that are set, with their values: copies, to be read only."""
        fields: list[tuple[Any, Any]] = self.__deepcopy__().ListFields()
        return fields

    def __deepcopy__(self, _memo: Any = None) -> Any:
        message = self._node.message
        made = type(message)()
        made.CopyFrom(message)
        return made

    __copy__ = __deepcopy__

    def __reduce_ex__(self, _protocol: Any) -> Any:
        message = self._node.message
        return type(message).FromString, (message.SerializePartialToString(),)

    def __eq__(self, other: object) -> bool:
        equal: bool = self._node.message == plain(other)
        return equal

    __hash__ = None  # type: ignore[assignment] # as messages have none

    def __dir__(self) -> list[str]:
        return dir(self._node.message)

    def __repr__(self) -> str:
        return repr(self._node.message)

    def __str__(self) -> str:
        return str(self._node.message)
