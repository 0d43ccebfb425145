"""A number for every object, for walks over whole files: 8 bytes an object.

A dictionary of a million oids takes some 150 MB and an index lookup half a microsecond, which is as long as all the
rest that a walk does with a record.
"""

import pickle
import sys
from array import array
from collections.abc import Iterator
from itertools import compress

from zeo_core.ids import pack_id

__all__ = ["Numbers"]

_FIRST_ROOM = 1 << 16
_WIDTH = 1 << 16  # an index's bucket has the oids that differ in their last two bytes
_SUFFIX_MASK = _WIDTH - 1
_PICKLE_PROTOCOL = 3  # what ZODB writes


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

    def saved_index(self, end: int) -> Iterator[bytes]:
        """Walk the bytes of the index file that has the numbers, which are positions; see `Index.saved`."""
        yield pickle.dumps(end, _PICKLE_PROTOCOL)
        sparse: dict[bytes, dict[int, int]] = {}
        for oid, number in self._sparse.items():
            if number:
                sparse.setdefault(pack_id(oid)[:6], {})[oid & _SUFFIX_MASK] = number
        for start in range(0, len(self.dense), _WIDTH):
            prefix = pack_id(start)[:6]
            block = self.dense[start : start + _WIDTH]
            if prefix in sparse:
                block.frombytes(bytes(8 * (_WIDTH - len(block))))
                for suffix, number in sparse.pop(prefix).items():
                    block[suffix] = number
            if any(block):
                yield pickle.dumps((prefix, _bucket(block)), _PICKLE_PROTOCOL)
        for prefix, numbers in sorted(sparse.items()):
            block = array("Q", bytes(8 * _WIDTH))
            for suffix, number in numbers.items():
                block[suffix] = number
            yield pickle.dumps((prefix, _bucket(block)), _PICKLE_PROTOCOL)
        yield pickle.dumps(None, _PICKLE_PROTOCOL)

    def _grow(self, oid: int) -> bool:
        """Make the array longer than `oid`, unless that would leave most of it empty."""
        room = len(self.dense)
        if oid >= 2 * room + _FIRST_ROOM:
            return False
        self.dense.frombytes(bytes(8 * (oid + oid // 4 + 1024 - room)))
        for known in [known for known in self._sparse if known < len(self.dense)]:
            self.dense[known] = self._sparse.pop(known)
        return True


def _bucket(block: "array[int]") -> bytes:
    """Return the numbers other than 0 as an index has a bucket's: two bytes of the oids, six of each number."""
    suffixes = array("H", range(len(block)))
    if block.count(0):
        suffixes = array("H", compress(suffixes, block))
        block = array("Q", filter(None, block))
    if sys.byteorder == "little":
        suffixes.byteswap()
        block.byteswap()
    numbers = bytearray(block.tobytes())
    del numbers[::8]  # of eight bytes the first two, which are zero
    del numbers[::7]
    return suffixes.tobytes() + numbers
