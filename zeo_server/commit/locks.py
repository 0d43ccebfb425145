"""Locks on objects: who waits for whom, without any I/O.

Every object has a line, first come first served. A request puts its owner into the lines of all its objects at once
and is granted when nothing stands in its way in any of them. Since all lines are entered in one order, that of the
requests, an owner only ever waits for owners that came before it: there is no cycle, so no deadlock.

Writers of an object exclude everybody else. Those who only ask that an object stays current (readCurrent) share it:
every insertion into a BTree asks that of the tree's inner nodes, and insertions into different buckets must not wait
for each other's clients.
"""

from collections.abc import Collection, Hashable, Iterable
from itertools import chain, count
from typing import Generic, TypeVar

from zeo_core.ids import Oid

__all__ = ["ObjectLocks"]

Owner = TypeVar("Owner", bound=Hashable)


class _Place(Generic[Owner]):
    """One request's place in the lines of its objects: as a writer in some, as a sharer in others."""

    __slots__ = ("blocked", "number", "owner", "sharing")

    def __init__(self, owner: Owner, number: int) -> None:
        self.owner = owner
        self.number = number
        self.blocked = 0  # in how many lines somebody stands in the way
        self.sharing: frozenset[Oid] = frozenset()


class ObjectLocks(Generic[Owner]):
    """The locks of one storage. Owners are told apart by equality and hash."""

    __slots__ = ("_lines", "_numbers", "_oids", "_places")

    def __init__(self) -> None:
        self._lines: dict[Oid, list[_Place[Owner]]] = {}
        self._places: dict[Owner, _Place[Owner]] = {}
        self._oids: dict[Owner, tuple[Collection[Oid], Collection[Oid]]] = {}
        self._numbers = count()

    def __len__(self) -> int:
        """Return how many objects are held or waited for."""
        return len(self._lines)

    def holds(self, owner: Owner) -> bool:
        """Tell whether `owner` has asked and been granted."""
        place = self._places.get(owner)
        return place is not None and not place.blocked

    def covers(self, owner: Owner, oids: Iterable[Oid], shared: Iterable[Oid]) -> bool:
        """Tell whether `owner` holds all of `oids` alone and all of `shared` at least together with others."""
        held, held_shared = self._oids.get(owner, ((), ()))
        return self.holds(owner) and {*held} >= {*oids} and {*held, *held_shared} >= {*shared}

    def waiting(self) -> int:
        """Return how many owners wait."""
        return sum(1 for place in self._places.values() if place.blocked)

    def request(self, owner: Owner, oids: Collection[Oid], shared: Collection[Oid] = ()) -> bool:
        """Ask for `oids` alone and for `shared` together with others who share them; tell whether all are held now.

        If not, a later `release` will name `owner`. Each oid appears once, in one of the two. An owner asks once.
        """
        if owner in self._places:
            raise ValueError(f"{owner!r} has asked for its locks before")
        place = self._places[owner] = _Place(owner, next(self._numbers))
        self._oids[owner] = oids, shared
        if shared:
            place.sharing = frozenset(shared)
        lines = self._lines
        for oid in oids:
            line = lines.setdefault(oid, [])
            if line:
                place.blocked += 1
            line.append(place)
        for oid in shared:
            line = lines.setdefault(oid, [])
            if any(oid not in ahead.sharing for ahead in line):
                place.blocked += 1
            line.append(place)
        return not place.blocked

    def release(self, owner: Owner) -> list[Owner]:
        """Let go of everything `owner` holds or waits for; return who is granted by that, in the order they asked.

        Harmless for an owner that asked for nothing.
        """
        place = self._places.pop(owner, None)
        if place is None:
            return []
        oids, shared = self._oids.pop(owner)
        granted: list[_Place[Owner]] = []
        for oid in chain(oids, shared):
            for freed in self._leave(oid, place):
                freed.blocked -= 1
                if not freed.blocked:
                    granted.append(freed)
        granted.sort(key=lambda freed: freed.number)
        return [freed.owner for freed in granted]

    def _leave(self, oid: Oid, place: _Place[Owner]) -> Iterable[_Place[Owner]]:
        """Take `place` out of a line; return those for whom the way is free in this line only now."""
        line = self._lines[oid]
        if len(line) == 1:
            del self._lines[oid]
            return ()
        held = _heads(oid, line)
        position = line.index(place)
        del line[position]
        return line[held - (position < held) : _heads(oid, line)]


def _heads(oid: Oid, line: list[_Place[Owner]]) -> int:
    """Return how many at the front of a line hold the object: one writer, or all sharers before the first writer."""
    for position, place in enumerate(line):
        if oid not in place.sharing:
            return max(position, 1)
    return len(line)
