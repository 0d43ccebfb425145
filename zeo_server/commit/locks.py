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

    def inherit(self, heir: Owner, owner: Owner, oids: Collection[Oid], shared: Collection[Oid]) -> bool:
        """Put `heir` in the place of `owner`, before all who wait, if thus it holds all that it asks for; tell whether.

        Since it waits for nobody then, there is still no cycle. Everything that `owner` holds must be among `oids`.
        """
        place, lines = self._places[owner], self._lines
        held = self._oids[owner][0]
        if heir in self._places or place.blocked or self._oids[owner][1] or not {*held} <= {*oids}:
            return False
        others = [oid for oid in oids if oid not in held]
        if any(oid in lines for oid in others):
            return False
        if any(oid not in ahead.sharing for oid in shared for ahead in lines.get(oid, ())):
            return False
        del self._places[owner], self._oids[owner]
        place.owner, place.sharing = heir, frozenset(shared)
        self._places[heir], self._oids[heir] = place, (oids, shared)
        for oid in chain(others, shared):
            lines.setdefault(oid, []).append(place)
        return True

    def release(self, owner: Owner, keep: Oid | None = None) -> list[Owner]:
        """Let go of everything `owner` holds or waits for; return who is granted by that, in the order they asked.

        All but the object `keep`, which it has asked for alone: it goes on to hold it or to wait for it, and is itself
        returned if it waited only for others. Harmless for an owner that asked for nothing.
        """
        place = self._places.get(owner)
        if place is None:
            return []
        oids, shared = self._oids.pop(owner)
        if keep is None:
            del self._places[owner]
        else:
            self._oids[owner] = (keep,), ()
        granted: list[_Place[Owner]] = []
        waited = place.blocked
        for oid in chain(oids, shared):
            if oid == keep:
                continue
            if place.blocked:
                place.blocked -= place not in self._holders(oid)
            for freed in self._leave(oid, place):
                freed.blocked -= 1
                if not freed.blocked:
                    granted.append(freed)
        if waited and keep is not None and not place.blocked:
            granted.append(place)
        granted.sort(key=lambda freed: freed.number)
        return [freed.owner for freed in granted]

    def waited_for(self, owner: Owner) -> dict[Oid, Owner]:
        """Return the objects that `owner` holds alone and others wait for, with the first of them if it is to write."""
        if len(self._places) == 1:
            return {}
        found: dict[Oid, Owner] = {}
        for oid in self._oids.get(owner, ((), ()))[0]:
            line = self._lines[oid]
            if len(line) > 1 and oid not in line[1].sharing:
                found[oid] = line[1].owner
        return found

    def behind(self, owner: Owner) -> list[Owner]:
        """Return who waits for an object that `owner` has asked for alone, and wants to write that and others, too."""
        found: dict[Owner, None] = {}
        if len(self._places) == 1:
            return []
        for oid in self._oids.get(owner, ((), ()))[0]:
            for place in self._lines[oid]:
                if place.blocked and oid not in place.sharing and sum(map(len, self._oids[place.owner])) > 1:
                    found[place.owner] = None
        return list(found)

    def _holders(self, oid: Oid) -> list[_Place[Owner]]:
        line = self._lines[oid]
        return line[: _heads(oid, line)]

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
