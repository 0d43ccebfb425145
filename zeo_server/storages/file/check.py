"""Checking a Data.fs: whether every byte that is not an object's own data is what the format demands.

What is checked: magic; lengths, their repetition, statuses; that tids grow; that each data record names its
transaction, has its tid, leads back to the object's previous record and repeats only an earlier record of its object;
that the saved index agrees; and, if asked, that every current record can be read and refers only to objects that exist.
"""

from collections.abc import Iterator
from itertools import zip_longest
from struct import Struct
from typing import NamedTuple

from zeo_core.errors import FileFormatError, RecordFormatError
from zeo_core.ids import ZERO_TID, Oid, Tid, oid_repr, pack_id, tid_repr, unpack_id
from zeo_core.record import references
from zeo_core.storage import Progress
from zeo_server.storages.file.format import (
    DATA_HEADER_SIZE,
    LENGTH_SIZE,
    MAGIC_SIZE,
    STATUS_PACKED,
    STATUS_UNDONE,
)
from zeo_server.storages.file.graph import Current, current_records
from zeo_server.storages.file.index import Index
from zeo_server.storages.file.log import TransactionHeader
from zeo_server.storages.file.numbers import Numbers
from zeo_server.storages.file.walk import Damage, Walk, open_reader

__all__ = ["Check", "Fault"]

_MAX_FAULTS = 1000  # kept; a file with more is not read fault by fault
_STEP_BYTES = 8 << 20
_READ_AHEAD = DATA_HEADER_SIZE + LENGTH_SIZE
_HEADER = Struct(">Q8sQQHQ")  # DATA_HEADER with the oid as a number


class Fault(NamedTuple):
    """One thing that is wrong, and the byte at which; `path` is the file, which may be the index's."""

    path: str
    position: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: at byte {self.position}: {self.reason}"


