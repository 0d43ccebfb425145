"""A Data.fs as of a pack time: where its log is divided, and which record is each object's current one there.

The boundary is the end of the last transaction that is not later than the pack time. What stands before it is packed;
what stands behind it is kept as it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from zeo_core.errors import FileFormatError
from zeo_core.ids import Tid
from zeo_server.storages.file.format import (
    FINISHED_STATUSES,
    MAGIC_SIZE,
    STATUS_PACKED,
    STATUS_UNDONE,
    TRANSACTION_HEADER_SIZE,
)
from zeo_server.storages.file.index import Index
from zeo_server.storages.file.log import TransactionHeader, Window, parse_header
from zeo_server.storages.file.reader import Reader
from zeo_server.storages.file.recover import record_positions

__all__ = ["AsOf", "headers"]


def headers(path: str, window: Window, start: int, end: int) -> Iterator[TransactionHeader]:
    """Walk the transactions from `start` to `end`; FileFormatError where something else stands."""
    position = start
    while position < end:
        head = window.bytes_at(position, TRANSACTION_HEADER_SIZE)
        if len(head) < TRANSACTION_HEADER_SIZE:
            raise FileFormatError(path, position, "the file ends inside a transaction header")
        header = parse_header(head, position)
        if header.status not in FINISHED_STATUSES or header.records_start > header.records_end or header.end > end:
            raise FileFormatError(path, position, "no finished transaction")
        if window.length_at(header.records_end) != header.length:
            raise FileFormatError(path, position, "the transaction's lengths disagree")
        yield header
        position = header.end


@dataclass(slots=True)
class AsOf:
    """The current records at the boundary, and the last transaction before it."""

    current: Index
    boundary: int
    last: TransactionHeader | None

    @classmethod
    def empty(cls) -> "AsOf":
        """Return the state of a file before its first transaction."""
        return cls(Index(), MAGIC_SIZE, None)

    @property
    def is_packed(self) -> bool:
        """Tell whether there is nothing to pack: an earlier pack went as far, or further (lesson B32)."""
        return self.last is None or self.last.status == STATUS_PACKED

    def scan(self, reader: Reader, tid: Tid, end: int) -> Iterator[int]:
        """Take in the transactions up to `tid`, looking no further than `end`; yields the position, now and then."""
        window = Window(reader.descriptor, end)
        shown = 0
        for header in headers(reader.path, window, self.boundary, end):
            if header.tid > tid:
                return
            if header.status != STATUS_UNDONE:
                self.current.update(record_positions(reader.path, window, header))
            self.last, self.boundary = header, header.end
            if header.end > shown:
                yield header.end
                shown = header.end + (4 << 20)
