"""Reading single data records of Data.fs, from any thread.

Everything here is a positional read of an open descriptor: there is no shared file position and no buffer that could
hold what has been cut off since (lesson B26). The first read of a record takes a page, which has the header and, in the
usual case, all of the data.
"""

import os
from collections.abc import Callable
from struct import error as StructError  # noqa: N812 - struct's exception class, under a class's name
from typing import NamedTuple, NoReturn

from zeo_core.errors import FileFormatError, POSKeyError
from zeo_core.ids import Oid, Tid, oid_repr
from zeo_core.transaction import HistoryEntry, Revision, TransactionMetadata
from zeo_server.storages.file.format import (
    DATA_HEADER,
    DATA_HEADER_SIZE,
    LENGTH,
    LENGTH_SIZE,
    STATUS_OFFSET,
    STATUS_PACKED,
    TRANSACTION_HEADER,
    TRANSACTION_HEADER_SIZE,
)
from zeo_server.storages.file.pagecache import can_tell, pread_cached

__all__ = ["Descriptor", "Pread", "Reader", "RecordHeader"]

_PAGE = 4096  # most records are smaller; a page from the cache costs 0.3 us more than a header alone
_LARGE = 1 << 20
_unpack = DATA_HEADER.unpack_from

Pread = Callable[[int, int, int], bytes]
"""Takes a descriptor, a number of bytes and a position, as os.pread; fewer bytes mean the file's end."""


class Descriptor:
    """Owns a file descriptor, which is closed when the last one who reads through it has let go of this object.

    So closing a storage cannot pull the descriptor, and the number the system gives to the next file, from under a
    load in another thread.
    """

    def __init__(self, path: str, flags: int) -> None:
        """Open `path`; OSError as the system gives it."""
        self.fd = -1
        self.fd = os.open(path, flags | os.O_CLOEXEC, 0o666)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class RecordHeader(NamedTuple):
    """A data record's header; `back` is its back pointer, None if it has data of its own."""

    tid: Tid
    previous: int
    transaction: int
    size: int
    back: int | None


