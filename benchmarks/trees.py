"""Databases of any size to measure with: trees of objects, written without a storage, at the speed of the disk."""

import random
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from zodbpickle import binary, pickle

from zeo_core.ids import next_tid, pack_id
from zeo_server.storages.file.format import (
    DATA_HEADER,
    DATA_HEADER_SIZE,
    LENGTH,
    LENGTH_SIZE,
    MAGIC,
    TRANSACTION_HEADER,
    TRANSACTION_HEADER_SIZE,
)
from zeo_server.storages.file.index import Entries, Index, add_entry

__all__ = ["children", "record", "write_tree"]

_FAN_OUT = 100
_TEXT_BYTES = 200
_DAYS_AGO_S = 86400


class _Reference:
    def __init__(self, number: int) -> None:
        self.oid = binary(pack_id(number))


def record(numbers: range, text: str) -> bytes:
    """Return the record of an object that refers to the objects with these numbers."""
    file = BytesIO()
    pickler = pickle.Pickler(file, 3)
    pickler.persistent_id = lambda value: (value.oid, ("module", "Class")) if isinstance(value, _Reference) else None
    pickler.dump(("persistent.mapping", "PersistentMapping"))
    pickler.dump({"data": {"items": [_Reference(number) for number in numbers], "text": text}})
    return file.getvalue()


def children(number: int, objects: int) -> range:
    """Return the objects that object `number` refers to: all of them make a tree."""
    first = 1 + number * _FAN_OUT
    return range(first, min(first + _FAN_OUT, objects))


def write_tree(path: Path, objects: int, revisions: int, per_transaction: int = 10) -> None:
    """Write a Data.fs and its index: `revisions` revisions of a tree of `objects` objects, some 300 bytes each.

    The first revisions are those of each object in turn, the others those of objects chosen by chance.
    """
    leaf = record(range(0), "x" * _TEXT_BYTES)
    index = Index()
    tid, now_s, position = pack_id(0), time.time() - _DAYS_AGO_S, len(MAGIC)
    with path.open("wb") as file:
        file.write(MAGIC)
        for numbers in _transactions(objects, revisions, per_transaction):
            tid = next_tid(tid, now_s)
            entries: Entries = {}
            pieces = []
            at = position + TRANSACTION_HEADER_SIZE
            for number in numbers:
                oid, refers_to = pack_id(number), children(number, objects)
                data = record(refers_to, "x" * _TEXT_BYTES) if refers_to else leaf
                pieces.append(DATA_HEADER.pack(oid, tid, index.position(oid), position, 0, len(data)) + data)
                add_entry(entries, oid, at)
                at += DATA_HEADER_SIZE + len(data)
            length = at - position
            file.write(TRANSACTION_HEADER.pack(tid, length, b" ", 0, 0, 0) + b"".join(pieces) + LENGTH.pack(length))
            index.update(entries)
            position = at + LENGTH_SIZE
    with open(f"{path}.index", "wb") as file:
        file.writelines(index.saved(position))


def _transactions(objects: int, revisions: int, per_transaction: int) -> Iterator[range | list[int]]:
    for first in range(0, objects, per_transaction):
        yield range(first, min(first + per_transaction, objects))
    chance = random.Random(1)
    for _ in range(max(0, revisions - objects), 0, -per_transaction):
        yield list(dict.fromkeys(chance.randrange(objects) for _ in range(per_transaction)))
