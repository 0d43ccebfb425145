"""Where in an object's state a message stands: its place, from which the object is told of changes.

Messages do not tell anybody that they are changed. So programs never get them, only views that know the message's node,
and each change goes through `Node.edit`: what would change the state marks the object as changed first, as persistent
does it for attributes.

A node holds on to the message itself, as the package `protobuf` does: one that was taken out of its object lives on
alone, and to change it is no change of the object. When the object was given another state (another transaction's, or
again its own after it was a ghost), the node looks for its message there.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from zeo_client.protobuf.errors import StaleMessageError
from zeo_client.protobuf.state import Held, held_of

__all__ = ["ChildNode", "ElementNode", "EntryNode", "Node", "RootNode", "is_watched"]

_Result = TypeVar("_Result")


def is_watched(owner: Any) -> bool:
    """Tell whether a change of the object's state has yet to be told."""
    # Classes without _p_changed are never told. New objects belong to no connection, and stay unchanged in its eyes.
    return not getattr(owner, "_p_changed", True) and getattr(owner, "_p_jar", owner) is not None


def _bytes_of(message: Any) -> bytes:
    encoded: bytes = message.SerializePartialToString(deterministic=True)
    return encoded


def _copy(message: Any) -> Any:
    made = type(message)()
    made.CopyFrom(message)
    return made


class Node(ABC):
    """The place of a message in the state of `owner`. `live`: references in it are shown as the objects themselves."""

    __slots__ = ("_held", "_message", "live", "owner")

    def __init__(self, owner: Any, held: Held, message: Any, live: bool) -> None:
        self.owner = owner
        self.live = live
        self._held = held
        self._message = message

    @property
    def message(self) -> Any:
        """The message; StaleMessageError if it is not to be found in the object's present state."""
        held = held_of(self.owner)
        if held is not self._held:
            self._message = self._found_again(held)
            self._held = held
        return self._message

    @property
    def held(self) -> Held:
        """The state that the message is a part of."""
        return held_of(self.owner)

    @abstractmethod
    def _found_again(self, held: Held) -> Any:
        """Return the message that stands here in another state."""

    @abstractmethod
    def is_in_place(self) -> bool:
        """Tell whether the message is still a part of the owner's state."""

    def is_set(self) -> bool:
        """Tell whether the state has the message, which is not so for one that is only looked at."""
        return True

    def trial(self) -> tuple[Any, Any]:
        """Return a copy of the message, in a copy of as much around it as a first change would add to the state."""
        copy = _copy(self.message)
        return copy, copy

    def edit(self, operation: Callable[[Any], _Result]) -> _Result:
        """Call `operation` with the message to change it, once the owner knows that it changes.

        It may be called with a copy first, and must do the same to both.
        """
        message = self.message
        if not is_watched(self.owner) or not self.is_in_place():
            return operation(message)
        if self._would_change(operation):
            self.owner._p_changed = True
            return operation(message)
        before = _bytes_of(message)
        try:
            return operation(message)
        finally:
            # Should the message have done another thing than its copy, better late than a change that is lost.
            if _bytes_of(message) != before:
                self.owner._p_changed = True

    def _would_change(self, operation: Callable[[Any], object]) -> bool:
        around, copy = self.trial()
        before = _bytes_of(around)
        with suppress(Exception):  # whatever it raises, it raises again with the message itself
            operation(copy)
        return _bytes_of(around) != before


class RootNode(Node):
    """The place of an object's own message."""

    __slots__ = ()

    def __init__(self, owner: Any, live: bool) -> None:
        held = held_of(owner)
        super().__init__(owner, held, held.message, live)

    def _found_again(self, held: Held) -> Any:
        return held.message

    def is_in_place(self) -> bool:
        """Say yes: it is the state."""
        return True


class ChildNode(Node):
    """The place of the message in a field."""

    __slots__ = ("_name", "_parent")

    def __init__(self, parent: Node, name: str) -> None:
        super().__init__(parent.owner, parent.held, getattr(parent.message, name), parent.live)
        self._parent = parent
        self._name = name

    def _found_again(self, held: Held) -> Any:
        return getattr(self._parent.message, self._name)

    def is_in_place(self) -> bool:
        """Tell whether the field still has the message."""
        # While somebody has a message of `protobuf`'s, its place returns the very same object.
        return getattr(self._parent.message, self._name) is self.message and self._parent.is_in_place()

    def is_set(self) -> bool:
        """Tell whether the field is set, and all around it."""
        return bool(self._parent.message.HasField(self._name)) and self._parent.is_set()

    def trial(self) -> tuple[Any, Any]:
        """Return a copy; of an unset message its parent's too, since to touch it sets it."""
        if self.is_set():
            return super().trial()
        around, parent = self._parent.trial()
        return around, getattr(parent, self._name)


class ElementNode(Node):
    """The place of a message in a repeated field."""

    __slots__ = ("_index", "_name", "_parent")

    def __init__(self, parent: Node, name: str, index: int, message: Any) -> None:
        super().__init__(parent.owner, parent.held, message, parent.live)
        self._parent = parent
        self._name = name
        self._index = index

    def _found_again(self, held: Held) -> Any:
        # Elements have no identity; one that is equal and at the same index can be taken for the same.
        elements = getattr(self._parent.message, self._name)
        if self._index < len(elements) and elements[self._index] == self._message:
            return elements[self._index]
        raise StaleMessageError(
            f"{self._name}[{self._index}] of {self.owner!r} is another than when it was read: read it again from there"
        )

    def is_in_place(self) -> bool:
        """Tell whether the field still has the message, wherever."""
        message = self.message
        elements = getattr(self._parent.message, self._name)
        here = self._index < len(elements) and elements[self._index] is message
        return (here or any(each is message for each in elements)) and self._parent.is_in_place()


class EntryNode(Node):
    """The place of a message in a map."""

    __slots__ = ("_key", "_name", "_parent")

    def __init__(self, parent: Node, name: str, key: Any, message: Any) -> None:
        super().__init__(parent.owner, parent.held, message, parent.live)
        self._parent = parent
        self._name = name
        self._key = key

    def _found_again(self, held: Held) -> Any:
        entries = getattr(self._parent.message, self._name)
        if self._key in entries:
            return entries[self._key]
        raise StaleMessageError(f"{self._name}[{self._key!r}] of {self.owner!r} is not there any more")

    def is_in_place(self) -> bool:
        """Tell whether the map still has the message."""
        entries = getattr(self._parent.message, self._name)
        return self._key in entries and entries[self._key] is self.message and self._parent.is_in_place()
