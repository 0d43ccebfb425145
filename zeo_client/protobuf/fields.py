"""The fields of a type of messages, by kind: how each is read from a message in an object's state, and written."""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor

from zeo_client.protobuf.assignment import assign, is_map, target_of
from zeo_client.protobuf.live import LiveReferenceMap, LiveReferences
from zeo_client.protobuf.maps import MapOfMessages, MapOfScalars
from zeo_client.protobuf.messages import FieldAccess, MessageView
from zeo_client.protobuf.nodes import ChildNode, Node
from zeo_client.protobuf.reach import is_pure_reference
from zeo_client.protobuf.repeated import Repeated, RepeatedMessages, RepeatedScalars

__all__ = [
    "Field",
    "MapField",
    "MessageField",
    "MessageMapField",
    "RepeatedField",
    "RepeatedMessageField",
    "ScalarField",
    "fields_of",
    "view_of",
]

_FLOATS: Final = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)


@cache
def fields_of(descriptor: Any) -> Mapping[str, FieldAccess]:
    """Return the fields of a type by name."""
    return MappingProxyType({field.name: _access(field) for field in descriptor.fields})


def view_of(node: Node) -> MessageView:
    """Return the view of the message at a node."""
    return MessageView(node, fields_of(node.message.DESCRIPTOR))


def _access(field: Any) -> FieldAccess:
    if is_map(field):
        value = field.message_type.fields_by_name["value"].message_type
        return MapField(field) if value is None else MessageMapField(field, is_pure_reference(value))
    if field.message_type is None:
        return RepeatedField(field) if field.is_repeated else ScalarField(field)
    pure = is_pure_reference(field.message_type)
    return RepeatedMessageField(field, pure) if field.is_repeated else MessageField(field, pure)


class Field:
    """A field of any kind: to set it replaces it."""

    __slots__ = ("_field", "_name")

    def __init__(self, field: Any) -> None:
        self._field = field
        self._name: str = field.name

    def set(self, node: Node, value: Any) -> None:
        """Replace the value."""
        if isinstance(value, Repeated | MapOfScalars) and value.is_at(node, self._name):
            return  # the rest of `obj.field += ...`, which has changed the list in place
        field, held, live = self._field, node.held, node.live
        node.edit(lambda message: assign(message, field, value, held, live))


class ScalarField(Field):
    """A number, a text, bytes, an enum."""

    __slots__ = ("compared_by_bits", "has_presence")

    def __init__(self, field: Any) -> None:
        super().__init__(field)
        self.has_presence: bool = field.has_presence
        """Whether it can be unset."""
        self.compared_by_bits = field.type in _FLOATS
        """Whether equal values may not be the same: 0.0 equals -0.0, and no NaN itself."""

    def get(self, node: Node) -> Any:
        """Return the value."""
        return getattr(node.message, self._name)

    def set(self, node: Node, value: Any) -> None:
        """Replace the value."""
        name = self._name
        node.edit(lambda message: setattr(message, name, value))


class MessageField(Field):
    """A message, or what a reference leads to."""

    __slots__ = ("pure_reference",)

    def __init__(self, field: Any, pure_reference: bool) -> None:
        super().__init__(field)
        self.pure_reference = pure_reference
        """Whether the messages are references that the targets can stand for."""

    def get(self, node: Node) -> Any:
        """Return the message, or the object."""
        if node.live and self.pure_reference:
            return target_of(getattr(node.message, self._name), node.held)
        return view_of(ChildNode(node, self._name))


class RepeatedField(Field):
    """Numbers, texts, bytes."""

    __slots__ = ()

    def get(self, node: Node) -> Any:
        """Return the list."""
        return RepeatedScalars(node, self._name)


class RepeatedMessageField(MessageField):
    """Messages, or what references lead to."""

    __slots__ = ()

    def get(self, node: Node) -> Any:
        """Return the list."""
        kind = LiveReferences if node.live and self.pure_reference else RepeatedMessages
        return kind(node, self._name, view_of)


class MapField(Field):
    """A map to numbers, texts, bytes."""

    __slots__ = ()

    def get(self, node: Node) -> Any:
        """Return the map."""
        return MapOfScalars(node, self._name)


class MessageMapField(MessageField):
    """A map to messages, or to what references lead to."""

    __slots__ = ()

    def get(self, node: Node) -> Any:
        """Return the map."""
        if node.live and self.pure_reference:
            return LiveReferenceMap(node, self._name)
        return MapOfMessages(node, self._name, view_of)
