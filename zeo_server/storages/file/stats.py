"""What is in a Data.fs, class by class."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from zeo_core.errors import FileFormatError, POSKeyError
from zeo_core.ids import ZERO_TID, Tid, pack_id
from zeo_core.storage import Progress
from zeo_server.storages.file.format import DATA_HEADER_SIZE, LENGTH_SIZE, STATUS_UNDONE
from zeo_server.storages.file.graph import safe_class_name
from zeo_server.storages.file.log import TransactionHeader
from zeo_server.storages.file.numbers import Numbers
from zeo_server.storages.file.walk import Damage, Walk, open_reader

__all__ = ["ClassStats", "Stats"]

_STEP_BYTES = 8 << 20
_HEADER = Struct(">Q8sQQHQ")  # DATA_HEADER with the oid as a number
_NAME_BYTES = 256  # of a record's start: where nearly every record has named its class
_HEAD_BYTES = DATA_HEADER_SIZE + _NAME_BYTES
_NAMES_CLASS = re.compile(rb"(?:\x80.)?\(?c", re.DOTALL).match
_CLASS_BITS = 16
_CLASS_MASK = (1 << _CLASS_BITS) - 1
_DELETED = 1  # the number of what is not there, in place of a class
_MAX_CLASSES = 60_000  # a file with more than these has damaged records that look like classes
_OTHERS = "(other classes)"


@dataclass(slots=True)
class ClassStats:
    """The objects of one class as they are now, and all of its records, older revisions included."""

    name: str
    objects: int = 0
    bytes: int = 0
    largest: int = 0
    largest_oid: int = 0
    records: int = 0
    record_bytes: int = 0


class Stats:
    """Counts the objects of one file: run `steps` to its end, then read the counts.

    `classes` come sorted by the bytes of their objects, the largest first.
    """

    def __init__(self, path: str) -> None:
        """Count the file at `path`, which a server may have open."""
        self.path = path
        self.transactions = 0
        self.records = 0
        self.deleted = 0
        self.first_tid: Tid = ZERO_TID
        self.last_tid: Tid = ZERO_TID
        self.classes: list[ClassStats] = []
        self._walk = Walk(open_reader(path))
        # Of each object: its class's number and, above that, the bytes of its data. The last record counts.
        self._current = Numbers()
        self._names: dict[bytes, int] = {}
        self._numbers: dict[str, int] = {}
        # By the class's number, the first two of which are no classes.
        self._names_by_number = ["", "(deleted)"]
        self._counts = [0, 0]
        self._sums = [0, 0]
        self._without_data = 0

    @property
    def size(self) -> int:
        """How many bytes the file has."""
        return self._walk.size

    @property
    def objects(self) -> int:
        """How many objects there are, deleted ones not counted."""
        return sum(one.objects for one in self.classes)

    def steps(self) -> Iterator[Progress]:
        """Count, in small steps; FileFormatError if the file is damaged before its end."""
        step_at = 0
        for part in self._walk.parts():
            if isinstance(part, Damage):
                if not part.tail:
                    raise FileFormatError(self.path, part.start, part.reason)
                continue
            if part.position >= step_at:
                yield Progress("counting", part.position, self.size)
                step_at = part.position + _STEP_BYTES
            if part.status != STATUS_UNDONE:
                self._count(part)
        self._sum_up()
        yield Progress("counting", self.size, self.size)

    def _count(self, header: TransactionHeader) -> None:
        self.transactions += 1
        self.first_tid = self.first_tid if self.first_tid > ZERO_TID else header.tid
        self.last_tid = header.tid
        # The loop that the speed of counting depends on: local names, no call for a usual record.
        unpack, window, names, current = _HEADER.unpack_from, self._walk.window, self._names, self._current
        dense, counts, sums, transaction_at = current.dense, self._counts, self._sums, header.position
        position, end = header.records_start, header.records_end
        data, base, room = window.data, window.start, len(dense)
        last, find = base + len(data) - _HEAD_BYTES, data.find
        while position < end:
            if not base <= position <= last:
                window.offset(position, _HEAD_BYTES)
                data, base = window.data, window.start
                last = base + len(data) - _HEAD_BYTES
                find = data.find
            offset = position - base
            oid, _, _, transaction, zero, size = unpack(data, offset)
            record_end = position + DATA_HEADER_SIZE + (size or LENGTH_SIZE)
            if transaction != transaction_at or zero or record_end > end:
                raise FileFormatError(self.path, position, f"no data record of the transaction at {transaction_at}")
            if size:
                start = offset + DATA_HEADER_SIZE
                stop = start + _NAME_BYTES
                number = names.get(data[start : find(b"\n", find(b"\n", start, stop) + 1, stop) + 1], 0)
                if not number:
                    number = self._class_at(position, size)
                    data, base = window.data, window.start
                    last = base + len(data) - _HEAD_BYTES
                    find = data.find
                counts[number] += 1
                sums[number] += size
                value = size << _CLASS_BITS | number
            else:
                value = self._repeated(oid, position)
                self._without_data += 1
            if oid < room:
                dense[oid] = value
            else:
                current.set(oid, value)
                room = len(dense)
            position = record_end

    def _class_at(self, position: int, size: int) -> int:
        """Return the number of the class of the record at `position`, which need not name it at once."""
        record = self._walk.window.bytes_at(position + DATA_HEADER_SIZE, size)
        number = self._class_number(record)
        first_line = record.find(b"\n", 0, _NAME_BYTES) + 1
        names_end = record.find(b"\n", first_line, _NAME_BYTES) + 1
        # Only what begins by naming its class is known by its beginning: GLOBAL, after the mark of the protocol.
        if first_line and names_end and _NAMES_CLASS(record):
            self._names[record[:names_end]] = number
        return number

    def _class_number(self, record: bytes) -> int:
        name = safe_class_name(record)
        if name not in self._numbers and len(self._names_by_number) >= _MAX_CLASSES:
            name = _OTHERS
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self._names_by_number)
            self._names_by_number.append(name)
            self._counts.append(0)
            self._sums.append(0)
        return number

    def _repeated(self, oid: int, position: int) -> int:
        """Return what counts for a record that repeats another one's data, or marks a deletion."""
        try:
            data = self._walk.reader.data(pack_id(oid), position)
        except POSKeyError:
            return _DELETED
        return len(data) << _CLASS_BITS | self._class_number(data)

    def _sum_up(self) -> None:
        numbers = len(self._names_by_number)
        objects, sizes, largest, largest_oids = [0] * numbers, [0] * numbers, [0] * numbers, [0] * numbers
        for oid, value in self._current.items():
            number, size = value & _CLASS_MASK, value >> _CLASS_BITS
            objects[number] += 1
            sizes[number] += size
            if size > largest[number]:
                largest[number] = size
                largest_oids[number] = oid
        self.deleted = objects[_DELETED]
        self.records = self._without_data + sum(self._counts)
        names = self._names_by_number
        columns = zip(names, objects, sizes, largest, largest_oids, self._counts, self._sums, strict=True)
        classes = [ClassStats(*column) for column in columns]
        self.classes = sorted(classes[_DELETED + 1 :], key=lambda one: (-one.bytes, one.name))
