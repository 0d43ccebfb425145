"""Repeated fields inside of an object's state: lists that tell the object of changes."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, MutableSequence
from typing import Any

from zeo_client.protobuf.assignment import new_element
from zeo_client.protobuf.messages import plain
from zeo_client.protobuf.nodes import ElementNode, Node

__all__ = ["Repeated", "RepeatedMessages", "RepeatedScalars", "put_all"]


def put_all(message: Any, name: str, source: Any) -> None:
    """Replace a repeated field's elements by those of `source`, another message of the type."""
    elements = getattr(message, name)
    del elements[:]
    elements.MergeFrom(getattr(source, name))


class Repeated(MutableSequence[Any]):
    """The repeated field `name` of the message at a node."""

    __slots__ = ("_name", "_node")

    def __init__(self, node: Node, name: str) -> None:
        self._node = node
        self._name = name

    def is_at(self, node: Node, name: str) -> bool:
        """Tell whether it is this field of the message at that node."""
        return self._name == name and self._node.message is node.message

    @property
    def _elements(self) -> Any:
        return getattr(self._node.message, self._name)

    def _edit(self, operation: Callable[[Any], Any]) -> Any:
        return self._node.edit(lambda message: operation(getattr(message, self._name)))

    def __len__(self) -> int:
        return len(self._elements)

    @abstractmethod
    def _shown(self, index: int, element: Any) -> Any:
        """Return what an element is shown as."""

    def __getitem__(self, index: Any) -> Any:
        found = self._elements[index]
        if not isinstance(index, slice):
            return self._shown(range(len(self))[index], found)
        return [self._shown(*each) for each in zip(range(len(self))[index], found, strict=True)]

    def __iter__(self) -> Iterator[Any]:
        # By the list as it is meanwhile, as Python's lists do.
        index = 0
        while index < len(self):
            yield self[index]
            index += 1

    def __delitem__(self, index: Any) -> None:
        if isinstance(index, slice) and index.step not in (None, 1):
            self._delete_each(sorted(range(len(self))[index], reverse=True))
        else:
            self._edit(lambda elements: elements.__delitem__(index))

    def _delete_each(self, indexes: list[int]) -> None:
        # One by one: upb takes the process down when such a slice of an empty list is deleted (protobuf 7.36).
        def delete(elements: Any) -> None:
            for index in indexes:
                del elements[index]

        self._edit(delete)

    def _pop(self, index: int) -> Any:
        at = range(len(self))[index]  # IndexError; protobuf's own pop takes an index beyond the end for the last one
        return self._edit(lambda elements: elements.pop(at))

    def clear(self) -> None:
        """Remove all elements."""
        self._edit(lambda elements: elements.clear())

    def reverse(self) -> None:
        """Turn the order round."""
        self._edit(lambda elements: elements.reverse())

    def MergeFrom(self, other: Any) -> None:  # noqa: N802 - the package protobuf's name
        """Append the elements of another repeated field."""
        self.extend(other)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Iterable) or isinstance(other, str | bytes):
            return NotImplemented
        return list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))


class RepeatedScalars(Repeated):
    """Numbers, texts, bytes."""

    __slots__ = ()

    def _shown(self, index: int, element: Any) -> Any:
        return element

    def __setitem__(self, index: Any, value: Any) -> None:
        values = list(value) if isinstance(index, slice) else value
        self._edit(lambda elements: elements.__setitem__(index, values))

    def insert(self, index: int, value: Any) -> None:
        """Put a value before the one at `index`."""
        self._edit(lambda elements: elements.insert(index, value))

    def append(self, value: Any) -> None:
        """Put a value at the end."""
        self._edit(lambda elements: elements.append(value))

    def extend(self, values: Iterable[Any]) -> None:
        """Put values at the end."""
        listed = list(values)
        self._edit(lambda elements: elements.extend(listed))

    def pop(self, index: int = -1) -> Any:
        """Remove and return a value."""
        return self._pop(index)

    def remove(self, value: Any) -> None:
        """Remove the first value that is equal; ValueError if there is none."""
        self._edit(lambda elements: elements.remove(value))

    def sort(self, *, key: Callable[[Any], Any] | None = None, reverse: bool = False) -> None:
        """Sort the values."""
        self._edit(lambda elements: elements.sort(key=key, reverse=reverse))


class RepeatedMessages(Repeated):
    """Messages; as `value` also a dictionary of the fields, and what else can be assigned to a field of the type."""

    __slots__ = ("_view",)

    def __init__(self, node: Node, name: str, view: Callable[[Node], Any]) -> None:
        super().__init__(node, name)
        self._view = view

    def _shown(self, index: int, element: Any) -> Any:
        return self._view(ElementNode(self._node, self._name, index, element))

    def _new(self, value: Any) -> Any:
        return new_element(self._node.message, self._name, value, self._node.held, self._node.live)

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            elements = list(self._elements)
            elements[index] = [self._new(each) for each in value]
            self._replace(elements)
        else:
            made = self._new(value)
            self._edit(lambda elements: elements[index].CopyFrom(made))

    def _replace(self, new: list[Any]) -> None:
        message = self._node.message
        made = type(message)()
        getattr(made, self._name).extend(new)
        self._node.edit(lambda each: put_all(each, self._name, made))

    def insert(self, index: int, value: Any) -> None:
        """Put a copy of a message before the one at `index`."""
        made = self._new(value)
        self._edit(lambda elements: elements.insert(index, made))

    def append(self, value: Any) -> None:
        """Put a copy of a message at the end."""
        made = self._new(value)
        self._edit(lambda elements: elements.append(made))

    def add(self, **fields: Any) -> Any:
        """Put a new message at the end, and return it."""
        made = self._new(fields)
        self._edit(lambda elements: elements.append(made))
        return self._shown(len(self) - 1, self._elements[-1])

    def extend(self, values: Iterable[Any]) -> None:
        """Put copies of messages at the end."""
        made = [self._new(each) for each in values]
        self._edit(lambda elements: elements.extend(made))

    def pop(self, index: int = -1) -> Any:
        """Remove and return a message, which stands alone from now on."""
        return self._pop(index)

    def remove(self, value: Any) -> None:
        """Remove the first message that is equal; ValueError if there is none."""
        wanted = plain(value)
        self._edit(lambda elements: elements.remove(wanted))

    def sort(self, *, key: Callable[[Any], Any], reverse: bool = False) -> None:
        """Sort the messages; `key` is called with the messages themselves, which it must not change."""
        self._edit(lambda elements: elements.sort(key=key, reverse=reverse))
