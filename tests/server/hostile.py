"""What a peer may send that is up to no good: recorded conversations, changed here and there.

Everything random comes from the generator that is given, so that a seed repeats a run.
"""

import random
from collections.abc import Callable
from typing import Any

import msgpack

from zeo_core.ids import MAX_TID, ZERO_TID, pack_id
from zeo_core.wire.frames import encode_frame
from zeo_core.wire.methods import CLIENT_CALLS

__all__ = ["GREETING", "REGISTER", "Hostile", "pack", "recorded"]

GREETING = encode_frame(b"M5")

RECORD = b"\x80\x03cpersistent.mapping\nPersistentMapping\nq\x01.\x80\x03}q\x02X\x04\x00\x00\x00datar\x01."
BLOB = b"\x80\x03cZODB.blob\nBlob\nq\x01.\x80\x03N."

Call = tuple[Any, Any, Any, Any]
"""A message as M5 has it: id, one-way flag, method, arguments."""

_ONE_WAY = {name for name, method in CLIENT_CALLS.items() if method.reply is None}


def pack(message: object) -> bytes:
    """Return a message's frame."""
    return encode_frame(msgpack.packb(message, use_bin_type=True))


def _call(number: int, method: str, *args: object) -> Call:
    return (0, True, method, args) if method in _ONE_WAY else (number, False, method, args)


REGISTER = pack(_call(1, "register", "1", False))


def _commit(oid: bytes, txn: int, *more: tuple[object, ...], end: str = "tpc_finish") -> list[tuple[object, ...]]:
    return [
        ("tpc_begin", txn, "user", "description", {"key": "value"}, None, " "),
        ("storea", oid, ZERO_TID, RECORD, txn),
        *more,
        ("vote", txn),
        (end, txn),
    ]


def recorded(choice: random.Random) -> list[Call]:
    """Return a conversation as good clients have it, after `register`."""
    oid, other = pack_id(choice.randrange(1, 5_000)), pack_id(choice.randrange(1, 50))
    txn = choice.randrange(1, 10_000)
    conversations: list[list[tuple[object, ...]]] = [
        _commit(oid, txn),
        _commit(oid, txn, end="tpc_abort"),
        _commit(
            oid, txn, ("checkCurrentSerialInTransaction", other, ZERO_TID, txn), ("deleteObject", oid, ZERO_TID, txn)
        ),
        _commit(
            oid, txn, ("storeBlobStart",), ("storeBlobChunk", b"chunk" * 50), ("storeBlobEnd", oid, None, BLOB, txn)
        ),
        _commit(oid, txn, ("storeBlobShared", oid, ZERO_TID, BLOB, "tmpabc.tmp", txn)),
        _commit(oid, txn, ("restorea", oid, MAX_TID, RECORD, None, txn)),
        _commit(oid, txn, ("undoa", b"AAAAAAAAAAA=", txn), end="tpc_abort"),
        [("loadBefore", other, MAX_TID), ("loadSerial", other, ZERO_TID), ("getTid", other), ("history", other, 5)],
        [("loadBefore", oid, MAX_TID)] * choice.randrange(1, 20),
        [("undoLog", 0, -5), ("undoInfo", 0, 3, {"user_name": "user"}), ("lastTransaction",), ("getSize",)],
        [("iterator_start", None, None), ("iterator_next", 0), ("iterator_next", 0), ("iterator_gc", (0,))],
        [
            ("iterator_start", ZERO_TID, MAX_TID, True),
            ("iterator_record_start", 0, ZERO_TID),
            ("iterator_record_next", 0),
        ],
        [("record_iternext", None), ("record_iternext", oid), ("sendBlob", other, ZERO_TID)],
        [("get_info",), ("getInvalidations", ZERO_TID), ("new_oids", 10), ("server_status",), ("ping",)],
        [("set_client_label", "a client\nof two lines"), ("ping",)],
    ]
    return [_call(number, *call) for number, call in enumerate(choice.choice(conversations), 2)]  # type: ignore[arg-type]


