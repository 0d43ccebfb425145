"""Walking the transactions of Data.fs in order, forwards and backwards."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import NamedTuple

from zeo_core.errors import FileFormatError, POSKeyError
from zeo_core.ids import ZERO_TID, Tid, unpack_id
from zeo_core.transaction import RecordedObject, RecordedTransaction, TransactionMetadata, UndoEntry
from zeo_server.storages.file.format import (
    DATA_HEADER,
    DATA_HEADER_SIZE,
    FINISHED_STATUSES,
    LENGTH,
    LENGTH_SIZE,
    MAGIC_SIZE,
    STATUS_FINISHED,
    STATUS_PACKED,
    STATUS_UNDONE,
    TRANSACTION_HEADER,
    TRANSACTION_HEADER_SIZE,
)
from zeo_server.storages.file.reader import Descriptor, Reader

__all__ = ["Log", "TransactionHeader", "Window", "parse_header"]

_WINDOW_BYTES = 1 << 20


class TransactionHeader(NamedTuple):
    """A transaction's header and where it stands."""

    position: int
    tid: Tid
    length: int
    status: bytes
    user_size: int
    description_size: int
    extension_size: int

    @property
    def records_start(self) -> int:
        """Where the first data record stands."""
        sizes = self.user_size + self.description_size + self.extension_size
        return self.position + TRANSACTION_HEADER_SIZE + sizes

    @property
    def records_end(self) -> int:
        """Where the data records end and the repeated length stands."""
        return self.position + self.length

    @property
    def end(self) -> int:
        """Where the next transaction starts."""
        return self.position + self.length + LENGTH_SIZE


def parse_header(head: bytes, position: int) -> TransactionHeader:
    """Return the header whose 23 bytes are `head`, read at `position`."""
    return TransactionHeader(position, *TRANSACTION_HEADER.unpack(head))


class Window:
    """A moving buffer over a file, for walks that read nearly everything; each walk has its own.

    `data` holds the file's bytes from `start` on. Bytes from `limit` on are never shown.
    """

    def __init__(self, descriptor: Descriptor, limit: int, size: int = _WINDOW_BYTES) -> None:
        self._descriptor = descriptor
        self._size = size
        self.limit = limit
        self.start = 0
        self.data = b""

    def offset(self, position: int, count: int) -> int:
        """Return where in `data` the byte at `position` stands, after seeing to it that `count` bytes follow.

        Fewer follow only where the file, or what may be seen of it, ends.
        """
        offset = position - self.start
        if offset < 0 or offset + count > len(self.data):
            self.data = self._read(position, max(count, self._size))
            self.start = position
            offset = 0
        return offset

    def bytes_at(self, position: int, count: int) -> bytes:
        """Return `count` bytes at `position`; fewer only at the end."""
        offset = self.offset(position, count)
        return self.data[offset : offset + count]

    def length_at(self, position: int) -> int | None:
        """Return the 8-byte number at `position`, None where the file ends."""
        data = self.bytes_at(position, LENGTH_SIZE)
        return int.from_bytes(data, "big") if len(data) == LENGTH_SIZE else None

    def _read(self, position: int, count: int) -> bytes:
        count = max(0, min(count, self.limit - position))
        data = os.pread(self._descriptor.fd, count, position)
        while len(data) < count:  # a signal, or the system's limit of 2 GiB for one read
            more = os.pread(self._descriptor.fd, count - len(data), position + len(data))
            if not more:
                break
            data += more
        return data


class _Records:
    """A transaction's records, which may be walked more than once."""

    def __init__(self, walk: Callable[[], Iterator[RecordedObject]]) -> None:
        self._walk = walk

    def __iter__(self) -> Iterator[RecordedObject]:
        return self._walk()


