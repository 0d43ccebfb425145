"""A transaction on the server from tpc_begin to its end: what its client has staged, and its phase."""

import sys
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple, Protocol

from zeo_core.commit_marker import marked
from zeo_core.errors import ConflictError, RecordFormatError, StorageError
from zeo_core.ids import MAX_TID, ZERO_TID, Oid, Tid, oid_repr, tid_from_time, tid_repr
from zeo_core.record import class_name
from zeo_core.storage import BlobStage
from zeo_core.transaction import (
    ObjectWrite,
    PreparedTransaction,
    SpooledData,
    TransactionMetadata,
    check_extension,
    extension_bytes,
)
from zeo_server.commit.phases import Phase, Step, advance
from zeo_server.commit.spool import Spool, Spooling, Writes
from zeo_server.invalidation import Listener
from zeo_server.limits import DEFAULT_LIMITS, Limits

__all__ = [
    "METADATA_MAX_BYTES",
    "OBJECT_OVERHEAD_BYTES",
    "RESTORED_AHEAD_MAX_S",
    "Answer",
    "BlobSource",
    "Conflict",
    "Member",
    "ServerTransaction",
    "metadata_from_wire",
]

Answer = Callable[[object], None]
"""Called once with what a vote or a finish came to: its result, or the exception to report."""

METADATA_MAX_BYTES = 65535
"""User, description and extension have 16-bit lengths in the file format."""

OBJECT_OVERHEAD_BYTES = 200
"""What a staged object takes beside its data: without it, a million empty objects would count as nothing."""

RESTORED_AHEAD_MAX_S = 24 * 3600
"""How far ahead of the clock a restored transaction may be. Tids only grow: with the very last one there would be no
more commits, and with a distant one all that follow bear its time. Clocks of other machines err by less than this."""

_NO_METADATA = TransactionMetadata()

_BEGUN = Phase.BEGUN  # an enum's member looked up through its class costs 0.2 us in Python 3.11


class Member(Listener, Writes, Hashable, Protocol):
    """A registered client."""

    def disconnect(self, reason: str) -> None:
        """End the connection, with a log line that says why. The coordinator hears of it through `leave`."""


class BlobSource(Protocol):
    """Where a blob of a transaction comes from. What may wait for the disk, complete and discard, is for a thread."""

    def received_bytes(self) -> int:
        """Return how many bytes of it the client has sent. This one does not wait for the disk."""

    def complete(self) -> str:
        """Return the path of the whole file; StorageError, also for what went wrong before."""

    def discard(self) -> None:
        """Remove the file if it is still there; harmless when repeated."""


class Conflict(NamedTuple):
    """An object that was changed since: the serials committed and read, and the data that were to be stored."""

    oid: Oid
    committed: Tid
    read: Tid
    data: bytes | SpooledData | None

    def error(self) -> ConflictError:
        """Return what a client is told that cannot resolve it."""
        try:
            # for the name alone the loop does not wait for the disk
            name = class_name(self.data) if self.data and isinstance(self.data, bytes) else None
        except RecordFormatError:
            name = None  # the conflict is to be reported all the same
        return ConflictError(oid=self.oid, serials=(self.committed, self.read), class_name=name)

    def as_map(self, committed_data: bytes | None) -> dict[str, object]:
        """Return what a client is told that can; with the committed data, if they are at hand, it need not ask."""
        told: dict[str, object] = {"oid": self.oid, "serials": (self.committed, self.read), "data": self.data}
        if committed_data is not None:
            told["committed"] = committed_data
        return told


