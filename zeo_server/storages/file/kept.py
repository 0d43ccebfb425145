"""Which records a pack keeps: garbage collection on a Data.fs, without a class imported and without an object per oid.

Kept of the records before the boundary (asof.py) are:

    the current record of each object that can be reached from the root,
    the current record of each object that any record behind the boundary refers to, or is a revision of, and all that
    can be reached from these: an object that was out of use at the pack time may have been put to use again since, and
    nothing but the reference of a later record tells so (lesson B31; ZODB loses such objects),
    the records to which back pointers of later records lead.

Without garbage collection it is the current records of all objects, and the last of these three.

What is kept is a sorted set of positions, 8 bytes each and some room to grow; what is still to be read, an array.
"""

import os
from array import array
from collections.abc import Iterable, Iterator
from typing import NoReturn

from BTrees.LLBTree import LLBTree, LLTreeSet
from BTrees.QQBTree import QQTreeSet

from zeo_core.errors import FileFormatError, RecordFormatError, StorageError
from zeo_core.ids import ROOT_OID, Oid, oid_repr, unpack_id
from zeo_core.record import references
from zeo_server.storages.file.asof import AsOf
from zeo_server.storages.file.format import DATA_HEADER, DATA_HEADER_SIZE, LENGTH, LENGTH_SIZE
from zeo_server.storages.file.log import TransactionHeader, Window
from zeo_server.storages.file.reader import Reader

__all__ = ["Kept"]

_PAGE = 4096
_BATCH = 8192  # positions that are read in order, which spares a disk most of its seeks


class Kept:
    """The records before the boundary that a pack keeps."""

    def __init__(self, reader: Reader, as_of: AsOf, *, gc: bool) -> None:
        self._reader = reader
        self._current = as_of.current
        self._boundary = as_of.boundary
        self.gc = gc
        self.positions = LLTreeSet()
        self.byte_count = 0
        self.moved = LLBTree()
        """Where those records go that back pointers from behind the boundary lead to; 0 until they are copied."""
        self.changed = False
        """Whether something was added that a copy made before does not have."""
        self._later = QQTreeSet()  # the objects with records behind the boundary
        self._unread = array("Q")

    def add_roots(self) -> None:
        """Begin: with the root or, without garbage collection, with everything."""
        if not self.gc:
            self.positions.update(self._current.positions())
            return
        position = self._current.position(ROOT_OID)
        if position:
            self._keep(position)
        elif len(self._current):
            self._refuse("there is no root object at the pack time, so that nothing could be reached")

    def examine(self, window: Window, header: TransactionHeader) -> None:
        """Keep what a transaction behind the boundary needs."""
        records = list(self._records(window, header))
        # First all oids: objects made in one transaction refer to each other.
        self._later.update(unpack_id(oid) for oid, _, _ in records)
        for oid, position, size in records:
            current = self._current.position(oid)
            if current:
                self._keep(current)
            if not size:
                self._examine_back_pointer(window, oid, position)
            if self.gc:
                data = (
                    window.bytes_at(position + DATA_HEADER_SIZE, size)
                    if size
                    else self._reader.stored_data(oid, position)
                )
                if data is not None:
                    self._follow(oid, position, self._references(oid, position, data))

    def is_later(self, oid: Oid) -> bool:
        """Tell whether there are records of an object with this oid, or a higher one, behind the boundary."""
        return bool(self._later) and int(self._later.maxKey()) >= unpack_id(oid)

    def mark(self) -> Iterator[int]:
        """Follow the references of what is kept, and keep what they lead to; yields the bytes of what was read."""
        fd, unpack, unread = self._reader.descriptor.fd, DATA_HEADER.unpack_from, self._unread
        done = 0
        while unread:
            batch = sorted(unread[-_BATCH:])
            del unread[-_BATCH:]
            for position in batch:
                page = os.pread(fd, _PAGE, position)
                if len(page) < DATA_HEADER_SIZE:
                    raise FileFormatError(self._reader.path, position, "the file ends inside a data header")
                oid, _, _, _, _, size = unpack(page)
                data = page[DATA_HEADER_SIZE : DATA_HEADER_SIZE + size]
                if not size or len(data) < size:
                    whole = self._reader.stored_data(oid, position)
                    if whole is None:
                        self._check_deleted(oid)
                        continue
                    data = whole
                done += DATA_HEADER_SIZE + len(data)
                self._follow(oid, position, self._references(oid, position, data))
            yield done
        self.byte_count += done

    def _keep(self, position: int) -> None:
        if self.positions.insert(position):
            self.changed = True
            if self.gc:
                self._unread.append(position)

    def _follow(self, referrer: Oid, position: int, oids: Iterable[Oid]) -> None:
        find, insert, unread = self._current.position, self.positions.insert, self._unread
        for oid in oids:
            found = find(oid)
            if found:
                if insert(found):
                    self.changed = True
                    unread.append(found)
            elif unpack_id(oid) not in self._later:
                self._refuse(
                    f"the object {oid_repr(referrer)} refers, in its record at byte {position}, to {oid_repr(oid)}, "
                    "which is not there"
                )

    def _references(self, oid: Oid, position: int, data: bytes) -> list[Oid]:
        try:
            return references(data)
        except RecordFormatError as error:
            raise RecordFormatError(
                f"{self._reader.path}: the references of the object {oid_repr(oid)} cannot be read from its record at "
                f"byte {position}: {error}; nothing was packed. Packing without garbage collection is possible"
            ) from error

    def _check_deleted(self, oid: Oid) -> None:
        """Refuse a deleted object that something refers to; one that is there again behind the boundary is none."""
        if unpack_id(oid) not in self._later:
            self._refuse(f"the object {oid_repr(oid)} is deleted, but referred to")

    def _refuse(self, reason: str) -> NoReturn:
        raise StorageError(
            f"{self._reader.path}: {reason}; nothing was packed. Packing without garbage collection is possible"
        )

    def _examine_back_pointer(self, window: Window, oid: Oid, position: int) -> None:
        back = LENGTH.unpack(window.bytes_at(position + DATA_HEADER_SIZE, LENGTH_SIZE))[0]
        if back and back < self._boundary and self._reader.source(oid, back):
            self._keep(back)
            if back not in self.moved:
                self.moved[back] = 0
                self.changed = True

    def _records(self, window: Window, header: TransactionHeader) -> Iterator[tuple[Oid, int, int]]:
        """Walk the oids, positions and data lengths of a transaction's records."""
        position, end = header.records_start, header.records_end
        while position < end:
            head = window.bytes_at(position, DATA_HEADER_SIZE)
            oid, _, _, transaction, zero, size = DATA_HEADER.unpack(head)
            next_position = position + DATA_HEADER_SIZE + (size or LENGTH_SIZE)
            if transaction != header.position or zero or next_position > end:
                raise FileFormatError(self._reader.path, position, "no data record of its transaction")
            yield oid, position, size
            position = next_position
