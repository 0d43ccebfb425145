"""Appending groups of transactions to Data.fs.

A group is on disk in four steps: append everything with the status "c"; sync; mark each transaction finished, one byte
each, in order; sync. Whatever a power cut leaves of this, in whatever order the system wrote the pages, recovery finds
either finished transactions whose every byte was synced before they were marked, or a tail without any finished
transaction, which it may cut off. Marking all of a group, not only its first, is what tells such a tail from damage.

Nothing here is seen by readers before it is published: they find records only through the index.
"""

import errno
import os
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from zeo_core.errors import StorageClosedError, StorageError, StorageFullError
from zeo_core.ids import Oid, Tid, next_tid
from zeo_core.transaction import PreparedTransaction
from zeo_server.storages import durable
from zeo_server.storages.file.format import (
    DATA_HEADER,
    DATA_HEADER_SIZE,
    LENGTH,
    LENGTH_SIZE,
    STATUS_FINISHED,
    STATUS_OFFSET,
    STATUS_UNFINISHED,
    TRANSACTION_HEADER,
    TRANSACTION_HEADER_SIZE,
)
from zeo_server.storages.file.index import Entries, Index
from zeo_server.storages.file.reader import Descriptor

__all__ = ["FileGroup", "Writer", "failure", "lay_out"]

_BLOCK_BYTES = 8 << 20  # a group of small transactions is one write; a huge one is not held in memory a second time
_FULL = {errno.ENOSPC, errno.EDQUOT}


class FileGroup(NamedTuple):
    """A written group: what publishing needs."""

    tids: Sequence[Tid]
    oids: Sequence[tuple[Oid, ...]]
    entries: Entries
    end: int


class _Layout(NamedTuple):
    """A group ready to be appended: its bytes, where its transactions start, and what to publish afterwards."""

    pieces: list[bytes]
    starts: list[int]
    group: FileGroup


def failure(path: str, error: OSError) -> StorageError:
    """Return the error that tells of a failed call on the file at `path`."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return StorageFullError(path, reason)
    return StorageError(f"{path}: {reason}")


def lay_out(
    transactions: Sequence[PreparedTransaction], position: int, last_tid: Tid, now_s: float, index: Index
) -> _Layout:
    """Give tids to the transactions and arrange their bytes to be appended at `position`."""
    pieces: list[bytes] = []
    starts: list[int] = []
    tids: list[Tid] = []
    entries: Entries = {}
    for transaction in transactions:
        last_tid = next_tid(last_tid, now_s)
        tids.append(last_tid)
        starts.append(position)
        position = _lay_out_one(transaction, position, last_tid, index, pieces, entries)
    oids = [tuple([write.oid for write in transaction.writes]) for transaction in transactions]
    return _Layout(pieces, starts, FileGroup(tids, oids, entries, position))


def _lay_out_one(
    transaction: PreparedTransaction, start: int, tid: Tid, index: Index, pieces: list[bytes], entries: Entries
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
    for oid, _, data in transaction.writes:
        size = len(data)
        append(pack(oid, tid, find(oid), start, 0, size))
        append(data)
        if oid[:6] != prefix:
            prefix = oid[:6]
            bucket = positions.setdefault(prefix, {})
        bucket[oid[6:]] = position.to_bytes(6, "big")
        position += DATA_HEADER_SIZE + size
    length = position - start
    sizes = (len(user), len(description), len(extension))
    header = TRANSACTION_HEADER.pack(tid, length, STATUS_UNFINISHED, *sizes)
    pieces[header_at] = header + user + description + extension
    append(LENGTH.pack(length))
    return position + LENGTH_SIZE


class Writer:
    """Appends to one Data.fs; used by one thread at a time."""

    def __init__(self, path: str, descriptor: Descriptor, end: int, last_tid: Tid) -> None:
        """Append at `end`, with tids later than `last_tid`."""
        self._path = path
        self._descriptor = descriptor
        self._end = end
        self._last_tid = last_tid
        self._refusal = ""

    def write(self, transactions: Sequence[PreparedTransaction], index: Index) -> FileGroup:
        """Append a group and bring it to disk.

        StorageError when that fails. If the file could be brought back to what it was, the writer can be used again;
        otherwise it refuses all further work with StorageClosedError.
        """
        if self._refusal:
            raise StorageClosedError(self._refusal)
        layout = lay_out(transactions, self._end, self._last_tid, time.time(), index)
        self._append(layout.pieces)
        self._finish(layout.starts)
        self._end = layout.group.end
        self._last_tid = layout.group.tids[-1] if layout.group.tids else self._last_tid
        return layout.group

    def close(self, reason: str) -> None:
        """Refuse further work, giving `reason`."""
        self._refusal = self._refusal or reason

    def _append(self, pieces: list[bytes]) -> None:
        try:
            position = self._end
            for block in _blocks(pieces):
                position = self._write_at(block, position)
        except BaseException as error:
            self._cut_back()
            if isinstance(error, OSError):
                raise failure(self._path, error) from error
            raise

    def _cut_back(self) -> None:
        """Take back what was appended since the last group."""
        try:
            os.ftruncate(self._descriptor.fd, self._end)
        except OSError as error:
            self.close(f"{self._path}: a failed write could not be taken back ({error.strerror})")

    def _finish(self, starts: list[int]) -> None:
        """Bring what was appended to disk, then mark it finished, then bring that to disk.

        After a failed sync nobody knows what is on disk, and a second sync would not tell: that is the end of writing
        (lesson B28). What was appended is taken back as far as the system lets it, since its committers are told that
        it failed; whether that reaches the disk, the next opening of the file finds out.
        """
        try:
            durable.sync_data(self._descriptor.fd)
            for start in starts:
                self._write_at(STATUS_FINISHED, start + STATUS_OFFSET)
            durable.sync_data(self._descriptor.fd)
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


def _blocks(pieces: list[bytes]) -> Iterator[bytes]:
    """Walk the pieces joined to blocks of about _BLOCK_BYTES: usually one."""
    start = size = 0
    for number, piece in enumerate(pieces):
        size += len(piece)
        if size > _BLOCK_BYTES:
            yield b"".join(pieces[start : number + 1])
            start, size = number + 1, 0
    yield b"".join(pieces[start:])
