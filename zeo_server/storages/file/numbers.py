"""A number for every object, for walks over whole files: 8 bytes an object.

A dictionary of a million oids takes some 150 MB and an index lookup half a microsecond, which is as long as all the
rest that a walk does with a record.
"""

import sys
from array import array
from collections.abc import Iterator
from itertools import chain
from struct import Struct

from zeo_core.ids import pack_id
from zeo_server.storages.file.index import Index

__all__ = ["Numbers"]

_FIRST_ROOM = 1 << 16
_POSITION = Struct("2x6s")  # the bytes of a big-endian number that an index keeps
_NOWHERE = bytes(6)
_PREFIX_BITS = 16  # an index's bucket has the oids that differ in their last two bytes


class Numbers:
    """Maps oids, as integers, to numbers of up to 64 bits; 0 where nothing was set.

    Storages give out oids one after the other, so that an array has most of them; walks read and set `dense` directly
    below its length. The few oids that are far beyond the others are in a dictionary.
    """

    def __init__(self) -> None:
        self.dense = array("Q")
        self._sparse: dict[int, int] = {}

    def get(self, oid: int) -> int:
        """Return the oid's number."""
        return self.dense[oid] if oid < len(self.dense) else self._sparse.get(oid, 0)

    def set(self, oid: int, number: int) -> None:
        """Set the oid's number."""
        if oid >= len(self.dense) and not self._grow(oid):
            self._sparse[oid] = number
        else:
            self.dense[oid] = number

    def items(self) -> Iterator[tuple[int, int]]:
        """Walk the oids whose number is not 0, growing, and their numbers."""
        for oid, number in enumerate(self.dense):
            if number:
                yield oid, number
        yield from sorted((oid, number) for oid, number in self._sparse.items() if number)

    def __len__(self) -> int:
        """Return how many oids have a number other than 0."""
        return len(self.dense) - self.dense.count(0) + sum(map(bool, self._sparse.values()))

    def index(self) -> Index:
        """Return the numbers, which are positions, as an index."""
        index = Index()
        width = 1 << _PREFIX_BITS
        suffixes = [pack_id(number)[6:] for number in range(width)]
        for start in range(0, len(self.dense), width):
            block = self.dense[start : start + width]
            if sys.byteorder == "little":
                block.byteswap()
            positions = dict(zip(suffixes, chain.from_iterable(_POSITION.iter_unpack(block.tobytes())), strict=False))
            if block.count(0):
                positions = {suffix: position for suffix, position in positions.items() if position != _NOWHERE}
            if positions:
                index.update({pack_id(start)[:6]: positions})
        for oid, number in self._sparse.items():
            packed = pack_id(oid)
            if number:
                index.update({packed[:6]: {packed[6:]: number.to_bytes(6, "big")}})
        return index

    def _grow(self, oid: int) -> bool:
        """Make the array longer than `oid`, unless that would leave most of it empty."""
        room = len(self.dense)
        if oid >= 2 * room + _FIRST_ROOM:
            return False
        self.dense.frombytes(bytes(8 * (oid + oid // 4 + 1024 - room)))
        for known in [known for known in self._sparse if known < len(self.dense)]:
            self.dense[known] = self._sparse.pop(known)
        return True