class Check:
    """A check of one file: run `steps` to its end, then read the results.

    `faults` are the first 1,000, `fault_count` counts all. `tail` describes the bytes of a commit in progress, or of
    one that a crash cut short, "" if there are none: no fault, the next opening cuts them off.
    """

    def __init__(self, path: str, *, read_records: bool = False) -> None:
        """Check the file at `path`; `read_records` says that the objects' own data are to be read, too."""
        self.path = path
        self.faults: list[Fault] = []
        self.fault_count = 0
        self.transactions = 0
        self.records = 0
        self.last_tid: Tid = ZERO_TID
        self.tail = ""
        self.index = "missing"
        self._read_records = read_records
        self._walk = Walk(open_reader(path))
        self._positions = Numbers()
        self._index: Index | None = None
        self._index_end = 0
        self._deletions: dict[int, int] = {}

    @property
    def objects(self) -> int:
        """How many objects the file has, deleted ones included."""
        return len(self._positions)

    @property
    def size(self) -> int:
        """How many bytes were checked."""
        return self._walk.size

    def steps(self) -> Iterator[Progress]:
        """Do the check, in small steps."""
        self._load_index()
        size = self._walk.size
        step_at = 0
        for part in self._walk.parts():
            if isinstance(part, Damage):
                if part.start == self._index_end:
                    self._compare_index()
                self._damaged(part)
                continue
            if part.position >= step_at:
                yield Progress("checking", part.position, size)
                step_at = part.position + _STEP_BYTES
            if part.position == self._index_end:
                self._compare_index()
            self._check_transaction(part)
        self._end_of_index()
        yield Progress("checking", size, size)
        if self._read_records:
            for done in self._check_references():
                yield Progress("reading records", done, size)
            yield Progress("reading records", size, size)

    def _fault(self, position: int, reason: str, path: str = "") -> None:
        self.fault_count += 1
        if len(self.faults) < _MAX_FAULTS:
            self.faults.append(Fault(path or self.path, position, reason))

    def _damaged(self, damage: Damage) -> None:
        text = f"{damage.reason}; {damage.end - damage.start} bytes up to byte {damage.end} cannot be read"
        if damage.tail:
            self.tail = f"{damage.reason} at byte {damage.start}, {damage.end - damage.start} bytes to the end"
        else:
            self._fault(damage.start, text)

    def _check_transaction(self, header: TransactionHeader) -> None:
        self.transactions += 1
        if header.tid <= self.last_tid:
            reason = f"tids do not grow: {tid_repr(header.tid)} follows {tid_repr(self.last_tid)}"
            self._fault(header.position, reason)
        self.last_tid = header.tid
        self._check_records(header)

    def _check_records(self, header: TransactionHeader) -> None:
        # The loop that the speed of a check depends on: local names, no call for a record that is as it should be.
        unpack, window, dense = _HEADER.unpack_from, self._walk.window, self._positions.dense
        start, tid, status = header.position, header.tid, header.status
        counted, count = status != STATUS_UNDONE, 0
        position, end = header.records_start, header.records_end
        data, base, room = window.data, window.start, len(dense)
        last = base + len(data) - _READ_AHEAD
        while position < end:
            if not base <= position <= last:
                window.offset(position, _READ_AHEAD)
                data, base = window.data, window.start
                last = base + len(data) - _READ_AHEAD
            offset = position - base
            if position + DATA_HEADER_SIZE >= end:
                self._fault(position, f"the transaction at byte {start} ends inside a data header")
                return
            oid, serial, previous, transaction, zero, size = unpack(data, offset)
            if transaction != start or zero:
                self._fault(position, f"no data record of the transaction at byte {start}")
                return
            if serial != tid:
                self._fault(position, f"a record with the tid {tid_repr(serial)} in transaction {tid_repr(tid)}")
            known = dense[oid] if oid < room else self._positions.get(oid)
            if previous != known:
                self._check_previous(position, header, oid, previous, known)
            if not size:
                self._check_back(position, oid, int.from_bytes(data[offset + DATA_HEADER_SIZE : offset + _READ_AHEAD]))
            if counted:
                if oid < room:
                    dense[oid] = position
                else:
                    self._positions.set(oid, position)
                    room = len(dense)
            count += 1
            position += DATA_HEADER_SIZE + (size or LENGTH_SIZE)
        self.records += count
        if position != end:
            self._fault(start, f"the records of the transaction end at byte {position}, itself at byte {end}")

    def _check_previous(self, position: int, header: TransactionHeader, oid: int, previous: int, known: int) -> None:
        """Tell of a pointer to the previous record that is not the object's last record before this one."""
        packed = header.status == STATUS_PACKED
        if not previous and packed:
            return  # packing cuts the way to what it removed
        try:
            if known > header.position:
                # Two records of one object in one transaction: both may lead to the one before the transaction.
                known = self._walk.reader.header(pack_id(oid), known).previous
            if previous == known:
                return
            if previous:
                self._walk.reader.header(pack_id(oid), previous)
        except FileFormatError as error:
            self._fault(position, f"its previous record: at byte {error.position}, {error.reason}")
            return
        expected = f"not to the object's last one at {known}" if known else "and the object has none before it"
        self._fault(position, f"a record of oid {oid_repr(pack_id(oid))} leads back to byte {previous}, {expected}")

    def _check_back(self, position: int, oid: int, back: int) -> None:
        """Check that what a record repeats is an earlier record of its object."""
        if not back:
            self._deletions[oid] = position
            return
        if not MAGIC_SIZE < back < position:
            self._fault(position, f"it repeats a record at byte {back}, which is not earlier")
            return
        try:
            self._walk.reader.header(pack_id(oid), back)
        except FileFormatError as error:
            self._fault(position, f"what it repeats: at byte {error.position}, {error.reason}")

    def _load_index(self) -> None:
        path = self.path + ".index"
        try:
            self._index, self._index_end = Index.load(path)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            self.index = "unreadable"
            self._fault(0, f"the index cannot be read: {error}", path)

    def _end_of_index(self) -> None:
        """Compare the index if it ends where the file does; tell of one that ends where no transaction starts."""
        if self._index is None:
            return
        if self._index_end == self._walk.size or (self.transactions == 0 and self._index_end == MAGIC_SIZE):
            self._compare_index()
        else:
            self.index = "wrong"
            reason = f"the index ends at byte {self._index_end} of {self.path}, where no transaction ends"
            self._fault(0, reason, self.path + ".index")

    def _compare_index(self) -> None:
        index, self._index = self._index, None
        if index is None:
            return
        mine = self._positions.index()
        end = self._index_end
        if all(ours == saved for ours, saved in zip_longest(mine.saved(end), index.saved(end))):
            self.index = "agrees" if end == self._walk.size else f"agrees up to byte {end}"
            return
        self.index = "wrong"
        path = self.path + ".index"
        for oid, position in self._positions.items():
            found = index.position(pack_id(oid))
            if found != position:
                self._fault(0, f"oid {oid_repr(pack_id(oid))} is at byte {position}, the index says {found}", path)
        if len(index) != len(mine):
            self._fault(0, f"the index has {len(index)} objects, the file {len(mine)} up to byte {end}", path)

    def _check_references(self) -> Iterator[int]:
        """Read all current records; yield how many bytes are done."""
        step_at = 0
        for record in current_records(self._walk, lambda oid: self._positions.get(unpack_id(oid))):
            if record.position >= step_at:
                yield record.position
                step_at = record.position + _STEP_BYTES
            self._check_record(record)

    def _check_record(self, record: Current) -> None:
        if record.data is None:
            return
        oid = oid_repr(record.oid)
        try:
            found = references(record.data)
        except RecordFormatError as error:
            self._fault(record.position, f"the record of oid {oid} cannot be read: {error}")
            return
        for target in set(found):
            if not self._exists(target):
                self._fault(record.position, f"oid {oid} refers to oid {oid_repr(target)}, which does not exist")

    def _exists(self, oid: Oid) -> bool:
        number = unpack_id(oid)
        position = self._positions.get(number)
        return position != 0 and self._deletions.get(number) != position
