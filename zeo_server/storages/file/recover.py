"""Opening Data.fs: the saved index if it can be trusted, a scan of what it does not cover, the cutting of a torn tail.

The rule about tails: bytes at the end that make no finished transaction are cut off, and kept in a file beside
(`.tr0`, `.tr1`, ... as ZODB names them). A transaction with a finished status whose lengths agree is never cut off, nor
is anything before such a transaction: that is damage, reported as a FileFormatError, and somebody's to look at
(lesson B29).
"""

import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from zeo_core.errors import FileFormatError
from zeo_core.ids import ROOT_OID, ZERO_TID, Oid, Tid, oid_repr, tid_from_time, tid_repr
from zeo_server.storages import durable
from zeo_server.storages.file.format import (
    DATA_HEADER,
    DATA_HEADER_SIZE,
    FINISHED_STATUSES,
    LENGTH_SIZE,
    MAGIC,
    MAGIC_SIZE,
    MAGICS,
    STATUS_UNDONE,
    STATUS_UNFINISHED,
    TRANSACTION_HEADER_SIZE,
)
from zeo_server.storages.file.index import Entries, Index
from zeo_server.storages.file.log import Log, TransactionHeader, Window, parse_header
from zeo_server.storages.file.reader import Descriptor, Reader

__all__ = ["BeforeCut", "Contents", "read_contents", "record_positions"]

logger = logging.getLogger(__name__)

BeforeCut = Callable[[Reader, int], None]
"""Called before the bytes of a file from a position on are cut off."""

_CHECKED_RECORDS = 100  # how many records a saved index is tried on before it is believed
_CHECKED_LAST = 1000  # and how many of the last transaction's are looked at in any case
_SEARCH_BYTES = 1 << 20
_CLOCK_SLACK_S = 60


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a file: up to `end`, with `scanned` bytes of it not described by the saved index."""

    index: Index
    end: int
    last_tid: Tid
    scanned: int


class _Tail(NamedTuple):
    """Where the finished transactions end, and what is wrong with the bytes after it; "" if there are none."""

    end: int
    last_tid: Tid
    fault: str


def read_contents(
    reader: Reader, *, read_only: bool, before_cut: BeforeCut | None = None, stop: Tid | None = None
) -> Contents:
    """Find out what is in the file, and cut off a torn tail unless `read_only`; `before_cut` may look at it first.

    With `stop` the file is taken to end before the first transaction that has this tid or a later one.

    FileFormatError if the file is no Data.fs or is damaged before its end.
    """
    size = os.fstat(reader.descriptor.fd).st_size
    magic = os.pread(reader.descriptor.fd, MAGIC_SIZE, 0)
    if read_only and size < MAGIC_SIZE and MAGIC.startswith(magic):
        return Contents(Index(), MAGIC_SIZE, ZERO_TID, 0)  # another process is about to make it
    if magic not in MAGICS:
        raise FileFormatError(reader.path, 0, f"no Data.fs: it starts with {magic!r}")
    index, start, last_tid = _saved_index(reader, size) or (Index(), MAGIC_SIZE, ZERO_TID)
    if stop is not None and last_tid >= stop:
        index, start, last_tid = Index(), MAGIC_SIZE, ZERO_TID
    tail = _Scan(reader, size, index).run(start, last_tid, stop)
    if tail.fault and not read_only:
        if before_cut is not None:
            before_cut(reader, tail.end)
        _cut(reader, tail, size)
    _check_last(reader, tail.end)
    _warn_of_future(reader.path, tail.last_tid)
    return Contents(index, tail.end, tail.last_tid, tail.end - start)


def _check_last(reader: Reader, end: int) -> None:
    """Look at the records of the last transaction, where damage is most likely; FileFormatError if there is any.

    A record with another oid or tid than it was written with would show a part of the transaction only. That its
    pointers lead to records of its object tells most of such damage; there is no checksum in a Data.fs.
    """
    header = next(Log(reader, end).headers_backwards(), None)
    if header is None or header.status == STATUS_UNDONE:
        return
    position = header.records_start
    for _ in range(_CHECKED_LAST):
        if position >= header.records_end:
            return
        oid = os.pread(reader.descriptor.fd, len(ROOT_OID), position)
        record = reader.header(oid, position)
        if record.tid != header.tid:
            raise FileFormatError(reader.path, position, "a record with another tid than its transaction's")
        if record.size == LENGTH_SIZE and reader.data(oid, position).startswith(bytes(2)):
            raise FileFormatError(reader.path, position, "a record whose data are a back pointer")
        for pointer in filter(None, (record.previous, record.back)):
            try:
                reader.header(oid, pointer)
            except FileFormatError as error:
                reason = f"a record of oid {oid_repr(oid)} points to byte {pointer}, which has none of it"
                raise FileFormatError(reader.path, position, reason) from error
        position += DATA_HEADER_SIZE + (record.size or LENGTH_SIZE)


def _warn_of_future(path: str, last_tid: Tid) -> None:
    if last_tid > tid_from_time(time.time() + _CLOCK_SLACK_S):
        logger.warning("%s: its last transaction is from the future: %s", path, tid_repr(last_tid))


def _saved_index(reader: Reader, size: int) -> tuple[Index, int, Tid] | None:
    """Return the saved index, its end and the last tid before that, or None if it is missing or not to be trusted."""
    path = reader.path + ".index"
    try:
        index, end = Index.load(path)
        last_tid = _check_index(reader, size, index, end)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, FileFormatError) as error:
        logger.warning("%s: not used, the whole of %s is scanned: %s", path, reader.path, error)
        return None
    return index, end, last_tid


def _check_index(reader: Reader, size: int, index: Index, end: int) -> Tid:
    """Return the last tid before `end`; ValueError or FileFormatError if the index is another file's."""
    if not MAGIC_SIZE <= end <= size:
        raise ValueError(f"it ends at byte {end}, the file at {size}")
    for oid, position in index.samples(_CHECKED_RECORDS):
        if not MAGIC_SIZE < position < end:
            raise ValueError(f"it has a record at byte {position}")
        reader.header(oid, position)
    window = Window(reader.descriptor, end)
    last_tid = ZERO_TID
    seen: set[Oid] = set()
    for header in Log(reader, end).headers_backwards():
        last_tid = max(last_tid, header.tid)
        if header.status == STATUS_UNDONE:
            continue
        # The last transactions are where an index of an earlier or later state is wrong.
        for prefix, suffixes in record_positions(reader.path, window, header).items():
            for suffix, packed in suffixes.items():
                oid, position = prefix + suffix, int.from_bytes(packed, "big")
                if oid not in seen and index.position(oid) != position:
                    raise ValueError(f"its record of oid {oid_repr(oid)} is not the one at byte {position}")
                seen.add(oid)
        if len(seen) >= _CHECKED_RECORDS:
            break
    return last_tid


