"""Finds what makes an object unpicklable, so that the error can name it."""

from collections.abc import Callable, Iterator
from typing import Any, Final

__all__ = ["unpicklable_path"]

_MAX_DEPTH: Final = 20
_MAX_TRIALS: Final = 2_000  # an error must not take minutes because a state is large


def unpicklable_path(state: object, can_be_pickled: Callable[[object], bool]) -> str:
    """Return the way from an object to the value in its `state` that cannot be pickled, like ".items[3].lock".

    Follows dictionaries, lists, tuples and instances for as long as one of their parts, tried alone, fails too. Empty
    if the fault is in none of the parts, or too far away.
    """
    trials = iter(range(_MAX_TRIALS))
    path = ""
    parts = _attributes(state) if isinstance(state, dict) else _parts(state)
    for _ in range(_MAX_DEPTH):
        step, value = _first_fault(parts, can_be_pickled, trials)
        if not step:
            break
        path += step
        parts = _parts(value)
    return path


def _first_fault(
    parts: Iterator[tuple[str, Any]], can_be_pickled: Callable[[object], bool], trials: Iterator[int]
) -> tuple[str, Any]:
    for (step, value), _ in zip(parts, trials, strict=False):
        if not can_be_pickled(value):
            return step, value
    return "", None


def _attributes(attributes: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in list(attributes.items()):
        yield f".{name}", value


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in list(value.items()):
            yield f"[{key!r}]", item
    elif isinstance(value, list | tuple):
        for index, item in enumerate(list(value)):
            yield f"[{index}]", item
    elif isinstance(attributes := getattr(value, "__dict__", None), dict):
        yield from _attributes(attributes)
