"""Walks through what a persistent object's record is made of, as a pickler does, and tells where each part stands.

For errors and for debugging: commits do not come here. The paths follow what is pickled and not what the attributes
are: a lock that a `__getstate__` leaves out is not met, and what a `__reduce__` adds is told as its.
"""

import copyreg
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from reprlib import Repr
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Final, NamedTuple

from persistent import Persistent

__all__ = ["Part", "walk"]

_MAX_PARTS: Final = 200_000  # about a second: no error may take minutes because a state is large
_MAX_STEPS: Final = 20  # more of a path than this says no more
_SCALARS: Final = frozenset((str, int, float, bool, bytes, type(None), complex, bytearray))
_NAMED: Final = (type, FunctionType, BuiltinFunctionType, ModuleType)
_PROTOCOL: Final = 3

_repr = Repr()
_repr.maxstring = _repr.maxother = 60

_Step = tuple[str, Any]
_Trail = tuple[Any, str] | None
"""The steps that lead to a part, the last first: (the trail before it, step)."""


class Part(NamedTuple):
    """Something that is in the record: `value`, and `parts` of which it is made; None if it has none to go into.

    `reduced` says that it is an object, made by its class and not one of Python's containers; `referred`, that it is
    a persistent object of its own, which the record only refers to.
    """

    value: Any
    trail: _Trail
    parts: list[_Step] | None
    reduced: bool
    referred: bool = False

    @property
    def path(self) -> str:
        """The way to it from the persistent object, like ".items[3].lock"; of a long one the middle is left out."""
        steps: list[str] = []
        trail = self.trail
        while trail is not None:
            trail, step = trail
            steps.append(step)
        steps.reverse()
        if len(steps) > _MAX_STEPS:
            steps[_MAX_STEPS // 2 : -_MAX_STEPS // 2] = ["..."]
        return "".join(steps)

    def within(self, other: "Part") -> bool:
        """Tell whether it is a part of `other`."""
        trail = self.trail
        while trail is not None and trail is not other.trail:
            trail = trail[0]
        return trail is not None


def walk(obj: Any, is_reference: Callable[[Any], bool]) -> Iterator[Part]:
    """Give each part of the record of the persistent `obj` once, numbers, texts and None left out.

    `is_reference` tells what is only referred to, and not entered. Raises what the classes' own
    `__getstate__` raises for `obj`; ends after 200,000 parts.
    """
    waiting: list[tuple[Any, _Trail]] = []
    met: dict[int, Any] = {}  # the values too, so that no other gets the id of one that is gone

    def put(steps: Iterable[_Step], trail: _Trail) -> None:
        fresh = [(value, (trail, step)) for step, value in steps if type(value) not in _SCALARS]
        waiting.extend(reversed(fresh))

    put(_of_persistent(obj), None)
    while waiting and len(met) < _MAX_PARTS:
        value, trail = waiting.pop()
        if id(value) in met:
            continue
        met[id(value)] = value
        if is_reference(value):
            yield Part(value, trail, None, False, True)
            continue
        parts, reduced = _of_value(value)
        yield Part(value, trail, parts, reduced)
        put(parts or (), trail)


def _of_persistent(obj: Any) -> list[_Step]:
    cls = type(obj)
    steps: list[_Step] = []
    new_args = getattr(obj, "__getnewargs__", None)
    if new_args is not None:
        steps.append((".__getnewargs__()", new_args()))
    state = obj.__getstate__()
    if cls.__module__.startswith("BTrees."):
        return steps + _of_btree(cls, state)
    own = cls.__getstate__ is not Persistent.__getstate__
    return steps + _of_state(state, ".__getstate__()" if own else None)


def _of_btree(cls: Any, state: Any) -> list[_Step]:
    """Return the entries in a state of BTrees: a bucket's, or those of a tree that is small enough to hold them itself.

    A larger tree has but keys and references.
    """
    if state is None:
        return []
    if hasattr(cls, "_next"):  # a bucket
        entries = state[0]
    elif len(state) == 1 and isinstance(state[0], tuple) and isinstance(state[0][0], tuple):
        entries = state[0][0][0]
    else:
        return [(".__getstate__()", state)]
    if not hasattr(cls, "values"):
        return [(f"[{_short(key)}]", key) for key in entries]
    pairs = list(pairwise(entries))[::2]
    return [step for key, value in pairs for step in _of_pair(key, value)]


def _of_pair(key: Any, value: Any) -> Iterator[_Step]:
    if type(key) not in _SCALARS:
        yield f", key {_short(key)}", key
    yield f"[{_short(key)}]", value


def _of_value(value: Any) -> tuple[list[_Step] | None, bool]:
    """Return what a value is pickled from, None if nothing in it is; and whether its class has a say in that."""
    cls = type(value)
    if cls is dict:
        return [step for key, item in list(value.items()) for step in _of_pair(key, item)], False
    if cls in (list, tuple):
        return [(f"[{index}]", item) for index, item in enumerate(list(value))], False
    if cls in (set, frozenset):
        return [(f", element {_short(item)}", item) for item in list(value)], False
    if isinstance(value, _NAMED):
        return None, False
    try:
        reduced = _reduced(value)
        return (None if isinstance(reduced, str) else _of_reduced(value, reduced)), True
    except Exception:  # noqa: BLE001 - whatever a class's own code raises: it is what the pickler met, too
        return None, True


def _reduced(value: Any) -> Any:
    reduce = copyreg.dispatch_table.get(type(value))
    return value.__reduce_ex__(_PROTOCOL) if reduce is None else reduce(value)


def _of_reduced(value: Any, reduced: tuple[Any, ...]) -> list[_Step]:
    make, args, state, items, pairs = (*reduced, None, None, None)[:5]
    steps: list[_Step] = []
    if make is copyreg.__newobj__:  # type: ignore[attr-defined]
        entries = isinstance(value, tuple) and len(args) - 1 == len(value)
        name = "" if entries else ".__getnewargs__()"
        steps += [(f"{name}[{index}]", arg) for index, arg in enumerate(args[1:])]
    else:
        steps.append((".__reduce__()[0]", make))
        steps += [(f".__reduce__()[1][{index}]", arg) for index, arg in enumerate(args)]
    steps += _of_state(state, _maker_of_state(value, state))
    steps += [(f"[{index}]", item) for index, item in enumerate(items or ())]
    return steps + [step for key, item in pairs or () for step in _of_pair(key, item)]


def _maker_of_state(value: Any, state: Any) -> str | None:
    """Return the name of the method that made up the state, None if it is just the attributes."""
    cls: Any = type(value)
    if state is getattr(value, "__dict__", None):
        return None
    if cls.__reduce_ex__ is not object.__reduce_ex__ or cls.__reduce__ is not object.__reduce__:
        return ".__reduce__()[2]"
    return None if cls.__getstate__ is object.__getstate__ else ".__getstate__()"


def _of_state(state: Any, maker: str | None) -> list[_Step]:
    if maker is not None:
        return [(maker, state)]
    # Of attributes: a dictionary, or with slots a pair of dictionaries, of which the first may be None.
    dictionaries = state if isinstance(state, tuple) else (state,)
    return [(f".{name}", value) for each in dictionaries for name, value in list((each or {}).items())]


def _short(key: Any) -> str:
    """Return a key as the path has it: as Python shows it, if that is plain and short, else its class."""
    if type(key) in _SCALARS or type(key) is tuple:
        return _repr.repr(key)
    return f"<{type(key).__module__}.{type(key).__qualname__}>"
