"""An open transaction's records on the client, until the vote sends them in one burst.

What the server would have to refuse in a one-way call, where it can answer only by closing the connection, is refused
here, in the caller's thread: a lost connection would make the caller try the same again, for ever (lesson B42).
"""

from dataclasses import dataclass, field
from typing import Any

from zeo_client.transport.channel import Channel
from zeo_core.errors import StorageError, StorageTransactionError
from zeo_core.ids import ZERO_TID, Oid, Tid, is_id, oid_repr
from zeo_core.transaction import extension_bytes, extension_map
from zeo_core.wire.codec import encode_one_way
from zeo_core.wire.session import MESSAGE_MAX_BYTES

__all__ = ["METADATA_MAX_BYTES", "RECORD_MAX_BYTES", "Staging"]

METADATA_MAX_BYTES = 0xFFFF
"""The longest user, description or extension: a Data.fs keeps their lengths in two bytes."""

RECORD_MAX_BYTES = MESSAGE_MAX_BYTES - 1024
"""The largest record that fits a message, with room for what stands around it."""


@dataclass(slots=True)
class Staging:
    """What one transaction has stored and checked. `generation` is the connection it belongs to (lesson B14)."""

    transaction: Any
    txn_id: int
    generation: Channel
    begin_call: bytes
    writes: dict[Oid, tuple[Tid, bytes]] = field(default_factory=dict)
    checks: dict[Oid, Tid] = field(default_factory=dict)
    resolved: frozenset[Oid] = frozenset()
    sent: bool = False
    voted: bool = False

    @classmethod
    def begin(cls, transaction: Any, txn_id: int, generation: Channel) -> "Staging":
        """Take the metadata over. TypeError for what the wire could not carry, StorageError for what is too long."""
        user, description = _text("user", transaction.user), _text("description", transaction.description)
        extension = _extension(getattr(transaction, "extension", None))
        call = encode_one_way("tpc_begin", (txn_id, user, description, extension, None, " "))
        return cls(transaction, txn_id, generation, call)

    def store(self, oid: Oid, serial: Tid | None, data: bytes) -> None:
        """Add an object; the later of two records of one object counts."""
        serial = serial or ZERO_TID
        if not (is_id(oid) and is_id(serial)):
            raise StorageError(f"oid {oid!r} and serial {serial!r} must be 8 bytes each")
        if not isinstance(data, bytes) or not 0 < len(data) <= RECORD_MAX_BYTES:
            _refuse_data(oid, data)
        self._check_not_sent()
        self.writes[oid] = serial, data

    def check(self, oid: Oid, serial: Tid) -> None:
        """Add an object that must still be current."""
        if not (is_id(oid) and is_id(serial)):
            raise StorageError(f"oid {oid!r} and serial {serial!r} must be 8 bytes each")
        self._check_not_sent()
        self.checks[oid] = serial

    def burst(self) -> bytes:
        """Return the one-way calls that a vote follows: begin, every object, every check. Only once."""
        self._check_not_sent()
        self.sent = True
        parts = [self.begin_call]
        parts += [
            encode_one_way("storea", (oid, serial, data, self.txn_id)) for oid, (serial, data) in self.writes.items()
        ]
        parts += [
            encode_one_way("checkCurrentSerialInTransaction", (oid, serial, self.txn_id))
            for oid, serial in self.checks.items()
        ]
        return b"".join(parts)

    def _check_not_sent(self) -> None:
        # What comes later would never reach the server, but the cache when the transaction is finished (B14).
        if self.sent:
            raise StorageTransactionError("the transaction has been given to the server, nothing can be added")


def _text(name: str, value: str | bytes | None) -> bytes:
    encoded = value if isinstance(value, bytes) else str(value or "").encode("utf-8", "surrogateescape")
    _check_length(name, encoded)
    return encoded


def _extension(extension: Any) -> dict[str, Any]:
    """Return the extension's values as builtins that msgpack can carry."""
    encoded = extension if isinstance(extension, bytes) else extension_bytes(extension)
    _check_length("extension", encoded)
    return extension_map(encoded)


def _check_length(name: str, value: bytes) -> None:
    if len(value) > METADATA_MAX_BYTES:
        raise StorageError(f"the transaction's {name} takes {len(value)} bytes, more than {METADATA_MAX_BYTES}")


def _refuse_data(oid: Oid, data: object) -> None:
    if not isinstance(data, bytes):
        raise StorageError(f"the data of oid {oid_repr(oid)} is no bytes but {type(data).__name__}")
    if not data:
        raise StorageError(f"no data to store for oid {oid_repr(oid)}")
    raise StorageError(f"{len(data)} bytes of data for oid {oid_repr(oid)}, where {RECORD_MAX_BYTES} are the most")
