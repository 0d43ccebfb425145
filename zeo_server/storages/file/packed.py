"""Writing the packed file: what is kept of the log before the boundary, then everything behind it.

Before the boundary, each record that is kept is written with its data (a back pointer may lead to what is gone) and
without a previous record; its transaction gets the status "p". The last transaction is written even if nothing of it is
kept: the log still shows up to where it was packed (lesson B32), and that its tid was given (lesson B24). And if the
object with the highest oid is gone, its deletion is written there, lest the oid be given out again (lesson B25).

Deletions before the boundary go with garbage collection: to be unknown says the same. Without it they stay, since the
file may have the changes of a DemoStorage, and hide objects of the base; and so does the first transaction if it never
had records, since that is the mark which parts the two (storages/demo.py).

Behind the boundary every transaction is written as it is, so that all of them move by one and the same distance. Only
pointers differ: those to records behind the boundary by that distance, those to previous records before it lead to the
object's record there, if it is kept, and back pointers to where their records went.
"""

import os
from collections.abc import Iterator
from typing import NoReturn

from zeo_core.errors import FileFormatError, StorageFullError
from zeo_core.ids import ZERO_TID, Oid
from zeo_server.storages import durable
from zeo_server.storages.file.asof import AsOf, headers
from zeo_server.storages.file.format import (
    DATA_HEADER,
    DATA_HEADER_SIZE,
    LENGTH,
    LENGTH_SIZE,
    MAGIC_SIZE,
    STATUS_PACKED,
    STATUS_UNDONE,
    TRANSACTION_HEADER,
    TRANSACTION_HEADER_SIZE,
)
from zeo_server.storages.file.index import Entries, Index, add_entry
from zeo_server.storages.file.kept import Kept
from zeo_server.storages.file.log import TransactionHeader, Window, parse_header
from zeo_server.storages.file.reader import Descriptor, Reader

__all__ = ["Output", "PackedFile"]

_BLOCK_BYTES = 1 << 20
_SYNC_BYTES = 2 << 20  # little at a time: the commits' syncs wait for it (16 MB: 22 ms at worst, 2 MB: 15)
_RESERVE_BYTES = 32 << 20  # left free for the commits that go on meanwhile


class Output:
    """Appends to a new file in blocks; what was appended last can be changed until it is written."""

    def __init__(self, path: str, descriptor: Descriptor) -> None:
        """Write to an empty file; `path` is for errors."""
        self._path = path
        self._descriptor = descriptor
        self._fd = descriptor.fd
        self._buffer = bytearray()
        self._written = 0
        self._synced = 0

    @property
    def position(self) -> int:
        """Where the next byte goes."""
        return self._written + len(self._buffer)

    def append(self, data: bytes) -> None:
        """Append bytes."""
        self._buffer += data
        if len(self._buffer) >= _BLOCK_BYTES:
            self._write()

    def change(self, position: int, data: bytes) -> None:
        """Write over bytes that were appended before."""
        if position >= self._written:
            start = position - self._written
            self._buffer[start : start + len(data)] = data
        else:
            self._write()  # the bytes may end in the buffer
            os.pwrite(self._fd, data, position)

    def sync(self) -> None:
        """Bring everything to disk."""
        self._write()
        durable.sync_data(self._fd)
        self._synced = self._written

    def start_over(self) -> None:
        """Drop what was written."""
        self._buffer.clear()
        os.ftruncate(self._fd, 0)
        self._written = self._synced = 0

    def check_room(self, byte_count: int) -> None:
        """Raise StorageFullError unless there is room for so many more bytes, and some for others."""
        status = os.fstatvfs(self._fd)
        free = status.f_bavail * status.f_frsize
        if free < byte_count + _RESERVE_BYTES:
            raise StorageFullError(self._path, f"{byte_count} bytes to write, {free} free; nothing was packed")

    def _write(self) -> None:
        self.check_room(len(self._buffer))
        with memoryview(self._buffer) as view:
            done = 0
            while done < len(view):
                done += os.pwrite(self._fd, view[done:], self._written + done)
        self._written += len(self._buffer)
        self._buffer.clear()
        if self._written - self._synced >= _SYNC_BYTES:
            durable.sync_data(self._fd)
            self._synced = self._written


