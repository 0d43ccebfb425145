"""Finds plain objects that two persistent objects share: each would be stored with a copy of its own.

An aid for debugging and for tests. A commit does not look for them: it would cost as much as the commit itself.
"""

import sys
from dataclasses import is_dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

from zeo_client.connection import Connection
from zeo_client.serialize import dotted_name, is_reference
from zeo_client.state_walk import Part, walk
from zeo_core.ids import oid_repr

__all__ = ["Shared", "find_shared"]

_CONTAINERS: Final = (list, dict, set)
_CHANGING: Final = frozenset(("collections", "types"))
"""Modules of Python's with classes whose objects change; those of the others are values: dates, decimals, paths."""


class Shared(NamedTuple):
    """A plain object that is part of several persistent objects: `places` has each of them, and the path in it."""

    value: Any
    places: list[tuple[Any, str]]

    def __str__(self) -> str:
        places = " and ".join(f"{dotted_name(obj)} {oid_repr(obj._p_oid)} at {path}" for obj, path in self.places)
        return (
            f"one {dotted_name(self.value)} is part of {places}; each is stored with a copy of its own: make it"
            " persistent if it is to stay one object, or copy it"
        )


def find_shared(connection: Connection, *objects: Any) -> list[Shared]:
    """Return the plain objects that are part of several persistent objects in the connection's memory.

    To be called before the commit, which makes copies of them. It looks into what is loaded or changed, the new
    objects that can be reached from there, and the persistent `objects` that are given. What cannot be changed, such
    as texts, tuples, dates and frozen dataclasses, may be shared and is not told; nor is what stands in something else
    that is shared.
    """
    # Kept until the end: a value that was let go would leave its id to another one.
    looked_into = _parts_of_all([obj for _oid, obj in connection.cache.lru_items()] + list(objects))
    owners: dict[int, int] = {}
    for _obj, parts in looked_into:
        for part in parts:
            owners[id(part.value)] = owners.get(id(part.value), 0) + 1
    found: dict[int, Shared] = {}
    for obj, parts in looked_into:
        outer: Part | None = None
        for part in parts:
            if owners[id(part.value)] < 2 or (outer is not None and part.within(outer)):
                continue
            outer = part
            found.setdefault(id(part.value), Shared(part.value, [])).places.append((obj, part.path))
    return list(found.values())


def _parts_of_all(objects: list[Any]) -> list[tuple[Any, list[Part]]]:
    """Return what can change in each of `objects` and of the new ones that are reached from them."""
    met: dict[int, Any] = {}
    looked_into = []

    while objects:
        obj = objects.pop()
        # Neither ghosts, which are as they were stored, nor weak references and classes, which have no parts.
        if id(obj) in met or isinstance(obj, type) or getattr(obj, "_p_changed", None) is None:
            continue
        met[id(obj)] = obj
        parts = []
        for part in walk(obj, is_reference):
            if part.referred and getattr(part.value, "_p_jar", None) is None:
                objects.append(part.value)
            elif _can_change(part):
                parts.append(part)
        looked_into.append((obj, parts))
    return looked_into


def _can_change(part: Part) -> bool:
    value = part.value
    if not part.reduced:
        return isinstance(value, _CONTAINERS)
    cls = type(value)
    top = cls.__module__.partition(".")[0]
    if isinstance(value, tuple | frozenset | Enum) or (top in sys.stdlib_module_names and top not in _CHANGING):
        return False
    params = getattr(cls, "__dataclass_params__", None)
    return bool(part.parts) and not (is_dataclass(cls) and params is not None and params.frozen)
