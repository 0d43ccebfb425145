"""Checking a Data.fs: whether every byte that is not an object's own data is what the format demands.

What is checked: magic; lengths, their repetition, statuses; that tids grow; that each data record names its
transaction, has its tid, leads back to the object's previous record and repeats only an earlier record of its object;
that the saved index agrees; and, if asked, that every current record can be read and refers only to objects that exist,
and that blobs are where they belong.
"""

from collections.abc import Iterator
from itertools import zip_longest
from struct import Struct
from typing import NamedTuple

from zeo_core.errors import FileFormatError
from zeo_core.ids import ZERO_TID, Tid, oid_repr, pack_id, tid_repr
from zeo_core.storage import Progress
from zeo_server.storages.file.blob_check import BlobCheck
from zeo_server.storages.file.examine import Examiner, Part
from zeo_server.storages.file.format import (
    DATA_HEADER_SIZE,
    LENGTH_SIZE,
    MAGIC_SIZE,
    STATUS_PACKED,
    STATUS_UNDONE,
)
from zeo_server.storages.file.index import Index
from zeo_server.storages.file.log import TransactionHeader
from zeo_server.storages.file.numbers import Numbers
from zeo_server.storages.file.walk import Damage, Walk, open_reader

__all__ = ["Check", "Fault"]

_MAX_FAULTS = 1000  # kept; a file with more is not read fault by fault
_STEP_BYTES = 8 << 20
_PART_BYTES = 8 << 20  # of the file whose records are read in one go, by one process
_READ_AHEAD = DATA_HEADER_SIZE + LENGTH_SIZE
_HEADER = Struct(">Q8sQ10sQ")  # DATA_HEADER with the oid as a number, and the place below in one
_PLACE = Struct(">QH")  # a record's transaction and the zero after it


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

    def __init__(self, path: str, *, read_records: bool = False, blob_dir: str | None = None) -> None:
        """Check the file at `path`, and the directory of its blobs, if that is given.

        `read_records` says that the objects' own data are to be read, too.
        """
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
        self._parts: list[Part] = []
        self.blobs = None if blob_dir is None else BlobCheck(blob_dir, self._walk, self._fault)

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
        if self.blobs is not None:
            for files in self.blobs.compare_files(self._positions, self.last_tid):
                yield Progress("comparing blobs", files, max(files, self.blobs.blobs))
            yield Progress("comparing blobs", self.blobs.files, self.blobs.files)
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
        self._add_to_parts(header)
        if header.tid <= self.last_tid:
            reason = f"tids do not grow: {tid_repr(header.tid)} follows {tid_repr(self.last_tid)}"
            self._fault(header.position, reason)
        self.last_tid = header.tid
        self._check_records(header)
        if self.blobs is not None and header.status != STATUS_UNDONE:
            self.blobs.transaction(header)

    def _add_to_parts(self, header: TransactionHeader) -> None:
        start, end = self._parts[-1] if self._parts else (0, 0)
        if end == header.position and end - start < _PART_BYTES:
            self._parts[-1] = (start, header.end)
        else:
            self._parts.append((header.position, header.end))

    def _check_records(self, header: TransactionHeader) -> None:
        # The loop that the speed of a check depends on: local names, no call for a record that is as it should be.
        unpack, window, positions = _HEADER.unpack_from, self._walk.window, self._positions
        dense, start, tid = positions.dense, header.position, header.tid
        counted, here = header.status != STATUS_UNDONE, _PLACE.pack(start, 0)
        position, end, count = header.records_start, header.records_end, 0
        while position < end:
            window.offset(position, _READ_AHEAD)
            data, base = window.data, window.start
            stop = min(end - DATA_HEADER_SIZE, base + len(data) - _READ_AHEAD + 1)
            if position >= stop:
                self._fault(position, f"the transaction at byte {start} ends inside a data header")
                return
            while position < stop:
                oid, serial, previous, place, size = unpack(data, position - base)
                if place != here:
                    self._fault(position, f"no data record of the transaction at byte {start}")
                    return
                if serial != tid:
                    self._fault(position, f"a record with the tid {tid_repr(serial)} in transaction {tid_repr(tid)}")
                try:
                    known = dense[oid]
                except IndexError:
                    known = positions.get(oid)
                if previous != known:
                    self._check_previous(position, header, oid, previous, known)
                if counted:
                    try:
                        dense[oid] = position
                    except IndexError:
                        positions.set(oid, position)
                count += 1
                if size:
                    position += size + DATA_HEADER_SIZE
                else:
                    self._check_back(position, oid)
                    position += LENGTH_SIZE + DATA_HEADER_SIZE
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

    def _check_back(self, position: int, oid: int) -> None:
        """Check that what a record repeats is an earlier record of its object."""
        offset = position - self._walk.window.start + DATA_HEADER_SIZE
        back = int.from_bytes(self._walk.window.data[offset : offset + LENGTH_SIZE])
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
            return
        if self.blobs is not None:
            self.blobs.repeated(pack_id(oid), position)

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
        end, count = self._index_end, len(self._positions)
        if all(ours == saved for ours, saved in zip_longest(self._positions.saved_index(end), index.saved(end))):
            self.index = "agrees" if end == self._walk.size else f"agrees up to byte {end}"
            return
        self.index = "wrong"
        path = self.path + ".index"
        for oid, position in self._positions.items():
            found = index.position(pack_id(oid))
            if found != position:
                self._fault(0, f"oid {oid_repr(pack_id(oid))} is at byte {position}, the index says {found}", path)
        if len(index) != count:
            self._fault(0, f"the index has {len(index)} objects, the file {count} up to byte {end}", path)

    def _check_references(self) -> Iterator[int]:
        """Read all current records; yield how many bytes are done."""
        examiner = Examiner(self._walk.reader, self._walk.size, self._positions, self._deletions)
        for examined in examiner.examine_all(self._parts):
            for position, reason in examined.faults:
                self._fault(position, reason)
            self.fault_count += examined.fault_count - len(examined.faults)
            yield examined.end
