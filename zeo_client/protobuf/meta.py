"""Classes that keep their state in a message of Protocol Buffers: by a metaclass, or derived from a class.

    class PContact(Persistent, metaclass=ProtobufState):
        protobuf_type = ContactPB

    class PContact(ProtobufPersistent, message=ContactPB): ...

The fields of the message are the attributes of the objects, and there are no others: the state is what the schema says.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from persistent import Persistent

from zeo_client.protobuf.assignment import fill, target_of
from zeo_client.protobuf.errors import BrokenReferenceError
from zeo_client.protobuf.fields import MessageField, ScalarField, fields_of, view_of
from zeo_client.protobuf.messages import FieldAccess, MessageView
from zeo_client.protobuf.nodes import ChildNode, Node, RootNode, is_watched
from zeo_client.protobuf.reach import refids_in
from zeo_client.protobuf.references import ProtobufReferences
from zeo_client.protobuf.state import SLOT, Held, StateTuple, held_of, hold

__all__ = ["ProtobufObject", "ProtobufPersistent", "ProtobufState"]


class _Attribute:
    """A field of the message as an attribute of the object; `mixin` names the field whose message has it, if any."""

    def __init__(self, name: str, access: FieldAccess, mixin: str | None) -> None:
        self._name = name
        self._access = access
        self._mixin = mixin

    def _node(self, obj: Any) -> Node:
        root = RootNode(obj, obj.protobuf_live_references)
        return root if self._mixin is None else ChildNode(root, self._mixin)

    def __get__(self, obj: Any, _cls: Any = None) -> Any:
        return self if obj is None else self._access.get(self._node(obj))

    def __set__(self, obj: Any, value: Any) -> None:
        self._access.set(self._node(obj), value)

    def __delete__(self, obj: Any) -> NoReturn:
        raise AttributeError(f"can't delete attribute {self._name!r}: it is a field of the message")


class _ScalarAttribute(_Attribute):
    """A field of the object's own message that can be read and written without a view."""

    _access: ScalarField

    def __get__(self, obj: Any, _cls: Any = None) -> Any:
        return self if obj is None else getattr(held_of(obj).message, self._name)

    def __set__(self, obj: Any, value: Any) -> None:
        message = held_of(obj).message
        if is_watched(obj):
            if self._access.compared_by_bits:
                super().__set__(obj, value)
                return
            if not self._changes(message, value):
                return
            obj._p_changed = True
        setattr(message, self._name, value)

    def _changes(self, message: Any, value: Any) -> bool:
        """Tell whether `value` is another one; raises what the message raises for a wrong one."""
        name = self._name
        trial = type(message)()  # cheaper than a copy of the message
        setattr(trial, name, value)
        if getattr(trial, name) != getattr(message, name):
            return True
        return self._access.has_presence and not message.HasField(name)


class _ReferenceAttribute(_Attribute):
    """A reference in the object's own message, shown as its target without a view."""

    def __get__(self, obj: Any, _cls: Any = None) -> Any:
        if obj is None or not obj.protobuf_live_references:
            return super().__get__(obj)
        held = held_of(obj)
        return target_of(getattr(held.message, self._name), held)


class ProtobufObject:
    """What all objects have whose class is made by ProtobufState; the metaclass puts it before the other bases."""

    __slots__ = ()

    protobuf_type: Any
    """The class of the messages."""

    protobuf_mixins: tuple[str, ...] = ()
    """Fields whose messages' fields are attributes of the objects, too."""

    protobuf_live_references: bool = False
    """Whether attributes show references as the objects that they lead to; so it is in Persistent classes."""

    _protobuf_attributes: ClassVar[Mapping[str, "_Attribute"]] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        # Not by way of persistent, which takes every attribute that is set for a change before it knows the value. By
        # the class, because to ask the object would load a ghost.
        cls = type(self)
        attribute = cls._protobuf_attributes.get(name)
        if attribute is not None:
            attribute.__set__(self, value)
            return
        if cls.__dictoffset__ and not name.startswith(("_p_", "_v_")) and not _is_settable(cls, name):
            raise AttributeError(f"{cls.__name__!r} object has no attribute {name!r}: its message has no such field")
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        cls = type(self)
        attribute = cls._protobuf_attributes.get(name)
        if attribute is not None:
            attribute.__delete__(self)
        super().__delattr__(name)

    @property
    def protobuf(self) -> MessageView:
        """The message: its fields, references as messages; to change it changes the object."""
        return view_of(RootNode(self, live=False))

    @property
    def protobuf_refs(self) -> ProtobufReferences:
        """The targets of the references."""
        return ProtobufReferences(held_of(self))

    def __getstate__(self) -> StateTuple:
        held = held_of(self)
        message = held.message
        data = message.SerializeToString()
        used = refids_in(message)
        try:
            targets = {refid: held.targets[refid] for refid in used}
        except KeyError:
            lost = tuple(refid for refid in used if refid not in held.targets)
            raise BrokenReferenceError(
                f"Object contains broken references: {self!r}: no target for {', '.join(map(str, lost))} in a message;"
                " set references through the protobuf_refs of the object that has them",
                lost,
            ) from None
        return StateTuple((data, targets))

    def __setstate__(self, state: Any) -> None:
        message = type(self).protobuf_type()
        if isinstance(state, tuple):
            data, targets = state
            message.MergeFromString(data)
            held = Held(message, dict(targets))
        else:  # as it was pickled before the class came to have a message
            held = Held(message, {})
            fill(message, state, held, live=True)
        hold(self, held)


