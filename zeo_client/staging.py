"""An open transaction's records on the client, until the vote sends them in one burst."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zeo_client.transport.channel import Channel
from zeo_core.ids import Oid, Tid
from zeo_core.transaction import extension_bytes
from zeo_core.wire.codec import encode_one_way

__all__ = ["Staging"]


def _utf8(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else bytes(text)


@dataclass(slots=True)
class Staging:
    """What one transaction has stored and checked. `generation` is the connection it belongs to (lesson B14)."""

    transaction: Any
    txn_id: int
    generation: Channel
    user: bytes = b""
    description: bytes = b""
    extension: Mapping[str, Any] = field(default_factory=dict)
    writes: dict[Oid, tuple[Tid, bytes]] = field(default_factory=dict)
    checks: dict[Oid, Tid] = field(default_factory=dict)
    resolved: frozenset[Oid] = frozenset()
    sent: bool = False
    voted: bool = False
    has_turn: bool = False

    @classmethod
    def begin(cls, transaction: Any, txn_id: int, generation: Channel) -> "Staging":
        """Take the metadata over; TypeError for metadata that the wire could not carry (lesson B42)."""
        extension = getattr(transaction, "extension", None) or {}
        extension_bytes(extension)
        user, description = _utf8(transaction.user), _utf8(transaction.description)
        return cls(transaction, txn_id, generation, user, description, dict(extension))

    def burst(self) -> bytes:
        """Return the one-way calls that a vote follows: begin, every object, every check."""
        begin = (self.txn_id, self.user, self.description, self.extension, None, " ")
        parts = [encode_one_way("tpc_begin", begin)]
        parts += [
            encode_one_way("storea", (oid, serial, data, self.txn_id)) for oid, (serial, data) in self.writes.items()
        ]
        parts += [
            encode_one_way("checkCurrentSerialInTransaction", (oid, serial, self.txn_id))
            for oid, serial in self.checks.items()
        ]
        return b"".join(parts)