class Log:
    """The transactions of a file up to `end`, which is the end of a transaction."""

    def __init__(self, reader: Reader, end: int) -> None:
        self._reader = reader
        self._end = end

    def transactions(self, start: Tid | None, stop: Tid | None) -> Iterator[RecordedTransaction]:
        """Walk the transactions with start <= tid <= stop."""
        window = Window(self._reader.descriptor, self._end)
        for header in self._headers_from(window, self._find(start)):
            if stop is not None and header.tid > stop:
                return
            if header.status == STATUS_UNDONE or (start is not None and header.tid < start):
                continue
            metadata = self._metadata(window, header)
            yield RecordedTransaction(
                header.tid, header.status, metadata, _Records(partial(self._records, window, header))
            )

    def _headers_from(self, window: Window, position: int) -> Iterator[TransactionHeader]:
        while position < self._end:
            header = self._header_at(window, position)
            yield header
            position = header.end

    def undo_entries(self) -> Iterator[UndoEntry]:
        """Walk the transactions that may be undone, newest first, up to where the file was packed."""
        window = Window(self._reader.descriptor, self._end, TRANSACTION_HEADER_SIZE)
        for header in self.headers_backwards():
            if header.status == STATUS_PACKED:
                return
            if header.status == STATUS_FINISHED:
                yield UndoEntry(header.tid, self._metadata(window, header), header.length)

    def start_of_last(self, count: int) -> Tid:
        """Return the tid of the first of the last `count` transactions."""
        tid = ZERO_TID
        for header in islice(self.headers_backwards(), count):
            tid = header.tid
        return tid

    def headers_backwards(self) -> Iterator[TransactionHeader]:
        """Walk the headers from the last transaction to the first."""
        position = self._end
        # A small window: each step reads the 8 bytes before a transaction and its header, wherever that is.
        window = Window(self._reader.descriptor, self._end, TRANSACTION_HEADER_SIZE)
        while position > MAGIC_SIZE:
            length = window.length_at(position - LENGTH_SIZE) or 0
            start = position - LENGTH_SIZE - length
            if start < MAGIC_SIZE or length < TRANSACTION_HEADER_SIZE:
                raise FileFormatError(self._reader.path, position - LENGTH_SIZE, f"{length} is no transaction's length")
            header = self._header_at(window, start)
            if header.length != length:
                raise FileFormatError(self._reader.path, start, f"lengths disagree: {header.length} and {length}")
            yield header
            position = start

    def _header_at(self, window: Window, position: int) -> TransactionHeader:
        head = window.bytes_at(position, TRANSACTION_HEADER_SIZE)
        if len(head) < TRANSACTION_HEADER_SIZE:
            raise FileFormatError(self._reader.path, position, "the file ends inside a transaction header")
        header = parse_header(head, position)
        if header.status not in FINISHED_STATUSES or header.records_start > header.records_end:
            raise FileFormatError(self._reader.path, position, "no transaction header")
        return header

    def _find(self, start: Tid | None) -> int:
        """Return the position of the first transaction from `start` on, or of one before it."""
        if start is None or self._end <= MAGIC_SIZE:
            return MAGIC_SIZE
        window = Window(self._reader.descriptor, self._end, TRANSACTION_HEADER_SIZE)
        first = unpack_id(self._header_at(window, MAGIC_SIZE).tid)
        last = unpack_id(next(self.headers_backwards()).tid)
        # tids are time stamps: their distance to both ends tells which end is nearer.
        if unpack_id(start) - first < last - unpack_id(start):
            return MAGIC_SIZE
        position = self._end
        for header in self.headers_backwards():
            if header.tid < start:
                break
            position = header.position
        return position

    def _metadata(self, window: Window, header: TransactionHeader) -> TransactionMetadata:
        start = header.position + TRANSACTION_HEADER_SIZE
        text = window.bytes_at(start, header.records_start - start)
        user, description = header.user_size, header.description_size
        return TransactionMetadata(text[:user], text[user : user + description], text[user + description :])

    def _records(self, window: Window, header: TransactionHeader) -> Iterator[RecordedObject]:
        position = header.records_start
        while position < header.records_end:
            head = window.bytes_at(position, DATA_HEADER_SIZE + LENGTH_SIZE)
            oid, tid, _, transaction, zero, size = DATA_HEADER.unpack_from(head)
            record_end = position + DATA_HEADER_SIZE + (size or LENGTH_SIZE)
            if transaction != header.position or zero or record_end > header.records_end:
                raise FileFormatError(self._reader.path, position, "no data record of its transaction")
            if size:
                data = window.bytes_at(position + DATA_HEADER_SIZE, size)
                yield RecordedObject(oid, tid, data, None)
            else:
                yield self._repeating(oid, tid, LENGTH.unpack_from(head, DATA_HEADER_SIZE)[0])
            position = record_end

    def _repeating(self, oid: bytes, tid: Tid, back: int) -> RecordedObject:
        if not back:
            return RecordedObject(oid, tid, None, None)
        data: bytes | None
        try:
            data = self._reader.data(oid, back)
        except POSKeyError:
            data = None  # what it repeats is a deletion
        return RecordedObject(oid, tid, data, self._reader.tid_at(oid, back))
