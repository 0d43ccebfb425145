"""Writing a whole new Data.fs, transaction by transaction with the tids they have: for copies and for salvage.

The file is built under another name, `.part` appended, and takes its own when it is complete and on disk, so that a
work that is cut short leaves nothing that looks like a database. There is no sync for each transaction, as FileStorage
has. What is left of a copy can be gone on with.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Self

from zeo_core.errors import FileFormatError, FileLockedError, StorageError
from zeo_core.ids import ZERO_TID, Oid, Tid, tid_repr, unpack_id
from zeo_core.transaction import RecordedObject, RecordedTransaction, TransactionMetadata
from zeo_server.storages import durable
from zeo_server.storages.faults import failure
from zeo_server.storages.file.format import (
    DATA_HEADER,
    LENGTH,
    MAGIC,
    MAGIC_SIZE,
    TRANSACTION_HEADER,
    TRANSACTION_HEADER_SIZE,
)
from zeo_server.storages.file.log import Log, Window
from zeo_server.storages.file.numbers import Numbers
from zeo_server.storages.file.reader import Descriptor, Reader
from zeo_server.storages.file.recover import record_positions
from zeo_server.storages.file.walk import Damage, Walk, open_reader

__all__ = ["FreshFile", "refuse_existing"]

_BLOCK_BYTES = 4 << 20


def refuse_existing(path: str) -> None:
    """Raise StorageError if there is a file at `path`: none of the tools writes over a database."""
    if os.path.lexists(path):
        raise StorageError(f"{path}: exists already, and is not written over")


class FreshFile:
    """A Data.fs in the making. A context manager: leaving it without `complete` removes what was written.

    With `keep` it stays under its other name, and one that is there is gone on with, behind its last whole transaction.
    """

    def __init__(self, path: str, *, keep: bool = False) -> None:
        """Begin the file that is to be `path`; StorageError if that exists."""
        refuse_existing(path)
        self._path = path
        self._temporary = path + ".part"
        self._keep = keep
        self._complete = False
        self._descriptor = self._create()
        try:
            fcntl.flock(self._descriptor.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise FileLockedError(self._temporary) from None
        self._reader = Reader(self._temporary, self._descriptor)
        self._positions = Numbers()
        self._pieces: list[bytes] = [MAGIC]
        self._waiting = self._end = MAGIC_SIZE
        self._flushes = 0
        self._last_tid = ZERO_TID
        if not keep:
            os.ftruncate(self._descriptor.fd, 0)
        elif os.fstat(self._descriptor.fd).st_size:
            self._go_on()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._complete:
            return
        if self._keep and self._last_tid != ZERO_TID:
            with suppress(StorageError):  # a full disk, perhaps: there is less to go on with then
                self._flush()
        elif os.path.exists(self._temporary):
            os.unlink(self._temporary)

    def last_tid(self) -> Tid:
        """Return the tid of the last transaction so far."""
        return self._last_tid

    def transactions(self) -> Iterator[RecordedTransaction]:
        """Walk the transactions so far."""
        self._flush()
        return Log(self._reader, self._end).transactions(None, None)

    @property
    def size(self) -> int:
        """How many bytes the file has so far."""
        return self._end

    def add(self, tid: Tid, status: bytes, metadata: TransactionMetadata, records: Iterable[RecordedObject]) -> int:
        """Add a transaction and return how many records it has; StorageError if its tid is not later than the last."""
        if tid <= self._last_tid:
            raise StorageError(f"{self._path}: tid {tid_repr(tid)} is not later than {tid_repr(self._last_tid)}")
        start, header_at, flushes, written = self._end, len(self._pieces), self._flushes, list[tuple[Oid, int]]()
        head = metadata.user + metadata.description + metadata.extension
        self._append(bytes(TRANSACTION_HEADER_SIZE))
        self._append(head)
        for record in records:
            written.append((record.oid, self._end))
            self._append_record(record, tid, start)
            if self._waiting > _BLOCK_BYTES:
                self._flush()
        length = self._end - start
        self._append(LENGTH.pack(length))
        sizes = (len(metadata.user), len(metadata.description), len(metadata.extension))
        header = TRANSACTION_HEADER.pack(tid, length, status, *sizes)
        if self._flushes == flushes:
            self._pieces[header_at] = header
        else:
            self._write(header, start)
        for oid, position in written:
            self._positions.set(unpack_id(oid), position)
        self._last_tid = tid
        return len(written)

    def complete(self) -> None:
        """Bring the file to disk and give it its name."""
        self._flush()
        try:
            durable.sync_file(self._descriptor.fd)
            durable.replace_file(self._temporary, self._path)
            self._complete = True
        except OSError as error:
            raise failure(self._path, error) from error

    def _append_record(self, record: RecordedObject, tid: Tid, start: int) -> None:
        oid, data = record.oid, record.data
        previous = self._positions.get(unpack_id(oid))
        back = self._repeated(record, previous) if data is not None and record.data_tid is not None else 0
        if data is None or back:
            self._append(DATA_HEADER.pack(oid, tid, previous, start, 0, 0) + LENGTH.pack(back))
        else:
            self._append(DATA_HEADER.pack(oid, tid, previous, start, 0, len(data)))
            self._append(data)

    def _repeated(self, record: RecordedObject, position: int) -> int:
        """Return where the record stands whose data this one repeats, 0 if it is not here or has other data."""
        if position >= self._end - self._waiting:
            self._flush()
        while position:
            header = self._reader.header(record.oid, position)
            if header.tid == record.data_tid and header.back != 0:
                # Lesson B30: a back pointer is only used if the data are equal.
                return position if self._reader.data(record.oid, position) == record.data else 0
            position = header.previous
        return 0

    def _append(self, data: bytes) -> None:
        self._pieces.append(data)
        self._waiting += len(data)
        self._end += len(data)

    def _flush(self) -> None:
        self._write(b"".join(self._pieces), self._end - self._waiting)
        self._pieces, self._waiting = [], 0
        self._flushes += 1

    def _write(self, data: bytes, position: int) -> None:
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(self._descriptor.fd, data[done:] if done else data, position + done)
        except OSError as error:
            raise failure(self._temporary, error) from error

    def _go_on(self) -> None:
        """Take what is there up to where whole transactions end, and cut off the rest."""
        self._pieces, self._waiting = [], 0
        window = Window(self._descriptor, os.fstat(self._descriptor.fd).st_size)
        for part in Walk(open_reader(self._temporary)).parts():
            if isinstance(part, Damage) or part.tid <= self._last_tid:
                break
            try:
                entries = record_positions(self._temporary, window, part)
            except FileFormatError:
                break
            for prefix, positions in entries.items():
                for suffix, position in positions.items():
                    self._positions.set(unpack_id(prefix + suffix), int.from_bytes(position))
            self._end, self._last_tid = part.end, part.tid
        os.ftruncate(self._descriptor.fd, self._end)

    def _create(self) -> Descriptor:
        try:
            return Descriptor(self._temporary, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise failure(self._temporary, error) from error
