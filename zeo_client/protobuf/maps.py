"""Maps inside of an object's state: dictionaries that tell the object of changes."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, Final

from zeo_client.protobuf.assignment import new_entry
from zeo_client.protobuf.nodes import EntryNode, Node

__all__ = ["MapOfMessages", "MapOfScalars"]

_MISSING: Final = object()


class MapOfScalars(MutableMapping[Any, Any]):
    """The map `name` of the message at a node. As in `protobuf`, to read a key that is missing makes an entry."""

    __slots__ = ("_name", "_node")

    def __init__(self, node: Node, name: str) -> None:
        self._node = node
        self._name = name

    def is_at(self, node: Node, name: str) -> bool:
        """Tell whether it is this field of the message at that node."""
        return self._name == name and self._node.message is node.message

    @property
    def _entries(self) -> Any:
        return getattr(self._node.message, self._name)

    def _edit(self, operation: Callable[[Any], Any]) -> Any:
        return self._node.edit(lambda message: operation(getattr(message, self._name)))

    def _shown(self, _key: Any, value: Any) -> Any:
        """Return what a value is shown as."""
        return value

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._entries))

    def __contains__(self, key: Any) -> bool:
        return key in self._entries

    def __getitem__(self, key: Any) -> Any:
        entries = self._entries
        value = entries[key] if key in entries else self._edit(lambda each: each[key])
        return self._shown(key, value)

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, `default` if it is missing."""
        if key not in self:  # to read it would make an entry
            return default
        return self[key]

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, which gets `default` if it is missing."""
        if key not in self:
            self[key] = default
        return self[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._edit(lambda entries: entries.__setitem__(key, value))

    def __delitem__(self, key: Any) -> None:
        self._edit(lambda entries: entries.__delitem__(key))

    def clear(self) -> None:
        """Remove all entries."""
        self._edit(lambda entries: entries.clear())

    def pop(self, key: Any, default: Any = _MISSING) -> Any:
        """Remove a key and return its value; `default` if it is missing, or KeyError."""
        if key not in self:
            if default is _MISSING:
                raise KeyError(key)
            return default
        value = self[key]
        del self[key]
        return value

    def MergeFrom(self, other: Mapping[Any, Any]) -> None:  # noqa: N802 - the package protobuf's name
        """Take over the entries of another map."""
        self.update(other)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return dict(self.items()) == dict(other.items())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(dict(self.items()))


class MapOfMessages(MapOfScalars):
    """A map to messages; to set a key copies a message, or what else can be assigned to a field of the type."""

    __slots__ = ("_view",)

    def __init__(self, node: Node, name: str, view: Callable[[Node], Any]) -> None:
        super().__init__(node, name)
        self._view = view

    def _shown(self, key: Any, value: Any) -> Any:
        return self._view(EntryNode(self._node, self._name, key, value))

    def __setitem__(self, key: Any, value: Any) -> None:
        node = self._node
        made = new_entry(node.message, self._name, value, node.held, node.live)
        self._edit(lambda entries: entries[key].CopyFrom(made))

    def get_or_create(self, key: Any) -> Any:
        """Return the message of a key, an empty one if it was missing."""
        return self[key]
