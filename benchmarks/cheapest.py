"""The cheapest parsers of a Data.fs that Python allows: what the offline tool's commands are measured against.

Each does the least that any program with the same answer must do, and nothing to be sure of it: no check of what it
reads, no damage, no undo, no gaps between the oids, no progress, no word of what was found where.
"""

import os
from array import array
from collections.abc import Iterator
from struct import Struct

from zodbpickle import pickle

__all__ = ["index", "references", "stats", "walk"]

_RECORD = Struct(">Q26xQ").unpack_from
_TRANSACTION = Struct(">8xQ1xHHH").unpack_from
_RECORD_SIZE, _TRANSACTION_SIZE = 42, 23
_BLOCK_BYTES = 1 << 20


def _transactions(fd: int, ahead: int) -> Iterator[tuple[bytes, int, int, int]]:
    """Walk the transactions: a block with at least `ahead` bytes of it, its start, the first record, the end."""
    position, size = 4, os.fstat(fd).st_size
    block, start = b"", 0
    while position < size:
        if position + ahead > start + len(block):
            block, start = os.pread(fd, _BLOCK_BYTES, position), position
        length, *texts = _TRANSACTION(block, position - start)
        if position + length + ahead > start + len(block):
            block, start = os.pread(fd, max(_BLOCK_BYTES, length + ahead), position), position
        yield block, start, position + _TRANSACTION_SIZE + sum(texts), position + length
        position += length + 8


def walk(path: str, objects: int) -> "array[int]":
    """Return where each object's last record stands."""
    positions, unpack = array("Q", bytes(8 * objects)), _RECORD
    fd = os.open(path, os.O_RDONLY)
    for block, start, position, end in _transactions(fd, _TRANSACTION_SIZE):
        while position < end:
            oid, size = unpack(block, position - start)
            positions[oid] = position
            position += _RECORD_SIZE + size
    os.close(fd)
    return positions


def index(path: str, objects: int) -> int:
    """Make an index in memory, and bring it into the form of the saved one: sorted, six bytes a position."""
    positions = walk(path, objects)
    positions.byteswap()
    data = positions.tobytes()
    return sum(len(data[at + 2 : at + 8]) for at in range(0, len(data), 8)) // 6


def stats(path: str, objects: int) -> dict[bytes, list[int]]:
    """Count the objects of each class, and their bytes."""
    current, unpack = array("Q", bytes(8 * objects)), _RECORD
    numbers: dict[bytes, int] = {}
    fd = os.open(path, os.O_RDONLY)
    for block, start, position, end in _transactions(fd, _TRANSACTION_SIZE):
        while position < end:
            at = position - start
            oid, size = unpack(block, at)
            name_end = block.find(b"\n", block.find(b"\n", at + _RECORD_SIZE) + 1)
            name = block[at + _RECORD_SIZE : name_end]
            current[oid] = size << 16 | numbers.setdefault(name, len(numbers))
            position += _RECORD_SIZE + size
    os.close(fd)
    counts = [[0, 0] for _ in numbers]
    for value in current:
        count = counts[value & 0xFFFF]
        count[0] += 1
        count[1] += value >> 16
    return dict(zip(numbers, counts, strict=True))


class _Source:
    """Hands the unpickler all there is at its first read."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, _size: int) -> bytes:
        """Return the record."""
        return self.data

    readline = read


def references(path: str, objects: int) -> int:
    """Count the references of the objects as they are now that lead nowhere; a walk, and a second one that reads."""
    positions, unpack, missing = walk(path, objects), _RECORD, 0
    fd = os.open(path, os.O_RDONLY)
    for block, start, position, end in _transactions(fd, _TRANSACTION_SIZE):
        while position < end:
            at = position - start
            oid, size = unpack(block, at)
            if positions[oid] == position:
                found: list[tuple[bytes, object]] = []
                unpickler = pickle.Unpickler(_Source(block[at + _RECORD_SIZE : at + _RECORD_SIZE + size]))
                unpickler.persistent_load = found.append
                unpickler.noload()
                unpickler.noload()
                for target, _ in found:
                    if not positions[int.from_bytes(target)]:
                        missing += 1
            position += _RECORD_SIZE + size
    os.close(fd)
    return missing
