"""Salvaging a damaged Data.fs: everything that can still be read goes into a new file, and what cannot is named.

The damaged file is only read. Pointers to earlier records are made anew; a record that repeats another one's data is
saved with the data if these can be found. A transaction keeps its records up to the first that is damaged, since
nothing tells where the next one would start.
"""

from collections.abc import Iterator
from typing import NamedTuple

from zeo_core.errors import FileFormatError, POSKeyError
from zeo_core.ids import ZERO_TID, Oid, Tid, oid_repr, tid_repr
from zeo_core.storage import Progress
from zeo_core.transaction import RecordedObject, TransactionMetadata
from zeo_server.storages.file.format import (
    DATA_HEADER,
    DATA_HEADER_SIZE,
    LENGTH_SIZE,
    STATUS_UNDONE,
    TRANSACTION_HEADER_SIZE,
)
from zeo_server.storages.file.fresh import FreshFile
from zeo_server.storages.file.log import TransactionHeader
from zeo_server.storages.file.walk import Damage, Walk, open_reader

__all__ = ["Loss", "Salvage"]

_MAX_LOSSES = 1000  # kept; all are counted
_STEP_BYTES = 8 << 20
_BACK_RECORD_SIZE = DATA_HEADER_SIZE + LENGTH_SIZE


class Loss(NamedTuple):
    """Bytes that were not salvaged, why, and in which transaction and object, where that can be told."""

    start: int
    end: int
    reason: str
    tid: Tid | None = None
    oid: Oid | None = None

    def __str__(self) -> str:
        where = f", transaction {tid_repr(self.tid)}" if self.tid else ""
        whose = f", oid {oid_repr(self.oid)}" if self.oid else ""
        return f"bytes {self.start} to {self.end}{where}{whose}: {self.reason}"


class Salvage:
    """Salvages `source` into the new file `target`: run `steps` to its end, then read what was lost."""

    def __init__(self, source: str, target: str) -> None:
        """Prepare; StorageError if the target exists or the source cannot be read."""
        self._walk = Walk(open_reader(source, damaged=True))
        self._target = FreshFile(target)
        self._last_tid = ZERO_TID
        self._waiting: list[TransactionHeader] = []
        self.losses: list[Loss] = []
        self.loss_count = 0
        self.lost_bytes = 0
        self.transactions = 0
        self.records = 0

    def steps(self) -> Iterator[Progress]:
        """Do it, in small steps; the new file appears with the last."""
        step_at = 0
        with self._target as target:
            for part in self._walk.parts():
                if isinstance(part, Damage):
                    self._lose(Loss(part.start, part.end, part.reason))
                    continue
                if part.position >= step_at:
                    yield Progress("recovering", part.position, self._walk.size)
                    step_at = part.position + _STEP_BYTES
                if part.status != STATUS_UNDONE:
                    self._save(part)
            self._save_empty(None)
            target.complete()
        yield Progress("recovering", self._walk.size, self._walk.size)

    def _lose(self, loss: Loss) -> None:
        self.loss_count += 1
        self.lost_bytes += loss.end - loss.start
        if len(self.losses) < _MAX_LOSSES:
            self.losses.append(loss)

    def _save(self, header: TransactionHeader) -> None:
        if header.records_start == header.records_end:
            # A damaged tid could be any: it waits for the next transaction, whose records vouch for theirs.
            self._waiting.append(header)
            return
        tid = self._tid(header)
        self._save_empty(tid)
        if tid <= self._last_tid:
            reason = f"its tid is not later than that of the transaction before it, {tid_repr(self._last_tid)}"
            self._lose(Loss(header.position, header.end, reason, tid))
            return
        self._add(header, tid)

    def _save_empty(self, before: Tid | None) -> None:
        for header in self._waiting:
            if header.tid > self._last_tid and (before is None or header.tid < before):
                self._add(header, header.tid)
            else:
                self._lose(Loss(header.position, header.end, "no records, and a tid that is out of order", header.tid))
        self._waiting.clear()

    def _add(self, header: TransactionHeader, tid: Tid) -> None:
        metadata = self._metadata(header)
        self.records += self._target.add(tid, header.status, metadata, self._records(header, tid))
        self.transactions += 1
        self._last_tid = tid

    def _tid(self, header: TransactionHeader) -> Tid:
        """Return the transaction's tid: that of its first record, should the header's own be damaged."""
        head = self._walk.window.bytes_at(header.records_start, DATA_HEADER_SIZE)
        if len(head) < DATA_HEADER_SIZE:
            return header.tid
        _, tid, _, transaction, zero, _ = DATA_HEADER.unpack(head)
        return tid if transaction == header.position and not zero and tid > self._last_tid else header.tid

    def _metadata(self, header: TransactionHeader) -> TransactionMetadata:
        start = header.position + TRANSACTION_HEADER_SIZE
        text = self._walk.window.bytes_at(start, header.records_start - start)
        user, description = header.user_size, header.description_size
        return TransactionMetadata(text[:user], text[user : user + description], text[user + description :])

    def _records(self, header: TransactionHeader, tid: Tid) -> Iterator[RecordedObject]:
        position, end, window = header.records_start, header.records_end, self._walk.window
        while position < end:
            head = window.bytes_at(position, _BACK_RECORD_SIZE)
            if position + DATA_HEADER_SIZE >= end:
                self._lose(Loss(position, end, "the transaction ends inside a data header", tid))
                return
            oid, _, _, transaction, zero, size = DATA_HEADER.unpack_from(head)
            record_end = position + DATA_HEADER_SIZE + (size or LENGTH_SIZE)
            if transaction != header.position or zero or record_end > end:
                self._lose(Loss(position, end, "no data record of its transaction", tid))
                return
            if size:
                yield RecordedObject(oid, tid, window.bytes_at(position + DATA_HEADER_SIZE, size), None)
            else:
                back = int.from_bytes(head[DATA_HEADER_SIZE:])
                record = self._repeating(oid, tid, position, back)
                if record is not None:
                    yield record
            position = record_end

    def _repeating(self, oid: Oid, tid: Tid, position: int, back: int) -> RecordedObject | None:
        """Return a record that repeats the one at `back`; None, and a loss, if that cannot be read."""
        if not back:
            return RecordedObject(oid, tid, None, None)
        if back >= position:
            self._lose(Loss(position, position + _BACK_RECORD_SIZE, "what it repeats is not earlier", tid, oid))
            return None
        try:
            data_tid = self._walk.reader.tid_at(oid, back)
            return RecordedObject(oid, tid, self._walk.reader.data(oid, back), data_tid)
        except POSKeyError:
            return RecordedObject(oid, tid, None, None)
        except FileFormatError as error:
            reason = f"what it repeats cannot be read: at byte {error.position}, {error.reason}"
            self._lose(Loss(position, position + _BACK_RECORD_SIZE, reason, tid, oid))
            return None
