"""An open transaction's records on the client, until the vote sends them in one burst.

What the server would have to refuse in a one-way call, where it can answer only by closing the connection, is refused
here, in the caller's thread: a lost connection would make the caller try the same again, for ever (lesson B42).
"""

import contextlib
import os
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from zeo_client.transport.channel import Channel
from zeo_core.commit_marker import MARKER_BYTES, TAIL_MAX_BYTES, unmarked
from zeo_core.errors import StorageError, StorageTransactionError
from zeo_core.ids import ZERO_TID, Oid, Tid, is_id, oid_repr
from zeo_core.transaction import check_extension, extension_bytes, extension_map
from zeo_core.wire.codec import encode_one_way
from zeo_core.wire.session import MESSAGE_MAX_BYTES
from zeo_core.zodb_records import tid_from_undo_id

__all__ = ["METADATA_MAX_BYTES", "RECORD_MAX_BYTES", "Staging", "Write"]

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
        marker = os.urandom(MARKER_BYTES) if markable and length + TAIL_MAX_BYTES <= METADATA_MAX_BYTES else b""
        args = (txn_id, user, description, told, tid, status, marker)
        call = encode_one_way("tpc_begin", args if marker else args[:-1])
        return cls(transaction, txn_id, generation, call, marker)

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
        self.resolved |= {oid}
        return encode_one_way(write.method, (*write.args, self.txn_id))

    def changed(self) -> set[Oid]:
        """Return all objects that the transaction changes, as far as the server has told."""
        return {*self.writes, *self.resolved}

    def _stage(self, oid: Oid, serial: Tid, write: Write) -> None:
        if not (is_id(oid) and is_id(serial)):
            raise StorageError(f"oid {oid!r} and serial {serial!r} must be 8 bytes each")
        self._check_not_sent()
        if self.undos:
            raise StorageError("nothing can be stored after an undo in the same transaction")
        self.writes.pop(oid, None)  # of two records of one object the last counts, also for their order
        self.writes[oid] = write

    def check(self, oid: Oid, serial: Tid) -> None:
        """Add an object that must still be current."""
        if not (is_id(oid) and is_id(serial)):
            raise StorageError(f"oid {oid!r} and serial {serial!r} must be 8 bytes each")
        self._check_not_sent()
        self.checks[oid] = serial

    def burst(self) -> bytes:
        """Return the one-way calls that a vote follows: begin, objects without a blob, checks, undos. Only once."""
        self._check_not_sent()
        self.sent = True
        parts = [self.begin_call]
        parts += [
            encode_one_way(method, (*args, self.txn_id))
            for oid, (method, args, _) in self.writes.items()
            if oid not in self.blobs
        ]
        parts += [
            encode_one_way("checkCurrentSerialInTransaction", (oid, serial, self.txn_id))
            for oid, serial in self.checks.items()
        ]
        parts += [encode_one_way("undoa", (transaction_id, self.txn_id)) for transaction_id in self.undos]
        return b"".join(parts)

    def blob_end(self, oid: Oid) -> bytes:
        """Return the call that follows an object's blob on the wire, in the place of the one without a blob."""
        method, args, _ = self.writes[oid]
        if method != "restorea":
            return encode_one_way("storeBlobEnd", (*args, self.txn_id))
        _, _, data, data_tid = args
        return encode_one_way("restoreBlobEnd", (oid, data, data_tid, self.txn_id))

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