def record_positions(path: str, window: Window, header: TransactionHeader) -> Entries:
    """Return where the records of a transaction stand; FileFormatError if they do not fill it exactly."""
    entries: Entries = {}
    prefix, bucket = b"", dict[bytes, bytes]()
    unpack, start = DATA_HEADER.unpack_from, header.position
    position, end = header.records_start, header.records_end
    while position < end:
        # `Window.offset` written out: this is the loop of a start without index.
        offset = position - window.start
        if offset < 0 or offset + DATA_HEADER_SIZE > len(window.data):
            offset = window.offset(position, DATA_HEADER_SIZE)
        if position + DATA_HEADER_SIZE + 1 > end:
            raise FileFormatError(path, position, "the transaction ends inside a data header")
        oid, _, _, transaction, zero, size = unpack(window.data, offset)
        if transaction != start or zero:
            raise FileFormatError(path, position, f"no data record of the transaction at byte {start}")
        if oid[:6] != prefix:
            prefix = oid[:6]
            bucket = entries.setdefault(prefix, {})
        bucket[oid[6:]] = position.to_bytes(6, "big")
        position += DATA_HEADER_SIZE + (size or LENGTH_SIZE)
    if position != end:
        raise FileFormatError(path, start, f"its records end at byte {position}, the transaction at {end}")
    return entries


