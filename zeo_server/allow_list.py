"""The classes whose code the server may run: to resolve conflicts, on states that clients have sent.

Nobody else's code is imported, let alone run. A list names classes, `BTrees.Length.Length`, or all that a module
defines, `BTrees.OOBTree.*`; not what the module has imported from elsewhere, and no functions.

Beside them it may know of classes whose states are messages of a registered schema: these are merged field by field,
without the class.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product

from zeo_core.classes import import_class
from zeo_core.protobuf_resolve import MergeRule

__all__ = ["DEFAULT_CLASSES", "AllowList", "check_names"]

_FAMILIES = ["fs", *map("".join, product("OIULQ", "OIULQF"))]

DEFAULT_CLASSES: Sequence[str] = ("BTrees.Length.Length", *(f"BTrees.{family}BTree.*" for family in _FAMILIES))
"""Those of the package BTrees: their states are plain tuples, and merging two of them is what they are known for."""


def check_names(names: Sequence[str]) -> Sequence[str]:
    """Return `names`; ValueError if one of them is no dotted name of a class, or of a module with an asterisk."""
    for name in names:
        parts = name.removesuffix(".*").split(".")
        if len(parts) + name.endswith(".*") < 2 or not all(part.isidentifier() for part in parts):
            raise ValueError(f"{name!r} is no dotted name of a class, such as BTrees.Length.Length or BTrees.OOBTree.*")
    return names


class AllowList:
    """The list; DEFAULT_CLASSES unless told otherwise. `rules` has those that are merged, by dotted name."""

    def __init__(self, names: Sequence[str] = DEFAULT_CLASSES, rules: Mapping[str, MergeRule] | None = None) -> None:
        self._names = frozenset(check_names(names))
        self._rules = rules or {}
        self.load = cache(self._load)
        """Return an allowed class by its module's name and its own; ImportError for any other."""

    def allows(self, dotted_name: str) -> bool:
        """Tell whether this class's code may resolve its objects. Imports nothing."""
        return dotted_name in self._names or f"{dotted_name.rpartition('.')[0]}.*" in self._names

    def merges(self, dotted_name: str) -> bool:
        """Tell whether messages of this class are merged by a schema."""
        return dotted_name in self._rules

    def rule(self, module: str, name: str) -> MergeRule | None:
        """Return how the messages of a class are merged, None if no schema was registered for it."""
        return self._rules.get(f"{module}.{name}")

    def _load(self, module: str, name: str) -> type:
        if not self.allows(f"{module}.{name}"):
            raise ImportError(f"{module}.{name} is not on the list")
        found = import_class(module, name)
        if not isinstance(found, type) or found.__module__ != module:
            raise ImportError(f"{module}.{name} is no class of that module")
        return found
