"""What a MappingStorage holds: its log of transactions, and by object the revisions that they wrote.

A pack replaces the contents as a whole. Whoever reads takes them once, so that what it sees is either not packed or
packed, and never a part of each.
"""

from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

from zeo_core.ids import Oid, Tid
from zeo_core.transaction import PreparedTransaction, RecordedObject, RecordedTransaction, TransactionMetadata, whole

__all__ = ["Contents", "Logged", "Saved", "tid_of"]

tid_of = attrgetter("tid")
"""The key by which both the log and an object's revisions are sorted."""


class Logged(NamedTuple):
    """A transaction with its tid."""

    tid: Tid
    transaction: PreparedTransaction


class Saved(NamedTuple):
    """One revision of an object; without data, the end of its existence."""

    tid: Tid
    data: bytes | None
    data_tid: Tid | None
    metadata: TransactionMetadata

    @property
    def size(self) -> int:
        """How many bytes of data there are."""
        return len(self.data or b"")


class Contents:
    """The published transactions and their revisions. Both only grow, at their ends, until a pack makes others."""

    __slots__ = ("byte_size", "log", "revisions")

    def __init__(self, log: list[Logged], revisions: dict[Oid, list[Saved]], byte_size: int) -> None:
        """Hold these; `byte_size` is how many bytes of data all revisions take together."""
        self.log = log
        self.revisions = revisions
        self.byte_size = byte_size

    def add(self, group: Sequence[Logged]) -> None:
        """Add transactions at the end."""
        for tid, transaction in group:
            for oid, _, staged, data_tid, _ in transaction.writes:
                data = whole(staged)
                repeated = None if data_tid is None else self.saved_at(oid, data_tid)
                source = None
                if repeated is not None and repeated.data == data:
                    source = repeated.data_tid or data_tid
                self.revisions.setdefault(oid, []).append(Saved(tid, data, source, transaction.metadata))
                self.byte_size += len(data or b"")
        self.log.extend(group)

    def saved_at(self, oid: Oid, tid: Tid) -> Saved | None:
        """Return the revision that transaction `tid` wrote, None if it wrote none."""
        revisions = self.revisions.get(oid, [])
        index = bisect_left(revisions, tid, key=tid_of)
        return revisions[index] if index < len(revisions) and revisions[index].tid == tid else None

    def recorded(self, logged: Logged) -> RecordedTransaction:
        """Return a transaction as a walk gives it; the revisions know whether data are truly repeated."""
        tid, transaction = logged
        saved = [(write.oid, self.saved_at(write.oid, tid)) for write in transaction.writes]
        records = [RecordedObject(oid, tid, at.data, at.data_tid) for oid, at in saved if at is not None]
        return RecordedTransaction(tid, transaction.status, metadata=transaction.metadata, records=records)
