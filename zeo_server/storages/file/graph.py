"""The objects of a Data.fs as they are now, and what refers to what; no class is imported."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from zeo_core.errors import POSKeyError, RecordFormatError
from zeo_core.ids import Oid, Tid
from zeo_core.record import class_name, references
from zeo_core.storage import Progress
from zeo_server.storages.file.format import DATA_HEADER, DATA_HEADER_SIZE, LENGTH_SIZE, STATUS_UNDONE
from zeo_server.storages.file.log import TransactionHeader
from zeo_server.storages.file.recover import read_contents
from zeo_server.storages.file.walk import Damage, Walk, open_reader

__all__ = ["Current", "Graph", "Reference", "current_records", "safe_class_name"]

_STEP_BYTES = 8 << 20


class Current(NamedTuple):
    """An object's current record; `data` is None for an object that is deleted."""

    position: int
    oid: Oid
    tid: Tid
    data: bytes | None


class Reference(NamedTuple):
    """One object's reference to another; `position` is that of the referring record."""

    source: Oid
    source_class: str
    target: Oid
    position: int


def current_records(walk: Walk, position_of: Callable[[Oid], int]) -> Iterator[Current]:
    """Walk the records that `position_of` takes for current, in the order of the file, passing over damage."""
    for part in walk.parts():
        if not isinstance(part, Damage) and part.status != STATUS_UNDONE:
            yield from _current_in(walk, part, position_of)


def _current_in(walk: Walk, header: TransactionHeader, position_of: Callable[[Oid], int]) -> Iterator[Current]:
    window = walk.window
    position, end = header.records_start, header.records_end
    while position + DATA_HEADER_SIZE < end:
        oid, tid, _, transaction, _, size = DATA_HEADER.unpack(window.bytes_at(position, DATA_HEADER_SIZE))
        record_end = position + DATA_HEADER_SIZE + (size or LENGTH_SIZE)
        if transaction != header.position or record_end > end:
            return
        if position_of(oid) == position:
            yield Current(position, oid, tid, _data(walk, oid, position, size))
        position = record_end


def _data(walk: Walk, oid: Oid, position: int, size: int) -> bytes | None:
    if size:
        return walk.window.bytes_at(position + DATA_HEADER_SIZE, size)
    try:
        return walk.reader.data(oid, position)
    except POSKeyError:
        return None


def safe_class_name(data: bytes) -> str:
    """Return the name of a record's class, or in its place that the record is unreadable."""
    try:
        return class_name(data)
    except RecordFormatError:
        return "(unreadable record)"


class Graph:
    """The references between the current objects of one file.

    A walk goes through the whole file, yields Progress as it goes and References as it finds them. What it cannot
    read is in `unreadable`: (position, oid, reason).
    """

    def __init__(self, path: str) -> None:
        """Open the file at `path`, which a server may have open; FileFormatError if it is damaged."""
        reader = open_reader(path)
        self._index = read_contents(reader, read_only=True).index
        self._walk = Walk(reader)
        self.unreadable: list[tuple[int, Oid, str]] = []

    def has(self, oid: Oid) -> bool:
        """Tell whether the file has the object, be it deleted."""
        return self._index.position(oid) != 0

    def referrers(self, target: Oid) -> Iterator[Progress | Reference]:
        """Find the objects that refer to `target`."""
        return self._referring(lambda found: [target] if target in found else [])

    def dangling(self) -> Iterator[Progress | Reference]:
        """Find the references to objects that do not exist or are deleted."""
        position_of = self._index.position
        yield from self._referring(lambda found: [oid for oid in dict.fromkeys(found) if not position_of(oid)])
        # A record may refer to an object whose deletion comes later in the file; and deletions are rare.
        deleted = {record.oid for record in current_records(self._walk, position_of) if record.data is None}
        if deleted:
            yield from self._referring(lambda found: sorted(deleted.intersection(found)))

    def _referring(self, chosen: Callable[[list[Oid]], list[Oid]]) -> Iterator[Progress | Reference]:
        """Walk the references to those oids that `chosen` chooses among a record's."""
        self.unreadable.clear()
        step_at = 0
        for record in current_records(self._walk, self._index.position):
            if record.position >= step_at:
                yield Progress("reading", record.position, self._walk.size)
                step_at = record.position + _STEP_BYTES
            if record.data is None:
                continue
            try:
                targets = chosen(references(record.data))
            except RecordFormatError as error:
                self.unreadable.append((record.position, record.oid, str(error)))
                continue
            for target in targets:
                yield Reference(record.oid, safe_class_name(record.data), target, record.position)
        yield Progress("reading", self._walk.size, self._walk.size)
