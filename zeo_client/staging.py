"""An open transaction's records on the client, until the vote sends them: in one burst, or in pieces if they are many.

Past a size in bytes they wait in a file (`zeo_client.staging_spool`), so that a transaction may be larger than memory.

What the server would have to refuse in a one-way call, where it can answer only by closing the connection, is refused
here, in the caller's thread: a lost connection would make the caller try the same again, for ever (lesson B42).
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from zeo_client.staging_spool import PIECE_BYTES, StagingSpool
from zeo_client.transport.channel import Channel
from zeo_core.commit_marker import MARKER_BYTES, TAIL_MAX_BYTES, unmarked
from zeo_core.errors import StorageError, StorageTransactionError
from zeo_core.ids import ZERO_TID, Oid, Tid, is_id, oid_repr
from zeo_core.transaction import check_extension, extension_bytes, extension_map
from zeo_core.wire.codec import Encoder, encode_one_way
from zeo_core.wire.session import MESSAGE_MAX_BYTES
from zeo_core.zodb_records import tid_from_undo_id

__all__ = ["MEMORY_BYTES", "METADATA_MAX_BYTES", "RECORD_MAX_BYTES", "Staging", "Write"]

MEMORY_BYTES = 16 * 1024 * 1024
"""What a transaction has in memory before it goes on in a file, by default."""

METADATA_MAX_BYTES = 0xFFFF
"""The longest user, description or extension: a Data.fs keeps their lengths in two bytes."""

RECORD_MAX_BYTES = MESSAGE_MAX_BYTES - 1024
"""The largest record that fits a message, with room for what stands around it."""


class Write(NamedTuple):
    """A change of an object: the call that tells it, and the data, None for an object that ends."""

    method: str
    args: tuple[object, ...]
    data: bytes | None


@dataclass(slots=True)
class Staging:
    """What one transaction has stored and checked. `generation` is the connection it belongs to (lesson B14)."""

    transaction: Any
    txn_id: int
    generation: Channel
    begin_call: bytes
    marker: bytes = b""  # by which the server will know it on another connection
    writes: dict[Oid, Write] = field(default_factory=dict)
    checks: dict[Oid, Tid] = field(default_factory=dict)
    blobs: dict[Oid, str] = field(default_factory=dict)  # files of ours, for some of the writes
    undos: list[bytes] = field(default_factory=list)
    memory_bytes: int = MEMORY_BYTES
    staged_bytes: int = 0  # in memory
    spool: StagingSpool | None = None  # the other writes
    resolved: frozenset[Oid] = frozenset()
    sent: bool = False
    voted: bool = False

    @classmethod
    def begin(
        cls,
        transaction: Any,
        txn_id: int,
        generation: Channel,
        *,
        tid: Tid | None = None,
        status: str | bytes = " ",
        exact: bool = False,
        markable: bool = False,
        memory_bytes: int = MEMORY_BYTES,
    ) -> "Staging":
        """Take the metadata over. TypeError for what the wire could not carry, StorageError for what is too long.

        `tid` and `status` are those of a transaction of another storage, which is restored. With `exact`, which not
        every server knows, the extension is sent as the bytes that the log is to hold; with `markable`, a commit marker
        goes with it, unless the log has no room for one.
        """
        user, description = _text("user", transaction.user), _text("description", transaction.description)
        extension = getattr(transaction, "extension", None)
        if tid is not None:
            extension = getattr(transaction, "extension_bytes", extension)  # as it stands in that storage's log
        status = status.decode("ascii") if isinstance(status, bytes) else status
        told, length = _extension(extension, exact)
        marker = b""
        if markable and length + TAIL_MAX_BYTES <= METADATA_MAX_BYTES:
            # A transaction that is passed on has its marker from whoever began it, who may ask for it.
            marker = getattr(transaction, "marker", b"") or os.urandom(MARKER_BYTES)
        args = (txn_id, user, description, told, tid, status, marker)
        call = encode_one_way("tpc_begin", args if marker else args[:-1])
        return cls(transaction, txn_id, generation, call, marker, memory_bytes=memory_bytes)

    def store(self, oid: Oid, serial: Tid | None, data: bytes) -> None:
        """Add an object; the later of two records of one object counts."""
        if not isinstance(data, bytes) or not 0 < len(data) <= RECORD_MAX_BYTES:
            _refuse_data(oid, data)
        serial = serial or ZERO_TID
        self._stage(oid, serial, Write("storea", (oid, serial, data), data))

    def delete(self, oid: Oid, serial: Tid) -> None:
        """Add an object's deletion."""
        self._stage(oid, serial, Write("deleteObject", (oid, serial), None))

    def restore(self, oid: Oid, serial: Tid, data: bytes | None, data_tid: Tid | None) -> None:
        """Add an object of another storage's transaction; see the contract's `restore`."""
        if data is not None and (not isinstance(data, bytes) or not 0 < len(data) <= RECORD_MAX_BYTES):
            _refuse_data(oid, data)
        if data_tid is not None and not is_id(data_tid):
            raise StorageError(f"tid {data_tid!r} must be 8 bytes")
        self._stage(oid, serial, Write("restorea", (oid, serial, data, data_tid), data))

    def undo(self, transaction_id: bytes) -> None:
        """Take back a transaction, named as an undo log names it; UndoError if that is no such name."""
        tid_from_undo_id(transaction_id)
        self._check_not_sent()
        self.undos.append(transaction_id)

    def resolve(self, oid: Oid, committed: Tid, data: bytes) -> bytes:
        """Replace an object of a vote that met a conflict; return the call that tells the server."""
        write = self.writes[oid] = Write("storea", (oid, committed, data), data)
        if self.spool is not None:
            self.spool.forget(oid)
        self.resolved |= {oid}
        return encode_one_way(write.method, (*write.args, self.txn_id))

    def changed(self) -> set[Oid]:
        """Return all objects that the transaction changes, as far as the server has told."""
        return {*self.writes, *self.resolved, *(self.spool.oids() if self.spool is not None else ())}

    def write(self, oid: Oid) -> Write | None:
        """Return the change of an object, from memory or from the file; None if there is none."""
        write = self.writes.get(oid)
        if write is None and self.spool is not None and oid in self.spool:
            method, arguments = self.spool.arguments(oid)
            return Write(method, arguments[:-1], None if method == "deleteObject" else arguments[2])
        return write

    def _stage(self, oid: Oid, serial: Tid, write: Write) -> None:
        if not (is_id(oid) and is_id(serial)):
            raise StorageError(f"oid {oid!r} and serial {serial!r} must be 8 bytes each")
        self._check_not_sent()
        if self.undos:
            raise StorageError("nothing can be stored after an undo in the same transaction")
        self.writes.pop(oid, None)  # of two records of one object the last counts, also for their order
        if self.spool is not None:
            self.spool.forget(oid)
        self.writes[oid] = write
        if write.data is not None:
            self.staged_bytes += len(write.data)
            if self.staged_bytes > self.memory_bytes:
                self._spill()

    def _spill(self) -> None:
        """Move what is in memory to the file; `writes` has what is stored from now on."""
        if self.spool is None:
            self.spool = StagingSpool()
        txn_id = self.txn_id
        self.spool.add((oid, encode_one_way(method, (*args, txn_id))) for oid, (method, args, _) in self.writes.items())
        self.writes = {}
        self.staged_bytes = 0

    def check(self, oid: Oid, serial: Tid) -> None:
        """Add an object that must still be current."""
        if not (is_id(oid) and is_id(serial)):
            raise StorageError(f"oid {oid!r} and serial {serial!r} must be 8 bytes each")
        self._check_not_sent()
        self.checks[oid] = serial

    def is_small(self) -> bool:
        """Tell whether it is to be sent in one burst."""
        return self.spool is None and self.staged_bytes <= PIECE_BYTES

    def burst(self) -> bytes:
        """Return the one-way calls that a vote follows: begin, objects without a blob, checks, undos. Only once."""
        self._check_not_sent()
        self.sent = True
        return self._with_what_comes_last([self.begin_call, *self._calls()])

    def pieces(self) -> Iterator[bytes]:
        """Return the same, only once, in pieces of whole calls that are made when they are asked for."""
        self._check_not_sent()
        self.sent = True
        waiting, size = [self.begin_call], 0
        if self.spool is not None:
            yield self.begin_call
            waiting = []
            yield from self.spool.pieces(self.blobs)
        for call in self._calls():
            if size > PIECE_BYTES:
                yield b"".join(waiting)
                waiting, size = [], 0
            waiting.append(call)
            size += len(call)
        yield self._with_what_comes_last(waiting)

    def _calls(self) -> Iterator[bytes]:
        """Return the calls for the objects in memory that have no blob."""
        blobs, txn_id = self.blobs, self.txn_id
        one_way = Encoder().one_way  # of its own, so a third less for each of many objects
        for oid, (method, args, _) in self.writes.items():
            if oid not in blobs:
                yield one_way(method, (*args, txn_id))

    def _with_what_comes_last(self, parts: list[bytes]) -> bytes:
        """Return `parts` and what comes behind the objects."""
        parts += [
            encode_one_way("checkCurrentSerialInTransaction", (oid, serial, self.txn_id))
            for oid, serial in self.checks.items()
        ]
        parts += [encode_one_way("undoa", (transaction_id, self.txn_id)) for transaction_id in self.undos]
        return b"".join(parts)

    def blob_end(self, oid: Oid) -> bytes:
        """Return the call that follows an object's blob on the wire, in the place of the one without a blob."""
        write = self.write(oid)
        if write is None:
            raise StorageError(f"object {oid_repr(oid)} has a blob and no record")
        method, args, _ = write
        if method != "restorea":
            return encode_one_way("storeBlobEnd", (*args, self.txn_id))
        _, _, data, data_tid = args
        return encode_one_way("restoreBlobEnd", (oid, data, data_tid, self.txn_id))

    def close(self) -> None:
        """Let go of the file, when the transaction is over."""
        if self.spool is not None:
            self.spool.close()

    def _check_not_sent(self) -> None:
        # What comes later would never reach the server, but the cache when the transaction is finished (B14).
        if self.sent:
            raise StorageTransactionError("the transaction has been given to the server, nothing can be added")


