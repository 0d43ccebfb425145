"""The state of an object that is kept in a message: the message, and the objects that it refers to by numbers."""

from typing import Any, Final

__all__ = ["SLOT", "Held", "StateTuple", "held_of", "hold"]

SLOT: Final = "_protobuf_state"
"""The slot of an object that has its state. The name has none of persistent's prefixes: a ghost is to lose it."""


class StateTuple(tuple[bytes, dict[int, Any]]):
    """What `__getstate__` gives: the serialized message, and the targets by refid."""

    __slots__ = ()

    serial_format: Final = "protobuf"
    """The format of records that this state is meant for."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Where the format is not switched on, and in ZODB, it is pickled: without naming a class of ours.
        return tuple, (list(self),)


class Held:
    """An object's state in memory. A ghost has none, and gets a new one when it is loaded."""

    __slots__ = ("_last", "_refids", "message", "targets")

    def __init__(self, message: Any, targets: dict[int, Any]) -> None:
        self.message = message
        self.targets = targets
        """The objects referred to, by refid; some may not be used in the message any more."""
        self._refids: dict[int, int] | None = None
        self._last = 0

    def refid_of(self, target: Any) -> int:
        """Return the number by which the message refers to `target`, a fresh one if it has none yet."""
        if self._refids is None:
            self._refids = {id(each): refid for refid, each in self.targets.items()}
        refid = self._refids.get(id(target), 0)
        if refid and self.targets.get(refid) is target:
            return refid
        # Targets stay here while the state is in memory, so that no number is given twice: somebody may still hold a
        # part of the message that was taken out. Others' programs choose any numbers, up to the last one.
        self._last += 1
        while self._last in self.targets:
            self._last += 1
        self.targets[self._last] = target
        self._refids[id(target)] = self._last
        return self._last


def held_of(obj: Any) -> Held:
    """Return the object's state, an empty one if it was just made."""
    try:
        held: Held = obj._protobuf_state  # noqa: SLF001 - loads the state of a ghost
    except AttributeError:
        cls: Any = type(obj)
        held = Held(cls.protobuf_type(), {})
        hold(obj, held)
    return held


def hold(obj: Any, held: Held) -> None:
    """Give the object a state, past persistent's __setattr__: to load is no change."""
    type(obj)._protobuf_state.__set__(obj, held)  # noqa: SLF001
