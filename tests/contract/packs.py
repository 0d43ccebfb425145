"""What packs leave of a history: the contract's rules, on lists."""

from collections.abc import Iterable

from zeo_core.ids import ROOT_OID, Oid
from zeo_core.record import references

Committed = list[dict[Oid, bytes | None]]


class Left:
    """What one storage has to have left of the transactions in `committed`, which are known by their numbers."""

    def __init__(self, committed: Committed) -> None:
        self.committed = committed
        self.packed: set[int] = set()
        self._gone: set[tuple[Oid, int]] = set()

    def history(self, oid: Oid) -> list[int]:
        """Return the numbers of the transactions whose revisions of `oid` are left."""
        return [n for n, data in enumerate(self.committed) if oid in data and (oid, n) not in self._gone]

    def objects(self) -> set[Oid]:
        """Return the objects of which something is left."""
        return {oid for oid in self.oids() if self.history(oid)}

    def oids(self) -> set[Oid]:
        """Return all oids that were ever written."""
        return {oid for data in self.committed for oid in data}

    def is_refused(self, last: int, *, gc: bool) -> bool:
        """Tell whether a pack up to transaction `last` would come upon an object that is not there."""
        return gc and not self._is_redundant(last, 0) and self._needed(last, self._current(last, 0)) is None

    def pack(self, last: int, *, gc: bool, border: int = 0) -> set[Oid]:
        """Pack the transactions from `border` up to `last`; return the objects of which nothing is left."""
        if self._is_redundant(last, border):
            return set()
        current, before = self._current(last, border), self.objects()
        needed = self._needed(last, current) if gc else set(current)
        assert needed is not None
        for oid in self.oids():
            for number in self.history(oid):
                is_kept = number == current.get(oid) and oid in needed
                if border <= number <= last and (not is_kept or (gc and self.committed[number][oid] is None)):
                    self._gone.add((oid, number))
        self.packed.update(range(border, last + 1))
        return before - self.objects()

    def _is_redundant(self, last: int, border: int) -> bool:
        return last < border or last in self.packed

    def _current(self, last: int, border: int) -> dict[Oid, int]:
        """Return the number of each object's revision that is current as of transaction `last`."""
        numbers = {oid: [n for n in self.history(oid) if border <= n <= last] for oid in self.oids()}
        return {oid: found[-1] for oid, found in numbers.items() if found}

    def _needed(self, last: int, current: dict[Oid, int]) -> set[Oid] | None:
        """Return the objects that can be reached or are referred to later; None if one of them is not there."""
        needed: set[Oid] = set()
        later: set[Oid] = set()
        unread: list[Oid] = [ROOT_OID]

        def follow(oids: Iterable[Oid]) -> bool:
            unread.extend(oid for oid in oids if oid in current)
            return all(oid in current or oid in later for oid in oids)

        if current and ROOT_OID not in current:
            return None
        for data in self.committed[last + 1 :]:
            later.update(data)
            unread += [oid for oid in data if oid in current]
            if not all(follow(references(record)) for record in data.values() if record is not None):
                return None
        while unread:
            oid = unread.pop()
            if oid in needed or oid not in current:
                continue
            needed.add(oid)
            record = self.committed[current[oid]][oid]
            if oid not in later if record is None else not follow(references(record)):
                return None
        return needed