def _text(name: str, value: str | bytes | None) -> bytes:
    encoded = value if isinstance(value, bytes) else str(value or "").encode("utf-8", "surrogateescape")
    _check_length(name, encoded)
    return encoded


def _extension(extension: Any, exact: bool) -> tuple[dict[str, Any] | bytes, int]:
    """Return the extension's values as builtins that msgpack can carry, or their bytes; and how many these are."""
    encoded = unmarked(extension) if isinstance(extension, bytes) else extension_bytes(extension)
    _check_length("extension", encoded)
    if exact:
        with contextlib.suppress(TypeError):  # what it holds stays behind then, as it does when it is read
            check_extension(encoded)
            return encoded, len(encoded)
    return extension_map(encoded), len(encoded)


def _check_length(name: str, value: bytes) -> None:
    if len(value) > METADATA_MAX_BYTES:
        raise StorageError(f"the transaction's {name} takes {len(value)} bytes, more than {METADATA_MAX_BYTES}")


def _refuse_data(oid: Oid, data: object) -> None:
    if not isinstance(data, bytes):
        raise StorageError(f"the data of oid {oid_repr(oid)} is no bytes but {type(data).__name__}")
    if not data:
        raise StorageError(f"no data to store for oid {oid_repr(oid)}")
    raise StorageError(f"{len(data)} bytes of data for oid {oid_repr(oid)}, where {RECORD_MAX_BYTES} are the most")