class PackedFile:
    """Fills the packed file and its index."""

    def __init__(self, reader: Reader, as_of: AsOf, kept: Kept, output: Output) -> None:
        self._reader = reader
        self._as_of = as_of
        self._kept = kept
        self._output = output
        self.index = Index()
        self.copied_end = 0
        """Up to where the old file is in the new one."""
        self.distance = 0
        """By how much what stands behind the boundary has moved."""
        self._start = 0  # where the transaction that is being written starts, 0 if there is none
        self._header = TransactionHeader(0, ZERO_TID, 0, STATUS_PACKED, 0, 0, 0)  # its header in the old file

    def copy_packed(self) -> Iterator[int]:
        """Write what is kept before the boundary; yields, now and then, up to where the old file is done."""
        window = Window(self._reader.descriptor, self._as_of.boundary)
        self._output.append(window.bytes_at(0, MAGIC_SIZE))
        entries: Entries = {}
        transaction, shown = self._copy_mark(window), 0
        for position in self._kept.positions:
            oid, transaction_at, data = self._packed_record(window, position)
            if data is None and self._kept.gc:
                continue
            if transaction_at != transaction:
                self._finish_transaction()
                self._begin_transaction(transaction_at)
                transaction = transaction_at
                if position - shown > _BLOCK_BYTES:
                    self.index.update(entries)
                    entries, shown = {}, position
                    yield position
            self._write_record(entries, oid, position, data)
        self.index.update(entries)
        last = self._as_of.last
        if last is not None and last.position != transaction:
            self._finish_transaction()
            self._begin_transaction(last.position)
        self._mark_highest_oid()
        self._finish_transaction()
        self.copied_end = self._as_of.boundary
        self.distance = self._as_of.boundary - self._output.position
        yield self.copied_end

    def copy_rest(self, end: int) -> Iterator[int]:
        """Write the transactions behind the boundary, from where the last copy ended to `end`; yields as above."""
        window = Window(self._reader.descriptor, end)
        shown = self.copied_end
        for header in headers(self._reader.path, window, self.copied_end, end):
            self._copy_transaction(window, header)
            self.copied_end = header.end
            if header.end - shown > _BLOCK_BYTES:
                shown = header.end
                yield header.end
        self.copied_end = end
        yield end

    def start_over(self) -> None:
        """Drop what was written, to write it anew."""
        self._output.start_over()
        self.index = Index()
        self.copied_end = self._start = 0

    def _copy_mark(self, window: Window) -> int:
        """Begin the first transaction if it has no records, and return its position; else return 0."""
        first = next(headers(self._reader.path, window, MAGIC_SIZE, self._as_of.boundary), None)
        if first is None or first.records_start < first.records_end:
            return 0
        self._begin_transaction(first.position)
        return first.position

    def _mark_highest_oid(self) -> None:
        """Write a deletion of the highest oid if its object is gone, so that its oid is not given out again (B25)."""
        current = self._as_of.current
        oid = current.highest_oid()
        if self._start and current.position(oid) and not self.index.position(oid) and not self._kept.is_later(oid):
            entries: Entries = {}
            add_entry(entries, oid, self._output.position)
            self.index.update(entries)
            self._output.append(self._record(oid, None))

    def _packed_record(self, window: Window, position: int) -> tuple[Oid, int, bytes | None]:
        """Return oid, transaction and data, its own or repeated, of the record at `position`."""
        head = window.bytes_at(position, DATA_HEADER_SIZE)
        oid, _, _, transaction, _, size = DATA_HEADER.unpack(head)
        data = window.bytes_at(position + DATA_HEADER_SIZE, size) if size else self._reader.stored_data(oid, position)
        if data is not None and size and len(data) < size:
            self._fail(position, "the file ends inside a data record")
        return oid, transaction, data

    def _write_record(self, entries: Entries, oid: Oid, position: int, data: bytes | None) -> None:
        moved, new = self._kept.moved, self._output.position
        is_target = bool(moved) and position in moved
        if is_target:
            moved[position] = new
        if not is_target or self._as_of.current.position(oid) == position:
            # A record that is only repeated by a later one is on no object's chain of revisions, so that it is not
            # taken for the revision of a time when others, now gone, were current (lesson B35).
            add_entry(entries, oid, new)
        self._output.append(self._record(oid, data))

    def _record(self, oid: Oid, data: bytes | None) -> bytes:
        """Return a record of the transaction that is being written; without data, a deletion."""
        if data is None:
            return DATA_HEADER.pack(oid, self._header.tid, 0, self._start, 0, 0) + LENGTH.pack(0)
        return DATA_HEADER.pack(oid, self._header.tid, 0, self._start, 0, len(data)) + data

    def _begin_transaction(self, position: int) -> None:
        fd = self._reader.descriptor.fd
        head = os.pread(fd, TRANSACTION_HEADER_SIZE, position)
        if len(head) < TRANSACTION_HEADER_SIZE:
            self._fail(position, "the file ends inside a transaction header")
        self._header = parse_header(head, position)
        self._start = self._output.position
        text = os.pread(fd, self._header.records_start - position - TRANSACTION_HEADER_SIZE, position + len(head))
        self._output.append(head + text)

    def _finish_transaction(self) -> None:
        if not self._start:
            return
        length = self._output.position - self._start
        header = self._header
        sizes = (header.user_size, header.description_size, header.extension_size)
        self._output.append(LENGTH.pack(length))
        self._output.change(self._start, TRANSACTION_HEADER.pack(header.tid, length, STATUS_PACKED, *sizes))
        self._start = 0

    def _copy_transaction(self, window: Window, header: TransactionHeader) -> None:
        append, unpack = self._output.append, DATA_HEADER.unpack_from
        entries: Entries = {}
        position, start = header.records_start, header.position
        append(window.bytes_at(start, position - start))
        while position < header.records_end:
            offset = window.offset(position, DATA_HEADER_SIZE + LENGTH_SIZE)
            oid, tid, previous, transaction, zero, size = unpack(window.data, offset)
            if transaction != start or zero:
                self._fail(position, "no data record of its transaction")
            new_previous = self._moved_previous(oid, previous)
            add_entry(entries, oid, position - self.distance)
            append(DATA_HEADER.pack(oid, tid, new_previous, start - self.distance, 0, size))
            if size:
                append(window.bytes_at(position + DATA_HEADER_SIZE, size))
            else:
                back = LENGTH.unpack_from(window.data, offset + DATA_HEADER_SIZE)[0]
                append(LENGTH.pack(self._moved_back_pointer(back)))
            position += DATA_HEADER_SIZE + (size or LENGTH_SIZE)
        append(LENGTH.pack(header.length))
        if header.status != STATUS_UNDONE:
            self.index.update(entries)

    def _moved_previous(self, oid: Oid, previous: int) -> int:
        if previous >= self._as_of.boundary:
            return previous - self.distance
        # Not yet in the index: what this transaction and, since `previous` is before it, any one behind the boundary
        # wrote of the object.
        return self.index.position(oid) if previous else 0

    def _moved_back_pointer(self, back: int) -> int:
        if back >= self._as_of.boundary:
            return back - self.distance
        return int(self._kept.moved.get(back, 0))

    def _fail(self, position: int, reason: str) -> NoReturn:
        raise FileFormatError(self._reader.path, position, reason)
