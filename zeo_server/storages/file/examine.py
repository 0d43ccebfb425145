"""Examining the current records of a Data.fs: can each be read, and does what it refers to exist.

Nearly all of the time goes into reading pickles, one record like the other, so that the file is divided into parts and
as many processes read as there are processors.
"""

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from struct import Struct, unpack
from typing import NamedTuple

from zeo_core.errors import FileFormatError, POSKeyError, RecordFormatError, StorageError
from zeo_core.ids import Oid, oid_repr, pack_id, unpack_id
from zeo_core.record import references
from zeo_server.storages.file.format import DATA_HEADER_SIZE, LENGTH_SIZE, STATUS_UNDONE, TRANSACTION_HEADER_SIZE
from zeo_server.storages.file.log import TransactionHeader, Window, parse_header
from zeo_server.storages.file.memory import bound_memory
from zeo_server.storages.file.numbers import Numbers
from zeo_server.storages.file.reader import Reader

__all__ = ["Examined", "Examiner", "Part"]

_HEADER = Struct(">Q16x10sQ")  # of DATA_HEADER the oid as a number, the place below, and the length
_PLACE = Struct(">QH")  # a record's transaction and the zero after it
_MAX_PROCESSES = 8  # more would only wait for the disk
_MAX_FAULTS = 1000  # of a part; what is beyond is only counted

Part = tuple[int, int]
"""Where whole transactions that follow one another start and end."""


class Examined(NamedTuple):
    """What came of a part: its end, the faults with their positions, and how many there were."""

    end: int
    faults: list[tuple[int, str]]
    fault_count: int


class Examiner:
    """Examines the records at `positions`, where `deletions` stand at some."""

    def __init__(self, reader: Reader, size: int, positions: Numbers, deletions: dict[int, int]) -> None:
        self._reader = reader
        self._size = size
        self._positions = positions
        self._deletions = deletions
        self._exists = bytearray(map(bool, positions.dense))
        for oid, position in deletions.items():
            if oid < len(self._exists) and positions.dense[oid] == position:
                self._exists[oid] = False
        self._faults: list[tuple[int, str]] = []
        self._fault_count = 0

    def examine_all(self, parts: Sequence[Part], processes: int = 0) -> Iterator[Examined]:
        """Examine parts, in order, in so many processes: as many as there are processors, unless it is told."""
        count = min(processes or min(_processors(), _MAX_PROCESSES), len(parts))
        if count < 2:
            yield from map(self.examine, parts)
            return
        context = multiprocessing.get_context("fork")
        executor = ProcessPoolExecutor(count, context, _begin, (self, count))
        try:
            yield from executor.map(_examine, parts)
        except BrokenProcessPool as error:
            raise StorageError(f"{self._reader.path}: a process that read records of it was ended: {error}") from error
        finally:
            executor.shutdown(cancel_futures=True)

    def examine(self, part: Part) -> Examined:
        """Examine one part."""
        self._faults, self._fault_count = [], 0
        window = Window(self._reader.descriptor, self._size)
        position, end = part
        while position < end:
            header = parse_header(window.bytes_at(position, TRANSACTION_HEADER_SIZE), position)
            if header.status != STATUS_UNDONE:
                self._transaction(window, header)
            position = header.end
        return Examined(end, self._faults, self._fault_count)

    def _transaction(self, window: Window, header: TransactionHeader) -> None:
        # The loop that the speed of a check depends on: about half of a usual file's records are no longer current.
        split, dense, here = _HEADER.unpack_from, self._positions.dense, _PLACE.pack(header.position, 0)
        position, end = header.records_start, header.records_end
        while position + DATA_HEADER_SIZE < end:
            window.offset(position, DATA_HEADER_SIZE)
            data, base = window.data, window.start
            stop = min(end, base + len(data) + 1) - DATA_HEADER_SIZE
            while position < stop:
                oid, place, size = split(data, position - base)
                record_end = position + DATA_HEADER_SIZE + (size or LENGTH_SIZE)
                if place != here or record_end > end:
                    return  # that much the check has told
                try:
                    current = dense[oid]
                except IndexError:
                    current = self._positions.get(oid)
                if current == position:
                    record = data[position - base + DATA_HEADER_SIZE : record_end - base] if size else b""
                    self._record(oid, position, record if size and len(record) == size else None)
                position = record_end

    def _record(self, oid: int, position: int, data: bytes | None) -> None:
        """Examine an object's record at `position`; None for data that are not at hand."""
        if data is None:
            try:
                data = self._reader.data(pack_id(oid), position)
            except (POSKeyError, FileFormatError):
                return  # a deletion; or a pointer to a wrong place, which the check has told
        try:
            found = references(data)
        except RecordFormatError as error:
            self._fault(position, f"the record of oid {oid_repr(pack_id(oid))} cannot be read: {error}")
            return
        if not found:
            return
        exists = self._exists
        try:
            if all(map(exists.__getitem__, unpack(f">{len(found)}Q", b"".join(found)))):
                return
        except IndexError:
            pass  # an oid far beyond the others
        for target in set(found):
            if not self._is_there(target):
                source = oid_repr(pack_id(oid))
                self._fault(position, f"oid {source} refers to oid {oid_repr(target)}, which does not exist")

    def _is_there(self, oid: Oid) -> bool:
        number = unpack_id(oid)
        position = self._positions.get(number)
        return position != 0 and self._deletions.get(number) != position

    def _fault(self, position: int, reason: str) -> None:
        self._fault_count += 1
        if len(self._faults) < _MAX_FAULTS:
            self._faults.append((position, reason))


def _processors() -> int:
    """Return how many processors this process may use; 1 where it cannot be forked, but would have to tell all."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1


_examiners: list[Examiner] = []
"""In a process that was forked to examine: the one examiner, which it has from its parent as it was then."""


def _begin(examiner: Examiner, processes: int) -> None:
    bound_memory(processes)
    _examiners.append(examiner)


def _examine(part: Part) -> Examined:
    return _examiners[0].examine(part)