class ProtobufState(type):
    """The metaclass of classes whose objects' state is a message of the type `protobuf_type`.

    In the place of the attribute, `message` can be given in the line of the class. TypeError if there is neither,
    unless the class is `abstract`: one to derive from.
    """

    def __new__(  # noqa: D102 - as for every class
        cls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        message: Any = None,
        abstract: bool = False,
        **options: Any,
    ) -> Any:
        if message is not None:
            namespace["protobuf_type"] = message
        first = not any(isinstance(base, ProtobufState) for base in bases)
        if first:
            bases = (ProtobufObject, *(base for base in bases if base not in (object, ProtobufObject)))
            namespace.setdefault("protobuf_live_references", any(issubclass(base, Persistent) for base in bases))
        namespace["__slots__"] = _slots(bases, namespace)
        made: Any = super().__new__(cls, name, bases, namespace, **options)
        message_type = getattr(made, "protobuf_type", None)
        if message_type is not None:
            if "protobuf_type" in namespace or "protobuf_mixins" in namespace:
                _add_fields(made, namespace, message_type)
        elif not abstract:
            raise TypeError(
                f"Class {made.__module__}.{made.__qualname__} needs a protobuf_type attribute: a class of messages, as"
                " protoc generates it"
            )
        _keep_own_attributes(made)
        return made

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **_options: Any) -> None:
        super().__init__(name, bases, namespace)


def _slots(bases: tuple[type, ...], namespace: dict[str, Any]) -> tuple[str, ...]:
    """Return the slots for a class: no dictionary, since there are no attributes but the schema's."""
    declared = namespace.get("__slots__", ())
    slots = [declared] if isinstance(declared, str) else list(declared)
    if not any(hasattr(base, SLOT) for base in bases):
        slots.append(SLOT)
    if "__weakref__" not in slots and not any(base.__weakrefoffset__ for base in bases):
        slots.append("__weakref__")
    return tuple(slots)


def _add_fields(cls: Any, namespace: Mapping[str, Any], message_type: Any) -> None:
    """Make attributes of the fields; what the class's own code defines under the name of a field stays."""
    descriptor = message_type.DESCRIPTOR
    attributes: dict[str, _Attribute] = {}
    for mixin in cls.protobuf_mixins:
        field = descriptor.fields_by_name.get(mixin)
        if field is None or field.message_type is None or field.is_repeated:
            raise AttributeError(
                f"Field {mixin!r} not defined for protobuf type {message_type!r}: no field of that name has a message"
            )
        for name, access in fields_of(field.message_type).items():
            attributes[name] = _Attribute(name, access, mixin)
    for name, access in fields_of(descriptor).items():
        attributes[name] = _attribute_kind(access)(name, access, None)
    for name in attributes.keys() - namespace.keys():
        if not hasattr(ProtobufObject, name) and not hasattr(Persistent, name):
            setattr(cls, name, attributes[name])
    cls._protobuf_attributes = attributes


def _attribute_kind(access: FieldAccess) -> type[_Attribute]:
    if isinstance(access, ScalarField):
        return _ScalarAttribute
    return _ReferenceAttribute if type(access) is MessageField and access.pure_reference else _Attribute


def _keep_own_attributes(cls: Any) -> None:
    """Leave to Python what the class or a base has in the place of a field."""
    known = cls._protobuf_attributes
    cls._protobuf_attributes = {name: each for name, each in known.items() if getattr(cls, name, None) is each}


def _is_settable(cls: type, name: str) -> bool:
    return any(hasattr(vars(each)[name], "__set__") for each in cls.__mro__ if name in vars(each))


class ProtobufPersistent(ProtobufObject, Persistent, metaclass=ProtobufState, abstract=True):
    """Base of persistent classes whose state is a message: `class PContact(ProtobufPersistent, message=ContactPB)`."""

    def __init__(self, **fields: Any) -> None:
        """Make an object with values for some of the fields; None leaves one unset."""
        cls: Any = type(self)
        known, schema = cls._protobuf_attributes, cls.protobuf_type.DESCRIPTOR.fields_by_name
        for name in list(fields):
            if name not in known and name not in schema:
                raise AttributeError(f"{cls.__name__!r} object has no attribute {name!r}")
            if name not in known or name not in schema:  # the class has its own, or it is lifted from another message
                setattr(self, name, fields.pop(name))
        held = held_of(self)
        fill(held.message, fields, held, live=cls.protobuf_live_references)

    if TYPE_CHECKING:  # the fields, which type checkers do not see

        def __getattr__(self, name: str) -> Any: ...

        def __setattr__(self, name: str, value: Any) -> None: ...
