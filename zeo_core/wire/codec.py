"""M5 messages: one msgpack array of four in each frame (shared facts in docs/topics/wire-protocol.md).

    call        [message id, false, method, arguments]     a reply is wanted; the id may be any msgpack value
    one-way     [0, true, method, arguments]
    reply       [message id, 0, ".reply", result]
    error       [message id, 2, ".reply", [class name, arguments]]
    keep-alive  [-1, ...]

Bytes travel as bin, text as str, tuples as arrays that come back as tuples.
"""

from collections.abc import Callable, Sequence, Sized
from functools import partial
from typing import Any, NamedTuple

import msgpack

from zeo_core.errors import RemoteProtocolError
from zeo_core.wire.faults import to_wire
from zeo_core.wire.frames import HEADER_BYTES, encode_frame

__all__ = [
    "CONTAINER_MAX",
    "ERROR_FLAG",
    "KEEP_ALIVE_ID",
    "REPLY",
    "VALUES_MAX",
    "Encoder",
    "Message",
    "ValueCount",
    "decode",
    "decode_call",
    "encode_before_bytes",
    "encode_one_way",
]

REPLY = ".reply"
KEEP_ALIVE_ID = -1
ERROR_FLAG = 2

CONTAINER_MAX = 4096
"""The most items that an array or map in a call may have; some msgpacks make room for as many as a header claims."""

VALUES_MAX = 65_536
"""The most items that all arrays and maps of a call may have together: an empty map, one byte, takes 72 in memory."""

_unpack = partial(msgpack.unpackb, use_list=False, raw=False, strict_map_key=False)
_unpack_bounded = partial(_unpack, max_array_len=CONTAINER_MAX, max_map_len=CONTAINER_MAX)


class Message(NamedTuple):
    """A decoded payload whose outer shape is right; what is in it is the session's to judge."""

    message_id: Any
    flag: int
    method: str
    body: Any


def decode(payload: bytes | bytearray) -> Message:
    """Return the message in `payload`; RemoteProtocolError if it is not one."""
    return _message(_unpack, payload)


def decode_call(payload: bytes | bytearray) -> Message:
    """Return the message in `payload` as `decode` does, but refuse what would take far more memory than its bytes.

    For those who take calls of strangers. Replies may be larger: the oids of everything that a client missed.
    """
    if len(payload) <= VALUES_MAX:  # it cannot hold more values than bytes
        return _message(_unpack_bounded, payload)
    count = ValueCount()
    return _message(partial(_unpack_bounded, list_hook=count, object_hook=count), payload)


class ValueCount:
    """Sees every array and map as it is completed, and stops decoding when they hold too many items together."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = VALUES_MAX

    def __call__(self, container: Sized) -> Sized:
        """Count; ValueError when there are too many."""
        self._left -= len(container)
        if self._left < 0:
            raise ValueError(f"more than {VALUES_MAX} values")
        return container


def _message(unpack: Callable[[bytes | bytearray], Any], payload: bytes | bytearray) -> Message:
    try:
        message = unpack(payload)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise RemoteProtocolError(f"not an M5 message: {type(error).__name__}: {error}"[:200]) from None
    if type(message) is not tuple or len(message) != 4:
        raise RemoteProtocolError("not an M5 message: no array of four")
    message_id, flag, method, body = message
    if message_id == KEEP_ALIVE_ID:
        return Message(KEEP_ALIVE_ID, 0, "", None)  # its other fields carry nothing
    if type(method) is not str or not isinstance(flag, int):
        raise RemoteProtocolError("not an M5 message: a method that is no text or a flag that is no number")
    return Message(message_id, flag, method, body)


def encode_one_way(method: str, args: Sequence[object]) -> bytes:
    """Return a framed one-way call; the same bytes serve every peer, so a broadcast is encoded once."""
    payload: bytes = msgpack.packb((0, True, method, args), use_bin_type=True)
    return encode_frame(payload)


def encode_before_bytes(method: str, args: Sequence[object], size: int) -> bytes:
    """Return a framed one-way call up to its last argument's `size` bytes, which are to be sent right behind it.

    So a file's bytes go from the file to the socket without being copied into a message.
    """
    head = b"".join(
        (
            b"\x94\x00\xc3",  # an array of four: 0, true, ...
            msgpack.packb(method),
            bytes((0x90 + len(args) + 1,)),
            *(msgpack.packb(value, use_bin_type=True) for value in args),
            b"\xc6",
            size.to_bytes(4, "big"),
        )
    )
    return (len(head) + size).to_bytes(HEADER_BYTES, "big") + head


_KEEP_ALIVE = encode_frame(msgpack.packb((KEEP_ALIVE_ID, True, "", ())))

_BUFFER_BYTES = 1024
"""What a Packer sets aside; its own default of 256 KiB would be 256 MiB for 1,000 idle clients."""

_KEPT_BYTES = 4096
"""A Packer whose last message was longer is replaced, for 0.3 us: it would keep twice that length for good."""


class Encoder:
    """Encodes the messages of one session.

    It keeps its msgpack.Packer, which is three times as fast as making one for each message; a Packer must not be
    shared by threads, so neither may an Encoder.
    """

    __slots__ = ("_pack",)

    def __init__(self) -> None:
        self._pack = _packer()

    def call(self, message_id: int, method: str, args: Sequence[object]) -> bytes:
        """Return a call that wants a reply."""
        return self._framed(self._pack((message_id, False, method, args)))

    def one_way(self, method: str, args: Sequence[object]) -> bytes:
        """Return a call that wants none."""
        return self._framed(self._pack((0, True, method, args)))

    def reply(self, message_id: object, result: object) -> bytes:
        """Return the reply to the call `message_id`."""
        return self._framed(self._pack((message_id, 0, REPLY, result)))

    def error(self, message_id: object, error: BaseException) -> bytes:
        """Return the error reply to the call `message_id`."""
        return self._framed(self._pack((message_id, ERROR_FLAG, REPLY, to_wire(error))))

    def keep_alive(self) -> bytes:
        """Return the message that only shows that the sender lives; any thread may ask for it."""
        return _KEEP_ALIVE

    def _framed(self, payload: bytes) -> bytes:
        if len(payload) > _KEPT_BYTES:
            self._pack = _packer()
        return encode_frame(payload)


def _packer() -> Callable[[object], bytes]:
    pack: Callable[[object], bytes] = msgpack.Packer(use_bin_type=True, buf_size=_BUFFER_BYTES).pack
    return pack