class _Scan:
    """Walks the transactions that the index does not know yet and adds them."""

    def __init__(self, reader: Reader, size: int, index: Index) -> None:
        self._path = reader.path
        self._descriptor = reader.descriptor
        self._window = Window(reader.descriptor, size)
        self._size = size
        self._index = index

    def run(self, position: int, last_tid: Tid, stop: Tid | None = None) -> _Tail:
        """Add everything from `position` on to the index, up to the end, a torn tail or the tid `stop`."""
        while position < self._size:
            header = self._header(position)
            fault = self._fault(position, header)
            if fault or header is None:
                self._check_tail(position, last_tid, header, fault)
                return _Tail(position, last_tid, fault)
            if stop is not None and header.tid >= stop:
                break
            if header.status != STATUS_UNDONE:
                self._index.update(record_positions(self._path, self._window, header))
            if header.tid <= last_tid:
                logger.warning("%s: tids do not grow at byte %d: %s", self._path, position, tid_repr(header.tid))
            last_tid = max(last_tid, header.tid)
            position = header.end
        return _Tail(position, last_tid, "")

    def _header(self, position: int) -> TransactionHeader | None:
        head = self._window.bytes_at(position, TRANSACTION_HEADER_SIZE)
        return parse_header(head, position) if len(head) == TRANSACTION_HEADER_SIZE else None

    def _fault(self, position: int, header: TransactionHeader | None) -> str:
        """Say why there is no finished transaction at `position`, "" if there is one."""
        if header is None:
            return "it ends inside a transaction header"
        if header.status == STATUS_UNFINISHED:
            return "a transaction was not finished"
        if header.status not in FINISHED_STATUSES or header.records_start > header.records_end:
            return "there is no transaction header"
        if header.end > self._size:
            return "it ends inside a transaction"
        repeated = self._window.length_at(header.records_end)
        if repeated != header.length:
            return f"a transaction's lengths disagree ({header.length} and {repeated})"
        return ""

    def _check_tail(self, position: int, last_tid: Tid, header: TransactionHeader | None, fault: str) -> None:
        """Raise FileFormatError unless the bytes from `position` on may be cut off."""
        # Nothing is appended after an unfinished transaction, so nothing behind it was acknowledged. But damage can
        # look like its status.
        unfinished = header is not None and header.status == STATUS_UNFINISHED and header.tid > last_tid
        if unfinished and header is not None and header.records_start <= header.records_end:
            return
        behind = self._finished_after(position + 1, last_tid)
        if behind is not None:
            reason = f"{fault}, but a finished transaction follows at byte {behind}"
            raise FileFormatError(self._path, position, reason)

    def _finished_after(self, position: int, last_tid: Tid) -> int | None:
        """Return where the first finished transaction from `position` on starts, wherever that may be."""
        # A length of less than 2**48, six more bytes of it, the status: 8 bytes after the transaction's start.
        pattern = re.compile(rb"(?=\0\0.{6}[ p])", re.DOTALL)
        window = Window(self._descriptor, self._size)
        while position < self._size:
            block = window.bytes_at(position, _SEARCH_BYTES)
            for match in pattern.finditer(block, 8):
                candidate = position + match.start() - 8
                if self._is_finished(window, candidate, last_tid):
                    return candidate
            if position + len(block) >= self._size:
                return None
            position += len(block) - TRANSACTION_HEADER_SIZE
        return None

    def _is_finished(self, window: Window, position: int, last_tid: Tid) -> bool:
        head = window.bytes_at(position, TRANSACTION_HEADER_SIZE)
        if len(head) < TRANSACTION_HEADER_SIZE:
            return False
        header = parse_header(head, position)
        if header.tid <= last_tid or header.records_start > header.records_end or header.end > self._size:
            return False
        if window.length_at(header.records_end) != header.length:
            return False
        if header.records_start == header.records_end:
            return True
        record = window.bytes_at(header.records_start, DATA_HEADER_SIZE)
        return len(record) == DATA_HEADER_SIZE and DATA_HEADER.unpack(record)[3] == position


def _cut(reader: Reader, tail: _Tail, size: int) -> None:
    """Move what follows the last finished transaction to a file of its own; it is on disk before it is cut off here."""
    kept = _keep(reader, tail.end, size)
    descriptor = Descriptor(reader.path, os.O_RDWR)
    os.ftruncate(descriptor.fd, tail.end)
    durable.sync_file(descriptor.fd)
    logger.warning(
        "%s: %d bytes cut off at byte %d, since %s; they are kept in %s",
        reader.path,
        size - tail.end,
        tail.end,
        tail.fault,
        kept,
    )


def _keep(reader: Reader, start: int, end: int) -> str:
    number = 0
    while os.path.exists(path := f"{reader.path}.tr{number}"):
        number += 1
    window = Window(reader.descriptor, end)
    with open(path, "xb") as file:
        positions = range(start, end, _SEARCH_BYTES)
        file.writelines(window.bytes_at(position, min(_SEARCH_BYTES, end - position)) for position in positions)
        file.flush()
        durable.sync_file(file.fileno())
    durable.sync_directory(path)
    return path
