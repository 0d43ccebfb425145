"""The index: where each object's current data record stands, in memory and in the file beside Data.fs.

An oid's first six bytes choose a bucket, a sorted array of C that maps its last two bytes to a position of six bytes:
about 12 bytes an object, and a limit of 2**48 bytes to the file. The saved index is ZODB's `.index`, a row of pickles:

    the position up to which the index describes the file (the end of a transaction)
    (prefix of 6 bytes, the bucket's two arrays as bytes), once for each prefix, growing
    None

A saved index is a hint: it may be older than the file, or another file's. recover.py tells whether it can be used.
"""

import io
import pickle
from collections.abc import Iterator
from typing import Any, NoReturn, TypeAlias

from BTrees.fsBTree import fsBucket

from zeo_core.ids import Oid

__all__ = ["Entries", "Index", "add_entry"]

Entries: TypeAlias = dict[bytes, dict[bytes, bytes]]
"""New entries, arranged as the index takes them: {prefix: {suffix: position}}, so that taking them is a C loop."""

_PREFIX_SIZE = 6
_POSITION_SIZE = 6
_ENTRY_SIZE = 2 + _POSITION_SIZE
_PICKLE_PROTOCOL = 3  # what ZODB writes


def add_entry(entries: Entries, oid: Oid, position: int) -> None:
    """Add one object to `entries`."""
    entries.setdefault(oid[:_PREFIX_SIZE], {})[oid[_PREFIX_SIZE:]] = position.to_bytes(_POSITION_SIZE, "big")


class Index:
    """Maps oids to the positions of their current data records; positions are never 0."""

    def __init__(self) -> None:
        self._buckets: dict[bytes, Any] = {}

    def position(self, oid: Oid) -> int:
        """Return where the object's current record stands, 0 for an unknown object."""
        bucket = self._buckets.get(oid[:6])
        if bucket is None:
            return 0
        value = bucket.get(oid[6:])
        return 0 if value is None else int.from_bytes(value, "big")

    def update(self, entries: Entries) -> None:
        """Take new entries; they replace older ones of the same objects."""
        for prefix, positions in entries.items():
            bucket = self._buckets.get(prefix)
            if bucket is None:
                # Filled before it is hung up: a reader in another thread finds all of it or nothing.
                bucket = fsBucket()
                bucket.update(positions)
                self._buckets[prefix] = bucket
            else:
                bucket.update(positions)

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in list(self._buckets.values()))

    def memory_bytes(self) -> int:
        """Return how many bytes the entries take; the arrays that hold them have up to as much room again."""
        return len(self) * _ENTRY_SIZE

    def highest_oid(self) -> Oid:
        """Return the highest oid, eight zero bytes if there is none."""
        if not self._buckets:
            return bytes(8)
        prefix = max(list(self._buckets))  # a list, since another thread may add one
        suffix: bytes = self._buckets[prefix].maxKey()
        return prefix + suffix

    def positions(self) -> Iterator[int]:
        """Walk the positions of all entries."""
        for prefix in sorted(self._buckets):
            for position in self._buckets[prefix].values():
                yield int.from_bytes(position, "big")

    def first_oid(self, start: Oid) -> Oid | None:
        """Return the lowest oid that is not below `start`, None if there is none."""
        prefix = start[:_PREFIX_SIZE]
        suffix = _first_key(self._buckets.get(prefix), start[_PREFIX_SIZE:])
        if suffix is None:
            prefix = min((other for other in list(self._buckets) if other > prefix), default=b"")
            suffix = _first_key(self._buckets.get(prefix), b"\0\0")
        return None if suffix is None else prefix + suffix

    def samples(self, count: int) -> Iterator[tuple[Oid, int]]:
        """Walk up to `count` entries, spread over the index: the lowest and highest of some buckets."""
        prefixes = sorted(self._buckets)
        step = max(1, 2 * len(prefixes) // count)
        for prefix in prefixes[::step]:
            bucket = self._buckets[prefix]
            for suffix in {bucket.minKey(), bucket.maxKey()}:
                yield prefix + suffix, int.from_bytes(bucket[suffix], "big")

    def saved(self, end: int) -> Iterator[bytes]:
        """Walk the bytes of the index file, `end` being the position up to which this index describes Data.fs."""
        yield pickle.dumps(end, _PICKLE_PROTOCOL)
        for prefix in sorted(self._buckets):
            yield pickle.dumps((prefix, self._buckets[prefix].toBytes()), _PICKLE_PROTOCOL)
        yield pickle.dumps(None, _PICKLE_PROTOCOL)

    @classmethod
    def load(cls, path: str) -> tuple["Index", int]:
        """Return the index saved at `path` and its end position.

        OSError if the file cannot be read; ValueError if it is no index, or of the forms that ZODB wrote before 2010.
        """
        with open(path, "rb") as file:
            try:
                return cls._load(file)
            except OSError:
                raise
            except Exception as error:  # damaged pickles raise anything
                raise ValueError(f"{path}: no index ({error})") from error

    @classmethod
    def _load(cls, file: io.BufferedReader) -> tuple["Index", int]:
        # Python 2 wrote the arrays as its strings: read them as the bytes that they are.
        unpickler = _PlainUnpickler(file, encoding="bytes")
        end = unpickler.load()
        if not isinstance(end, int):
            raise ValueError(f"it starts with a {type(end).__name__}")  # noqa: TRY004 - the file is wrong, not a call
        index = cls()
        while (item := unpickler.load()) is not None:
            prefix, arrays = item
            if len(prefix) != _PREFIX_SIZE or not arrays or len(arrays) % _ENTRY_SIZE:
                raise ValueError(f"prefix {prefix!r} with {len(arrays)} bytes")
            index._buckets[prefix] = fsBucket().fromBytes(arrays)
        return index, end


def _first_key(bucket: Any, start: bytes) -> bytes | None:
    try:
        key: bytes | None = None if bucket is None else bucket.minKey(start)
    except ValueError:
        return None
    return key


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, bytes and tuples; an index has nothing else."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse every class."""
        raise pickle.UnpicklingError(f"{module}.{name} in an index")
