"""Walking a Data.fs from its start without an index and without trust: what the offline tools have in common.

A walk goes on behind damage, where the next transaction that is whole and in its place starts. It reads a file that a
server has open as well as one at rest: it takes no lock, and never looks beyond the length that the file had when the
walk began.
"""

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from zeo_core.errors import FileFormatError, StorageError
from zeo_core.ids import ZERO_TID, Tid
from zeo_server.storages.file.format import (
    DATA_HEADER,
    DATA_HEADER_SIZE,
    FINISHED_STATUSES,
    LENGTH_SIZE,
    MAGIC_SIZE,
    MAGICS,
    STATUS_UNFINISHED,
    TRANSACTION_HEADER,
    TRANSACTION_HEADER_SIZE,
)
from zeo_server.storages.file.log import TransactionHeader, Window, parse_header
from zeo_server.storages.file.reader import Descriptor, Reader

__all__ = ["Damage", "Walk", "open_reader"]

_WINDOW_BYTES = 1 << 20
_SEARCH_BYTES = 1 << 20
# A length of less than 2**48, six more bytes of it, the status: 8 bytes after the transaction's start.
_HEADER_PATTERN = re.compile(rb"(?=\0\0.{6}[ pu])", re.DOTALL)


class Damage(NamedTuple):
    """Bytes that make no finished transaction. A `tail` is what a commit in progress, or a crash, leaves at the end."""

    start: int
    end: int
    reason: str
    tail: bool


def open_reader(path: str, *, damaged: bool = False) -> Reader:
    """Return a reader of the file at `path`; StorageError if it cannot be read, FileFormatError if it is no Data.fs.

    Of a `damaged` file the start may be damaged, too.
    """
    try:
        reader = Reader(path, Descriptor(path, os.O_RDONLY))
        magic = os.pread(reader.descriptor.fd, MAGIC_SIZE, 0)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from error
    if magic not in MAGICS and not damaged:
        raise FileFormatError(path, 0, f"no Data.fs: it starts with {magic!r}")
    return reader


class Walk:
    """Walks the transactions of one file, as long as it is at this moment."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.size = os.fstat(reader.descriptor.fd).st_size
        self.window = Window(reader.descriptor, self.size, _WINDOW_BYTES)

    def parts(self) -> Iterator[TransactionHeader | Damage]:
        """Walk the whole file: headers of finished transactions whose lengths agree, and what is damaged between."""
        position, last_tid = MAGIC_SIZE, ZERO_TID
        while position < self.size:
            fault = self._fault(position)
            if isinstance(fault, TransactionHeader):
                yield fault
                position, last_tid = fault.end, fault.tid
            else:
                damage = self._damage(position, last_tid, fault)
                yield damage
                position = damage.end

    def header_at(self, position: int) -> TransactionHeader | None:
        """Return the header at `position`, whatever it says; None where the file ends."""
        head = self.window.bytes_at(position, TRANSACTION_HEADER_SIZE)
        return parse_header(head, position) if len(head) == TRANSACTION_HEADER_SIZE else None

    def _fault(self, position: int) -> TransactionHeader | str:
        """Return the finished transaction at `position`, or why there is none."""
        # What `header_at` does, written out: this is done for every transaction.
        window = self.window
        offset = window.offset(position, TRANSACTION_HEADER_SIZE)
        if len(window.data) - offset < TRANSACTION_HEADER_SIZE:
            return "the file ends inside a transaction header"
        header = TransactionHeader(position, *TRANSACTION_HEADER.unpack_from(window.data, offset))
        end = position + header.length
        if header.status not in FINISHED_STATUSES:
            return "an unfinished transaction" if header.status == STATUS_UNFINISHED else "no transaction header"
        if header.records_start > end:
            return f"no transaction header: a length of {header.length} has no room for it"
        if end + LENGTH_SIZE > self.size:
            return "the file ends inside a transaction"
        repeated = self._length_at(end)
        if repeated != header.length:
            return f"a transaction's lengths disagree: {header.length} at its start, {repeated} at its end"
        return header

    def _length_at(self, position: int) -> int:
        """Return the length that stands at `position`, without moving the window on before the records are read."""
        offset = position - self.window.start
        if 0 <= offset <= len(self.window.data) - LENGTH_SIZE:
            return int.from_bytes(self.window.data[offset : offset + LENGTH_SIZE])
        return int.from_bytes(os.pread(self.reader.descriptor.fd, LENGTH_SIZE, position))

    def _damage(self, position: int, last_tid: Tid, reason: str) -> Damage:
        end = self._next_transaction(position + 1, last_tid)
        if end is not None:
            return Damage(position, end, reason, tail=False)
        header = self.header_at(position)
        unfinished = header is not None and header.status == STATUS_UNFINISHED and header.tid > last_tid
        # A server that committed since the walk began has marked as finished what lies beyond this walk's end.
        grown = os.fstat(self.reader.descriptor.fd).st_size > self.size
        return Damage(position, self.size, reason, tail=unfinished or grown)

    def _next_transaction(self, position: int, last_tid: Tid) -> int | None:
        """Return where the first whole transaction from `position` on starts."""
        window = Window(self.reader.descriptor, self.size)
        while position < self.size:
            block = window.bytes_at(position, _SEARCH_BYTES)
            for match in _HEADER_PATTERN.finditer(block, 8):
                candidate = position + match.start() - 8
                if self._is_whole(candidate, last_tid):
                    return candidate
            if position + len(block) >= self.size:
                return None
            position += len(block) - TRANSACTION_HEADER_SIZE
        return None

    def _is_whole(self, position: int, last_tid: Tid) -> bool:
        """Tell whether a transaction at `position` is what it claims to be, to its last record."""
        header = self._fault(position)
        if isinstance(header, str):
            return False
        at, end = header.records_start, header.records_end
        if at == end:
            return header.tid > last_tid  # nothing else tells it from bytes that look like it
        while at < end:
            head = self.window.bytes_at(at, DATA_HEADER_SIZE)
            if len(head) < DATA_HEADER_SIZE:
                return False
            _, tid, _, transaction, zero, size = DATA_HEADER.unpack(head)
            if tid != header.tid or transaction != position or zero:
                return False
            at += DATA_HEADER_SIZE + (size or LENGTH_SIZE)
        return at == end
