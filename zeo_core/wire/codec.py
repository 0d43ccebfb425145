"""M5 messages: one msgpack array of four in each frame (shared facts in docs/topics/wire-protocol.md).

    call        [message id, false, method, arguments]     a reply is wanted; the id may be any msgpack value
    one-way     [0, true, method, arguments]
    reply       [message id, 0, ".reply", result]
    error       [message id, 2, ".reply", [class name, arguments]]
    keep-alive  [-1, ...]

Bytes travel as bin, text as str, tuples as arrays that come back as tuples.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import msgpack

from zeo_core.errors import RemoteProtocolError, to_wire
from zeo_core.wire.frames import encode_frame

__all__ = ["ERROR_FLAG", "KEEP_ALIVE_ID", "REPLY", "Encoder", "Message", "decode", "encode_one_way"]

REPLY = ".reply"
KEEP_ALIVE_ID = -1
ERROR_FLAG = 2

_unpack = partial(msgpack.unpackb, use_list=False, raw=False, strict_map_key=False)


class Message(NamedTuple):
    """A decoded payload whose outer shape is right; what is in it is the session's to judge."""

    message_id: Any
    flag: int
    method: str
    body: Any


def decode(payload: bytes | bytearray) -> Message:
    """Return the message in `payload`; RemoteProtocolError if it is not one."""
    try:
        message_id, flag, method, body = _unpack(payload)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise RemoteProtocolError(f"not an M5 message: {type(error).__name__}: {error}"[:200]) from None
    if message_id == KEEP_ALIVE_ID:
        return Message(KEEP_ALIVE_ID, 0, "", None)  # its other fields carry nothing
    if type(method) is not str or not isinstance(flag, int):
        raise RemoteProtocolError("not an M5 message: a method that is no text or a flag that is no number")
    return Message(message_id, flag, method, body)


def encode_one_way(method: str, args: Sequence[object]) -> bytes:
    """Return a framed one-way call; the same bytes serve every peer, so a broadcast is encoded once."""
    payload: bytes = msgpack.packb((0, True, method, args), use_bin_type=True)
    return encode_frame(payload)


class Encoder:
    """Encodes the messages of one session.

    It keeps its msgpack.Packer, which is three times as fast as making one for each message; a Packer must not be
    shared by threads, so neither may an Encoder.
    """

    __slots__ = ("_pack",)

    def __init__(self) -> None:
        self._pack = msgpack.Packer(use_bin_type=True).pack

    def call(self, message_id: int, method: str, args: Sequence[object]) -> bytes:
        """Return a call that wants a reply."""
        return encode_frame(self._pack((message_id, False, method, args)))

    def one_way(self, method: str, args: Sequence[object]) -> bytes:
        """Return a call that wants none."""
        return encode_frame(self._pack((0, True, method, args)))

    def reply(self, message_id: object, result: object) -> bytes:
        """Return the reply to the call `message_id`."""
        return encode_frame(self._pack((message_id, 0, REPLY, result)))

    def error(self, message_id: object, error: BaseException) -> bytes:
        """Return the error reply to the call `message_id`."""
        return encode_frame(self._pack((message_id, ERROR_FLAG, REPLY, to_wire(error))))

    def keep_alive(self) -> bytes:
        """Return the message that only shows that the sender lives."""
        return encode_frame(self._pack((KEEP_ALIVE_ID, True, "", ())))