class Reader:
    """Reads the data records of one Data.fs; FileFormatError where the file is not what it has to be."""

    def __init__(self, path: str, descriptor: Descriptor, pread: Pread = os.pread) -> None:
        self.path = path
        self.descriptor = descriptor
        self._pread = pread

    def without_waiting(self) -> "Reader":
        """Return a reader of the same file that raises BlockingIOError where this one would wait for the disk.

        This one itself where the system cannot tell.
        """
        return Reader(self.path, self.descriptor, pread_cached) if can_tell(self.descriptor.fd) else self

    def load_before(self, oid: Oid, tid: Tid, position: int) -> Revision | None:
        """Return the newest revision before `tid`, going back from the record at `position`.

        None if the object did not exist yet, or that revision is packed away; POSKeyError if it was deleted by then.
        """
        fd, pread = self.descriptor.fd, self._pread
        end_tid: Tid | None = None
        while True:
            page = pread(fd, _PAGE, position)
            try:
                found, serial, previous, _, zero, size = _unpack(page)
            except StructError:
                self._fail(position, "the file ends inside a data header")
            if found != oid or zero:
                self._wrong_record(position, oid, found)
            if serial < tid:
                break
            if not previous:
                return None
            self._check_earlier(position, previous)
            end_tid, position = serial, previous
        if not size:
            return Revision(self._repeated_data(oid, position), serial, end_tid)
        data = page[DATA_HEADER_SIZE : DATA_HEADER_SIZE + size]
        if len(data) < size:
            data = self._read(position + DATA_HEADER_SIZE, size)
        return Revision(data, serial, end_tid)

    def tid_at(self, oid: Oid, position: int) -> Tid:
        """Return the tid of the record at `position`."""
        page = self._pread(self.descriptor.fd, DATA_HEADER_SIZE, position)
        if len(page) < DATA_HEADER_SIZE or page[:8] != oid:
            self._wrong_record(position, oid, page[:8])
        return page[8:16]

    def header(self, oid: Oid, position: int) -> RecordHeader:
        """Return the header of the object's record at `position`."""
        page = self._read(position, DATA_HEADER_SIZE)
        found, serial, previous, transaction, zero, size = _unpack(page)
        if found != oid or zero:
            self._wrong_record(position, oid, found)
        if previous:
            self._check_earlier(position, previous)
        if size:
            return RecordHeader(serial, previous, transaction, size, None)
        back = int(LENGTH.unpack(self._read(position + DATA_HEADER_SIZE, LENGTH_SIZE))[0])
        if back:
            self._check_earlier(position, back)
        return RecordHeader(serial, previous, transaction, 0, back)

    def load_serial(self, oid: Oid, tid: Tid, position: int) -> bytes:
        """Return the data that transaction `tid` wrote; POSKeyError if it wrote none."""
        position = self.find(oid, tid, position)
        if not position:
            raise POSKeyError(oid)
        return self.data(oid, position)

    def find(self, oid: Oid, tid: Tid, position: int) -> int:
        """Return where the record that transaction `tid` wrote stands, going back from `position`; 0 if nowhere."""
        while position:
            header = self.header(oid, position)
            if header.tid <= tid:
                return position if header.tid == tid else 0
            position = header.previous
        return 0

    def first_revision(self, oid: Oid, position: int) -> tuple[Tid, bool]:
        """Return the tid of the oldest revision, going back from `position`, and whether its transaction is packed."""
        header = self.header(oid, position)
        while header.previous:
            header = self.header(oid, header.previous)
        return header.tid, self._read(header.transaction + STATUS_OFFSET, 1) == STATUS_PACKED

    def data(self, oid: Oid, position: int) -> bytes:
        """Return the data of the record at `position`, its own or repeated; POSKeyError if it marks a deletion."""
        data = self.stored_data(oid, position)
        if data is None:
            raise POSKeyError(oid)
        return data

    def stored_data(self, oid: Oid, position: int) -> bytes | None:
        """Return the data of the record at `position`, its own or repeated, None if it marks a deletion."""
        source = self.source(oid, position)
        return self._read(source + DATA_HEADER_SIZE, self.header(oid, source).size) if source else None

    def source(self, oid: Oid, position: int) -> int:
        """Return where the record with the data of the one at `position` stands, 0 if that marks a deletion."""
        header = self.header(oid, position)
        while header.back is not None:
            if not header.back:
                return 0
            position = header.back
            header = self.header(oid, position)
        return position

    def revisions(self, oid: Oid, size: int, position: int) -> list[HistoryEntry]:
        """Return up to `size` revisions, newest first, going back from the record at `position`."""
        entries: list[HistoryEntry] = []
        while position and len(entries) < size:
            header = self.header(oid, position)
            entries.append(HistoryEntry(header.tid, self._metadata(header.transaction), self._data_size(oid, header)))
            position = header.previous
        return entries

    def _metadata(self, position: int) -> TransactionMetadata:
        head = self._read(position, TRANSACTION_HEADER_SIZE)
        user, description, extension = TRANSACTION_HEADER.unpack(head)[3:]
        text = self._read(position + TRANSACTION_HEADER_SIZE, user + description + extension)
        return TransactionMetadata(
            text[:user], text[user : user + description], text[user + description : user + description + extension]
        )

    def _repeated_data(self, oid: Oid, position: int) -> bytes:
        # `load_before` is the hot path; records without data are rare and may read their header once more.
        return self.data(oid, position)

    def _data_size(self, oid: Oid, header: RecordHeader) -> int:
        while header.back:
            header = self.header(oid, header.back)
        return header.size

    def _read(self, position: int, size: int) -> bytes:
        if size > _LARGE and position + size > os.fstat(self.descriptor.fd).st_size:
            self._fail(position, f"{size} bytes expected, more than the file has")  # rather than allocate them
        data = self._pread(self.descriptor.fd, size, position)
        if len(data) == size:
            return data
        pieces = [data]  # the system gives at most 2 GiB at a time
        got = len(data)
        while got < size and pieces[-1]:
            pieces.append(self._pread(self.descriptor.fd, size - got, position + got))
            got += len(pieces[-1])
        if got < size:
            self._fail(position, f"{size} bytes expected, the file has {got} more")
        return b"".join(pieces)

    def _check_earlier(self, position: int, pointer: int) -> None:
        # Pointers lead back in the file; one that did not could send a load round in circles.
        if pointer >= position:
            self._fail(position, f"points to an earlier record at {pointer}, which is not earlier")

    def _wrong_record(self, position: int, oid: Oid, found: bytes) -> NoReturn:
        self._fail(position, f"a record of oid {oid_repr(oid)} expected, found {oid_repr(found)}")

    def _fail(self, position: int, reason: str) -> NoReturn:
        raise FileFormatError(self.path, position, reason)