class ServerTransaction:
    """One transaction of one client.

    A one-way call cannot be answered, so what goes wrong while objects are staged is kept in `error` and reported by
    the vote; what was staged is dropped at once and what still comes is not kept.
    """

    __slots__ = (
        *(
            "_memory_room",
            "_prepared",
            "_spooling",
            "answer",
            "blob_bytes",
            "blobs",
            "checks",
            "error",
            "finish_s",
            "id",
            "limits",
        ),
        *("member", "memory_bytes", "metadata", "phase", "resolved", "resolves", "restored", "size_bytes", "spool"),
        *("stage", "status", "tid", "undos", "vote_s", "waits_s", "writes"),
    )

    def __init__(
        self, member: Member, txn_id: Hashable, limits: Limits = DEFAULT_LIMITS, spooling: Spooling | None = None
    ) -> None:
        self.member = member
        self.id = txn_id
        self.metadata = _NO_METADATA
        self.limits = limits
        self.phase = Phase.BEGUN
        self.writes: dict[Oid, ObjectWrite] = {}
        self.checks: dict[Oid, Tid] = {}
        self.restored: set[Oid] = set()  # oids of writes for which conflicts are not looked for
        self.undos: list[Tid] = []  # the transactions to be taken back, until the vote
        self.resolved: dict[Oid, None] = {}  # what the server changed itself, by resolving or undoing, in this order
        self.resolves = False  # its client resolves conflicts
        self.tid: Tid | None = None
        self.status = b" "
        self.size_bytes = 0
        self.memory_bytes = 0  # of the data that are staged, those that are in memory
        self.spool: Spool | None = None  # the others
        self._spooling = spooling
        self._memory_room = 0 if spooling is not None else sys.maxsize  # what memory_bytes may come to
        self.blob_bytes = 0  # what its client has sent of blobs
        self.error: Exception | None = None
        self.answer: Answer | None = None
        self._prepared: PreparedTransaction | None = None
        self.blobs: dict[Oid, BlobSource] = {}  # what the objects' blobs are made of, until the vote
        self.stage: BlobStage | None = None  # the blobs themselves, from the vote on
        # when it was first voted, when it last began to wait for locks, when it was to be finished; of perf_counter
        self.vote_s = self.waits_s = self.finish_s = 0.0

    def __repr__(self) -> str:
        return f"<transaction {self.id!r}, {self.phase.value}>"

    def move(self, step: Step) -> None:
        """Go to the phase after `step`; StorageTransactionError if the present one does not allow it."""
        self.phase = advance(self.phase, step)

    def give(self, outcome: object) -> None:
        """Answer the call that waits, if one does."""
        answer, self.answer = self.answer, None
        if answer is not None:
            answer(outcome)

    def store(self, oid: Oid, serial: Tid, data: bytes) -> None:
        """Stage an object; a second one of the same oid replaces the first (the last record of an oid wins)."""
        if not data:
            # a length of zero marks a record that repeats another one's data: it must not get as far as the file
            self.doom(StorageError(f"no data to store for oid {oid_repr(oid)}"))
        self._stage(ObjectWrite(oid, serial, data))

    def delete(self, oid: Oid, serial: Tid) -> None:
        """Stage an object's deletion."""
        self._stage(ObjectWrite(oid, serial, None))

    def restore(self, oid: Oid, data: bytes | None, data_tid: Tid | None) -> None:
        """Stage an object as it stands in another storage's transaction, where it may repeat the data of `data_tid`."""
        if data == b"":
            self.doom(StorageError(f"no data to restore for oid {oid_repr(oid)}"))
        self._stage(ObjectWrite(oid, ZERO_TID, data, data_tid))
        self.restored.add(oid)

    def undo(self, tid: Tid) -> None:
        """Take back a transaction; what that changes is found out at the vote."""
        if self.phase is not _BEGUN:
            self.move(Step.STAGE)
        if self.error is None:
            self.undos.append(tid)
            self._grow(OBJECT_OVERHEAD_BYTES)

    def take_undone(self, writes: Mapping[Oid, ObjectWrite]) -> None:
        """Stage what was found out about that."""
        self.undos = []
        for oid, write in writes.items():
            self._put(write)
            self.resolved[oid] = None

    def take_resolved(self, oid: Oid, committed: Tid, data: bytes) -> None:
        """Stage what the server has made of a conflict with the revision `committed`."""
        self._replace(self.writes[oid]._replace(serial=committed, data=data))
        self.resolved[oid] = None

    def restore_as(self, tid: Tid | None, status: str) -> None:
        """Ask for the tid and status that the transaction has in another storage; StorageError for a status of none."""
        if status not in (" ", "p"):
            raise StorageError(f"status {status!r} is not that of a finished transaction")
        self.tid, self.status = tid, status.encode("ascii")

    def check_restorable(self, last_tid: Tid, now_s: float) -> None:
        """Raise StorageError if the tid asked for is not later than `last_tid`, or far in the future (lesson B24)."""
        if self.tid is None:
            return
        if not last_tid < self.tid < MAX_TID:
            raise StorageError(f"cannot restore transaction {tid_repr(self.tid)} after {tid_repr(last_tid)}")
        if self.tid > tid_from_time(now_s + RESTORED_AHEAD_MAX_S):
            raise StorageError(
                f"cannot restore transaction {tid_repr(self.tid)}: it is more than a day ahead of the server's clock, "
                "and so would be all that follow; `zeofs copy` can make such a database"
            )

    def _stage(self, write: ObjectWrite) -> None:
        if self.phase is not _BEGUN:
            self.move(Step.STAGE)
        if self.error is not None:
            return
        if self.undos:
            self.doom(StorageError("nothing can be stored after an undo in the same transaction"))
            return
        self._put(write)

    def _put(self, write: ObjectWrite) -> None:
        data = write.data
        if data.__class__ is bytes and self.memory_bytes + len(data) > self._memory_room:
            write = self._aside(write)
            if self.error is not None:
                return
        self._replace(write)

    def _aside(self, write: ObjectWrite) -> ObjectWrite:
        """Return a write whose data are not in memory, or the same one if they may be."""
        spooling, data = self._spooling, write.data
        if spooling is None or not isinstance(data, bytes):
            return write
        room = spooling.grant(self._memory_room, self.memory_bytes + len(data))
        if room:
            self._memory_room = room
            return write
        if self.spool is None:
            self.spool = spooling.open(self.member)
        if self.spool.size_bytes + len(data) > self.limits.transaction_max_bytes:
            self._doom_as_too_large()  # what was replaced meanwhile takes its room in the file as well
            return write
        return write._replace(data=self.spool.add(data))

    def _replace(self, write: ObjectWrite) -> None:
        self._prepared = None
        replaced = self.writes.pop(write.oid, None)
        if replaced is not None:
            self.size_bytes -= len(replaced.data or b"") + OBJECT_OVERHEAD_BYTES
            if isinstance(replaced.data, bytes):
                self.memory_bytes -= len(replaced.data)
            self.restored.discard(write.oid)
        self.writes[write.oid] = write
        data = write.data
        size_bytes = len(data or b"")
        if data.__class__ is bytes:
            self.memory_bytes += size_bytes
        self._grow(size_bytes + OBJECT_OVERHEAD_BYTES)

    def add_blob(self, oid: Oid, source: BlobSource) -> BlobSource | None:
        """Give a staged object its blob; return a source that is of no use, to be discarded: this or an earlier one."""
        self.blob_bytes += source.received_bytes()
        if self.blob_bytes > self.limits.transaction_blobs_max_bytes:
            most = self.limits.transaction_blobs_max_bytes
            self.doom(StorageError(f"the blobs of the transaction are larger than {most} bytes"))
        if self.error is not None:
            return source
        replaced = self.blobs.get(oid)
        self.blobs[oid] = source
        return replaced

    def check(self, oid: Oid, serial: Tid) -> None:
        """Ask that `serial` is current at the vote and stays so until the end."""
        if self.phase is not _BEGUN:
            self.move(Step.STAGE)
        if self.error is None:
            self.checks[oid] = serial
            self._grow(OBJECT_OVERHEAD_BYTES)

    def refuse(self, error: Exception) -> None:
        """Remember that a part of it was refused; as to stage something, that is too late once it has voted."""
        if self.phase is not _BEGUN:
            self.move(Step.STAGE)
        self.doom(error)

    def doom(self, error: Exception) -> None:
        """Remember the first thing that went wrong, for the vote to report, and drop what was staged."""
        if self.error is None:
            self.error = error
        self.drop()

    def drop(self) -> None:
        """Free the memory of what was staged, and the file."""
        if self._spooling is not None:
            self._spooling.memory_bytes -= self._memory_room
            self._memory_room = 0
        if self.spool is not None:
            self.spool.discard()
        self.writes, self.checks, self.size_bytes, self.memory_bytes, self.spool = {}, {}, 0, 0, None
        self._prepared = None

    def prepared(self) -> PreparedTransaction:
        """Return what the storage has to write: the same object each time, by which it knows what it has anticipated.

        To be called when nothing can be staged any more.
        """
        if self._prepared is None:
            self._prepared = PreparedTransaction(self.metadata, tuple(self.writes.values()), self.tid, self.status)
        return self._prepared

    def _grow(self, size: int) -> None:
        self.size_bytes += size
        if self.size_bytes > self.limits.transaction_max_bytes:
            self._doom_as_too_large()

    def _doom_as_too_large(self) -> None:
        self.doom(StorageError(f"the transaction is larger than {self.limits.transaction_max_bytes} bytes"))


def metadata_from_wire(
    user: str | bytes, description: str | bytes, extension: Mapping[str, Any] | bytes | None, marker: bytes = b""
) -> TransactionMetadata:
    """Return the TransactionMetadata of a tpc_begin, with its commit marker if it has one.

    TypeError for an extension that the log or the wire could not carry (lesson B42), StorageError for one that is too
    long for the file format.
    """
    if not (user or description or extension or marker):
        return _NO_METADATA
    if isinstance(extension, bytes):
        check_extension(extension)
    else:
        extension = extension_bytes(extension)
    fields = (_utf8(user), _utf8(description), marked(extension, marker) if marker else extension)
    for name, value in zip(("user", "description", "extension"), fields, strict=True):
        if len(value) > METADATA_MAX_BYTES:
            raise StorageError(f"transaction {name}: {len(value)} bytes, where {METADATA_MAX_BYTES} are the most")
    return TransactionMetadata(*fields)


def _utf8(text: str | bytes) -> bytes:
    return text.encode("utf-8") if isinstance(text, str) else text