class Hostile:
    """Makes what a hostile peer sends after the greeting; `rate` of the messages are changed."""

    def __init__(self, choice: random.Random, rate: float = 0.1) -> None:
        self._choice = choice
        self._rate = rate
        self._changes: tuple[Callable[[Call], bytes], ...] = (
            self._other_argument,
            self._other_argument,
            self._other_method,
            self._other_count,
            self._other_field,
            self._flipped,
            self._cut,
            self._other_length,
            self._noise,
        )

    def conversation(self, length: int) -> list[bytes]:
        """Return at least so many frames."""
        frames: list[bytes] = []
        while len(frames) < length:
            frames += map(self._message, recorded(self._choice))
        return frames

    def before_register(self) -> list[bytes]:
        """Return frames of one who does not register, or not as one does."""
        first = self._choice.choice([_call(1, "register", "1", False), *recorded(self._choice)])
        return [self._choice.choice(self._changes)(first)]

    def _message(self, call: Call) -> bytes:
        if self._choice.random() >= self._rate:
            return pack(call)
        return self._choice.choice(self._changes)(call)

    def _value(self, depth: int = 0) -> Any:
        choice = self._choice
        simple: list[Callable[[], Any]] = [
            lambda: None,
            lambda: choice.random() < 0.5,
            lambda: choice.choice([0, 1, -1, 2**31, 2**63 - 1, -(2**63), 2**64 - 1]),
            lambda: choice.choice([0.0, 1e308, float("nan"), float("inf")]),
            lambda: choice.choice(["", "1", "x" * 1000, "\0", "../../etc/passwd", "\ud7ff\n"]),
            lambda: choice.randbytes(choice.choice([0, 1, 7, 8, 9, 300])),
            lambda: pack_id(choice.randrange(60)),
            lambda: choice.choice([ZERO_TID, MAX_TID, b"\xff" * 8]),
            lambda: msgpack.ExtType(choice.randrange(100), b"x"),
        ]
        if depth < 3 and choice.random() < 0.25:
            size = choice.randrange(4)
            if choice.random() < 0.5:
                return [self._value(depth + 1) for _ in range(size)]
            return {choice.choice([1, "a", b"b", None]): self._value(depth + 1) for _ in range(size)}
        return choice.choice(simple)()

    def _other_argument(self, call: Call) -> bytes:
        number, flag, method, args = call
        args = list(args)
        if args:
            args[self._choice.randrange(len(args))] = self._value()
        return pack((number, flag, method, args))

    def _other_count(self, call: Call) -> bytes:
        number, flag, method, args = call
        args = [*args, self._value()] if self._choice.random() < 0.5 else list(args)[:-1]
        return pack((number, flag, method, args))

    def _other_method(self, call: Call) -> bytes:
        number, flag, _, args = call
        method = self._choice.choice([*CLIENT_CALLS, "", "__class__", ".reply", "invalidateTransaction", "pack\0"])
        if method == "pack" and self._choice.random() < 0.99:  # a process for each
            method = "ping"
        return pack((number, flag, method, args))

    def _other_field(self, call: Call) -> bytes:
        fields: list[Any] = list(call)
        fields[self._choice.randrange(4)] = self._value()
        return pack(fields[: self._choice.choice([4, 4, 4, 3])])

    def _flipped(self, call: Call) -> bytes:
        data = bytearray(pack(call))
        for _ in range(self._choice.randrange(1, 4)):
            data[self._choice.randrange(4, len(data))] ^= 1 << self._choice.randrange(8)
        return bytes(data)

    def _cut(self, call: Call) -> bytes:
        data = pack(call)
        return encode_frame(data[4 : self._choice.randrange(4, len(data))])

    def _other_length(self, call: Call) -> bytes:
        return self._choice.choice([0, 1, 60, 2**31, 2**32 - 1]).to_bytes(4, "big") + pack(call)[4:]

    def _noise(self, _call: Call) -> bytes:
        return encode_frame(self._choice.randbytes(self._choice.randrange(100)))
