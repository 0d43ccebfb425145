"""References shown as the objects that they lead to: in repeated fields and in maps."""

from collections.abc import Callable, Iterable
from typing import Any

from zeo_client.protobuf.assignment import refer, target_of
from zeo_client.protobuf.maps import MapOfScalars
from zeo_client.protobuf.nodes import ElementNode
from zeo_client.protobuf.repeated import RepeatedMessages

__all__ = ["LiveReferenceMap", "LiveReferences"]


class LiveReferences(RepeatedMessages):
    """A list of the objects that a repeated field's messages refer to; None for one without a target."""

    __slots__ = ()

    def _shown(self, index: int, element: Any) -> Any:
        return target_of(element, self._node.held)

    def __contains__(self, value: Any) -> bool:
        return any(each is value for each in self)

    def add(self, **fields: Any) -> Any:
        """Put a reference message without a target at the end, and return the message, for `protobuf_refs`."""
        made = type(self._node.message)()
        getattr(made, self._name).add(**fields)
        self._edit(lambda elements: elements.MergeFrom(getattr(made, self._name)))
        index = len(self) - 1
        return self._view(ElementNode(self._node, self._name, index, self._elements[index]))

    def pop(self, index: int = -1) -> Any:
        """Remove a reference and return the object that it leads to."""
        target = self[index]
        del self[index]
        return target

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """Return the index of the first reference to `value`; ValueError if there is none."""
        for index in range(*slice(start, stop).indices(len(self))):
            if self[index] is value:
                return index
        raise ValueError(f"no reference to {value!r}")

    def count(self, value: Any) -> int:
        """Return how many references lead to `value`."""
        return sum(each is value for each in self)

    def remove(self, value: Any) -> None:
        """Remove the first reference to `value`; ValueError if there is none."""
        del self[self.index(value)]

    def sort(self, *, key: Callable[[Any], Any], reverse: bool = False) -> None:
        """Sort the references; `key` is called with the objects."""
        held = self._node.held
        self._edit(lambda elements: elements.sort(key=lambda each: key(target_of(each, held)), reverse=reverse))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Iterable) or isinstance(other, str | bytes):
            return NotImplemented
        own, others = list(self), list(other)
        return len(own) == len(others) and all(a is b or a == b for a, b in zip(own, others, strict=True))

    __hash__ = None  # type: ignore[assignment]


class LiveReferenceMap(MapOfScalars):
    """A map to the objects that its messages refer to. Unlike other maps it raises KeyError for a missing key."""

    __slots__ = ()

    def _shown(self, _key: Any, value: Any) -> Any:
        return target_of(value, self._node.held)

    def __getitem__(self, key: Any) -> Any:
        if key not in self:
            raise KeyError(key)
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        held = self._node.held
        self._edit(lambda entries: refer(entries[key], value, held))
