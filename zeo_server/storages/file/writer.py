"""Appending groups of transactions to Data.fs.

A group is on disk in four steps: append everything with the status "c"; sync; mark each transaction finished, one byte
each, in order; sync. Blobs go to their places between the second step and the third. Whatever a power cut leaves of
this, in whatever order the system wrote the pages, recovery finds either finished transactions whose every byte was
synced before they were marked, or a tail without any finished transaction, which it may cut off. Marking all of a
group, not only its first, is what tells such a tail from damage.

The first two steps may be done beforehand for a transaction that has voted: it will probably be the next group. If
another one comes first, what was appended is taken back.

Nothing here is seen by readers before it is published: they find records only through the index.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from zeo_core.errors import StorageClosedError
from zeo_core.ids import Oid, Tid
from zeo_core.transaction import ObjectWrite, PreparedTransaction, SpooledData
from zeo_server.histogram import SECONDS, Histogram
from zeo_server.storages import durable
from zeo_server.storages.faults import failure
from zeo_server.storages.file.format import (
    DATA_HEADER,
    DATA_HEADER_SIZE,
    LENGTH,
    LENGTH_SIZE,
    STATUS_OFFSET,
    STATUS_UNFINISHED,
    TRANSACTION_HEADER,
    TRANSACTION_HEADER_SIZE,
)
from zeo_server.storages.file.index import Entries, Index
from zeo_server.storages.file.reader import Descriptor
from zeo_server.storages.file.room import Room
from zeo_server.storages.local import tid_for

__all__ = ["FileGroup", "FindRepeated", "Place", "Writer", "lay_out"]

FindRepeated = Callable[[ObjectWrite], int]
"""Returns where the record stands whose data a write says it repeats, 0 if that is not so."""

Place = Callable[[Sequence[Tid]], None]
"""Puts the blobs of transactions with these tids where they belong; an error leaves none of them there."""

_BLOCK_BYTES = 8 << 20  # a group of small transactions is one write; a huge one is not held in memory a second time


class FileGroup(NamedTuple):
    """A written group: what publishing needs."""

    tids: Sequence[Tid]
    oids: Sequence[tuple[Oid, ...]]
    entries: Entries
    end: int


class _Layout(NamedTuple):
    """A group ready to be appended: its bytes, what marks each transaction as finished, what to publish afterwards.

    Pieces that are spooled are read when they are written, so that a large group is never in memory.
    """

    pieces: list[bytes | SpooledData]
    marks: list[tuple[int, bytes]]
    group: FileGroup


def _no_repeats(_write: ObjectWrite) -> int:
    return 0


def _no_blobs(_tids: Sequence[Tid]) -> None:
    pass


def lay_out(
    transactions: Sequence[PreparedTransaction],
    position: int,
    last_tid: Tid,
    now_s: float,
    index: Index,
    repeated: FindRepeated = _no_repeats,
) -> _Layout:
    """Give tids to the transactions and arrange their bytes to be appended at `position`."""
    pieces: list[bytes | SpooledData] = []
    marks: list[tuple[int, bytes]] = []
    tids: list[Tid] = []
    entries: Entries = {}
    for transaction in transactions:
        last_tid = tid_for(transaction, last_tid, now_s)
        tids.append(last_tid)
        marks.append((position + STATUS_OFFSET, transaction.status))
        position = _lay_out_one(transaction, position, last_tid, index, repeated, pieces, entries)
    oids = [tuple([write.oid for write in transaction.writes]) for transaction in transactions]
    return _Layout(pieces, marks, FileGroup(tids, oids, entries, position))


def _lay_out_one(
    transaction: PreparedTransaction,
    start: int,
    tid: Tid,
    index: Index,
    repeated: FindRepeated,
    pieces: list[bytes | SpooledData],
    entries: Entries,
) -> int:
    """Add one transaction's bytes to `pieces` and its records to `entries`; return where the next one starts."""
    user, description, extension = (
        transaction.metadata.user,
        transaction.metadata.description,
        transaction.metadata.extension,
    )
    header_at = len(pieces)
    pieces.append(b"")  # the header needs the length, which is known at the end
    position = start + TRANSACTION_HEADER_SIZE + len(user) + len(description) + len(extension)
    # The loop of a transaction with 10,000 objects: local names, and `add_entry` written out.
    append, pack, find, prefix, positions = pieces.append, DATA_HEADER.pack, index.position, b"", entries
    for write in transaction.writes:
        oid, _, data, data_tid, _ = write
        if data is None or data_tid is not None:
            data, size = _pointed(write, repeated)
        else:
            size = len(data)
        append(pack(oid, tid, find(oid), start, 0, size))
        append(data)
        if oid[:6] != prefix:
            prefix = oid[:6]
            bucket = positions.setdefault(prefix, {})
        bucket[oid[6:]] = position.to_bytes(6, "big")
        position += DATA_HEADER_SIZE + len(data)
    length = position - start
    sizes = (len(user), len(description), len(extension))
    header = TRANSACTION_HEADER.pack(tid, length, STATUS_UNFINISHED, *sizes)
    pieces[header_at] = header + user + description + extension
    append(LENGTH.pack(length))
    return position + LENGTH_SIZE


def _pointed(write: ObjectWrite, repeated: FindRepeated) -> tuple[bytes | SpooledData, int]:
    """Return what follows the data header of a deletion or of repeated data, and the length that the header gives."""
    if write.data is None:
        return LENGTH.pack(0), 0
    back = repeated(write)
    return (LENGTH.pack(back), 0) if back else (write.data, len(write.data))


class Writer:
    """Appends to one Data.fs; used by one thread at a time."""

    def __init__(
        self,
        path: str,
        descriptor: Descriptor,
        end: int,
        last_tid: Tid,
        room: Room | None = None,
        syncs: Histogram | None = None,
    ) -> None:
        """Append at `end`, with tids later than `last_tid`; `room` is what is taken of the disk behind it already.

        `syncs` is told how long each sync takes.
        """
        self._path = path
        self._descriptor = descriptor
        self._end = end
        self._last_tid = last_tid
        self._refusal = ""
        self._anticipated: tuple[PreparedTransaction, _Layout] | None = None  # appended and synced, not finished
        self.room = room or Room(path, descriptor, end)
        """What votes ask for room behind the end."""
        self.syncs = syncs or Histogram(SECONDS)
        """How long bringing to disk has taken, in seconds."""

    def write(
        self,
        transactions: Sequence[PreparedTransaction],
        index: Index,
        repeated: FindRepeated = _no_repeats,
        place: Place = _no_blobs,
    ) -> FileGroup:
        """Append a group and bring it to disk, with its blobs, which `place` brings there.

        StorageError when that fails. If the file could be brought back to what it was, the writer can be used again;
        otherwise it refuses all further work with StorageClosedError.
        """
        layout = self._take_anticipated(transactions)
        if layout is None:
            layout = self._append(transactions, index, repeated)
        self._place(place, layout.group.tids)
        self._sync(layout.marks)
        self._end = layout.group.end
        self._last_tid = layout.group.tids[-1] if layout.group.tids else self._last_tid
        return layout.group

    def anticipate(self, transaction: PreparedTransaction, index: Index, repeated: FindRepeated = _no_repeats) -> None:
        """Append what will probably be the next group and bring it to disk, unfinished; StorageError as in `write`."""
        self._take_anticipated(())
        self._anticipated = transaction, self._append([transaction], index, repeated)

    def _take_anticipated(self, transactions: Sequence[PreparedTransaction]) -> _Layout | None:
        """Return what is on disk already of this very group, None if nothing is; something else is taken back."""
        if self._refusal:
            raise StorageClosedError(self._refusal)
        if self._anticipated is None:
            return None
        transaction, layout = self._anticipated
        self._anticipated = None
        if len(transactions) == 1 and transactions[0] is transaction:
            return layout
        self._cut_back()
        if self._refusal:
            raise StorageClosedError(self._refusal)
        return None

    @property
    def end(self) -> int:
        """Where the last transaction on disk ends; StorageClosedError if nobody can say."""
        if self._refusal:
            raise StorageClosedError(self._refusal)
        return self._end

    @property
    def last_tid(self) -> Tid:
        """The tid of the last transaction on disk."""
        return self._last_tid

    def close(self, reason: str) -> None:
        """Refuse further work, giving `reason`."""
        self._refusal = self._refusal or reason

    def leave(self) -> None:
        """Give back the room behind the end; the file is whole without that, so a failure changes nothing."""
        if not self._refusal:  # otherwise nobody knows what is there, and the next opening finds out
            with suppress(OSError):
                self.room.give_back(self._end)

    def _append(self, transactions: Sequence[PreparedTransaction], index: Index, repeated: FindRepeated) -> _Layout:
        """Append a group, not yet finished, and bring it to disk."""
        layout = lay_out(transactions, self._end, self._last_tid, time.time(), index, repeated)
        try:
            position = self._end
            for block in _blocks(layout.pieces):
                position = self._write_at(block, position)
        except BaseException as error:
            self._cut_back()
            if isinstance(error, OSError):
                raise failure(self._path, error) from error
            raise
        layout.pieces.clear()  # not to be held in memory while an anticipated one waits
        self._sync()
        return layout

    def _cut_back(self) -> None:
        """Take back what was appended since the last group."""
        try:
            self.room.cut_back(self._end)
        except OSError as error:
            self.close(f"{self._path}: a failed write could not be taken back ({error.strerror})")

    def _place(self, place: Place, tids: Sequence[Tid]) -> None:
        """Let the blobs go to their places, while a crash still leaves records by which they are found (blobs.py)."""
        try:
            place(tids)
        except BaseException:
            self._cut_back()
            raise

    def _sync(self, marks: Sequence[tuple[int, bytes]] = ()) -> None:
        """Bring what was appended to disk, or the marks that finish it. A failure is taken for the end.

        After a failed sync nobody knows what is on disk, and a second sync would not tell: that is the end of writing
        (lesson B28). What was appended is taken back as far as the system lets it, since its committers are told that
        it failed; whether that reaches the disk, the next opening of the file finds out.
        """
        try:
            for position, status in marks:
                self._write_at(status, position)
            start_s = time.perf_counter()
            durable.sync_data(self._descriptor.fd)
            self.syncs.observe(time.perf_counter() - start_s)
        except BaseException as error:
            self.close(f"{self._path}: closed to writes, since a commit failed on its way to disk ({error})")
            self._cut_back()
            if isinstance(error, OSError):
                raise failure(self._path, error) from error
            raise

    def _write_at(self, data: bytes, position: int) -> int:
        """Write all of `data` and return the position after it."""
        written = os.pwrite(self._descriptor.fd, data, position)
        while written < len(data):  # the disk fills up, or more than 2 GiB
            written += os.pwrite(self._descriptor.fd, data[written:], position + written)
        return position + written


def _blocks(pieces: list[bytes | SpooledData]) -> Iterator[bytes]:
    """Walk the pieces joined to blocks of about _BLOCK_BYTES: usually one."""
    start = size = 0
    for number, piece in enumerate(pieces):
        size += len(piece)
        if size > _BLOCK_BYTES:
            yield _joined(pieces[start : number + 1])
            start, size = number + 1, 0
    yield _joined(pieces[start:])


def _joined(pieces: list[bytes | SpooledData]) -> bytes:
    return b"".join([piece if isinstance(piece, bytes) else piece.read() for piece in pieces])
