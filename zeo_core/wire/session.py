"""The state machine of one M5 connection: bytes in, events out; calls and replies in, bytes out. No I/O.

    server: sends `M5`                       client: waits for it, answers `M5`
    GREETING --Greeted--> UNREGISTERED --registered--> READY --Failed or close()--> CLOSED

The server's side moves to READY when its adapter says `registered()`, the client's when the reply to its `register`
comes. Before that, `register` is the only call that is taken. A peer that breaks a rule makes a Failed event, the last
one of the session; a caller that breaks one gets LocalProtocolError.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

from zeo_core.errors import LocalProtocolError, RemoteProtocolError
from zeo_core.wire.codec import ERROR_FLAG, KEEP_ALIVE_ID, REPLY, Encoder, decode, decode_call
from zeo_core.wire.frames import FrameDecoder, encode_frame
from zeo_core.wire.methods import CLIENT_CALLS, SERVER_PUSHES

__all__ = [
    "GREETING_MAX_BYTES",
    "MESSAGE_MAX_BYTES",
    "PROTOCOL",
    "STATUS_REQUEST",
    "TRANSITIONS",
    "UNREGISTERED_MAX_BYTES",
    "ErrorReply",
    "Event",
    "Failed",
    "Greeted",
    "KeepAlive",
    "Registered",
    "Reply",
    "Request",
    "Role",
    "Session",
    "State",
    "StatusRequested",
]

PROTOCOL = b"M5"
STATUS_REQUEST = b"ruok"

GREETING_MAX_BYTES = 64
"""A greeting has 2 or 4 bytes; a peer that announces more speaks something else."""

UNREGISTERED_MAX_BYTES = 64 * 1024
"""Enough for `register` and a long storage name: a stranger cannot make the server hold more than this."""

MESSAGE_MAX_BYTES = 256 * 1024 * 1024
"""The largest object record that a registered peer may send or ask for."""


class Role(Enum):
    """Which end of the connection a session is."""

    CLIENT = "client"
    SERVER = "server"


class State(Enum):
    """Where a session stands."""

    GREETING = "greeting"
    UNREGISTERED = "unregistered"
    READY = "ready"
    CLOSED = "closed"


class Greeted(NamedTuple):
    """The peer agreed on the protocol. `answer` is to be sent at once; empty on the server's side."""

    answer: bytes


class StatusRequested(NamedTuple):
    """A monitor asked `ruok`: send `Session.status(json)` and close."""


class Registered(NamedTuple):
    """The client chose its storage: from here on every call is open to it."""


class Request(NamedTuple):
    """The peer calls `method`, whose arguments fit the table. `one_way` wants no reply.

    The peer says which it wants, whatever the table says, as in ZEO: a load without a reply comes to nothing, and a
    one-way method called for a reply is answered None.
    """

    message_id: Any
    method: str
    args: tuple[Any, ...]
    one_way: bool


class Reply(NamedTuple):
    """The peer answers the call `message_id`."""

    message_id: Any
    result: Any


class ErrorReply(NamedTuple):
    """The peer answers the call `message_id` with an error; `faults.from_wire` makes an exception of it."""

    message_id: Any
    name: str
    arguments: Any


class KeepAlive(NamedTuple):
    """The peer lives."""


class Failed(NamedTuple):
    """The peer broke the protocol: close the connection. No event follows."""

    error: RemoteProtocolError


Event: TypeAlias = Greeted | StatusRequested | Request | Reply | ErrorReply | KeepAlive | Failed

TRANSITIONS: Mapping[State, Mapping[type, State]] = {
    State.GREETING: {Greeted: State.UNREGISTERED, StatusRequested: State.CLOSED, Failed: State.CLOSED},
    State.UNREGISTERED: {
        Request: State.UNREGISTERED,
        Reply: State.UNREGISTERED,
        ErrorReply: State.UNREGISTERED,
        KeepAlive: State.UNREGISTERED,
        Registered: State.READY,
        Failed: State.CLOSED,
    },
    State.READY: {
        Request: State.READY,
        Reply: State.READY,
        ErrorReply: State.READY,
        KeepAlive: State.READY,
        Failed: State.CLOSED,
    },
    State.CLOSED: {},
}
"""For each state, the events that it knows and where they lead. A missing entry is an error."""

_GREETING, _UNREGISTERED, _READY, _CLOSED = State  # a member looked up through its class costs 0.2 us in 3.11
_SERVER = Role.SERVER


class Session:
    """One end of a connection. `receive` and the sending methods may run in two threads, each in one at a time."""

    def __init__(
        self,
        role: Role,
        max_message_bytes: int = MESSAGE_MAX_BYTES,
        max_unregistered_bytes: int = UNREGISTERED_MAX_BYTES,
    ) -> None:
        self.role = role
        self.state = _GREETING
        self._max_message_bytes = max_message_bytes
        self._limits = {State.GREETING: GREETING_MAX_BYTES, State.UNREGISTERED: max_unregistered_bytes}
        self._frames = FrameDecoder(GREETING_MAX_BYTES)
        self._encoder = Encoder()
        self._register_id: int | None = None
        self._is_client = role is Role.CLIENT
        self._decode = decode_call if role is _SERVER else decode
        self._known = CLIENT_CALLS if role is _SERVER else SERVER_PUSHES
        self._callable = SERVER_PUSHES if role is _SERVER else CLIENT_CALLS

    # -- receiving ------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> Iterator[Event]:
        """Take bytes of the peer and yield what they mean, to be handled one by one and to the end.

        After Failed, or once the session is closed, whatever arrives is dropped.
        """
        if self.state is not _CLOSED:
            self._frames.feed(data)
        while self.state is not _CLOSED:
            try:
                payload = self._frames.take()
                if payload is None:
                    return
                event = self._event(payload)
            except RemoteProtocolError as error:
                self._move(Failed)
                yield Failed(error)
                return
            yield event

    def _event(self, payload: bytes | bytearray) -> Event:
        if self.state is _GREETING:
            return self._greeted(payload)
        message_id, flag, name, body = self._decode(payload)
        if name == REPLY:
            return self._reply(message_id, flag, body)
        if message_id == KEEP_ALIVE_ID:
            return KeepAlive()
        return self._request(message_id, flag, name, body)

    def _greeted(self, payload: bytes | bytearray) -> Event:
        if payload == PROTOCOL:
            self._move(Greeted)
            return Greeted(encode_frame(PROTOCOL) if self.role is Role.CLIENT else b"")
        if payload == STATUS_REQUEST and self.role is _SERVER:
            self._move(StatusRequested)
            return StatusRequested()
        raise RemoteProtocolError(f"a greeting of {bytes(payload[:16])!r} instead of {PROTOCOL!r}")

    def _request(self, message_id: object, flag: int, name: str, args: Any) -> Request:
        method = self._known.get(name)
        if method is None:
            raise RemoteProtocolError(f"an unknown method {name[:64]!r}")
        fault = method.fault(args)
        if fault is not None:
            raise RemoteProtocolError(fault)
        if self.state is not _READY or name == "register":
            self._check_order(name)
        if not flag and self._is_client:
            raise RemoteProtocolError(f"{name} wants a reply, where only one-way calls are expected")
        return Request(message_id, name, args, bool(flag))

    def _check_order(self, method: str) -> None:
        """Only a server may hear `register`, first and once; a client is told things once it is registered."""
        if self.role is Role.CLIENT or self.state is _READY or method != "register":
            raise RemoteProtocolError(f"{method} while {self.state.value}")

    def _reply(self, message_id: object, flag: int, body: Any) -> Event:
        if not self._is_client:
            raise RemoteProtocolError("a reply, where only calls are expected")
        if type(message_id) is not int:  # not True or 1.0 either, which would equal the id of a call
            raise RemoteProtocolError("a reply to what is no id of a call")
        if flag != ERROR_FLAG:
            if self.state is _UNREGISTERED and message_id == self._register_id:
                self._move(Registered)
            return Reply(message_id, body)
        if type(body) is not tuple or len(body) != 2 or not isinstance(body[0], str):
            raise RemoteProtocolError("an error reply that is no pair of class name and arguments")
        return ErrorReply(message_id, body[0], body[1])

    def missing_bytes(self) -> int:
        """Return how many bytes the message that has begun to arrive still lacks: a hint for the next read."""
        return self._frames.missing_bytes()

    # -- sending --------------------------------------------------------------------------------------------------

    def greeting(self) -> bytes:
        """Return what to send when the connection is made: the server speaks first."""
        return encode_frame(PROTOCOL) if self.role is _SERVER else b""

    def registered(self) -> None:
        """Take note, on the server's side, that the client's `register` was granted; its reply is sent after this."""
        self._move(Registered)

    def call(self, message_id: int, method: str, args: Sequence[object]) -> bytes:
        """Return the bytes of a call that wants a reply under `message_id`, a number above 0 not in use."""
        self._check_sending(method)
        if method == "register":
            self._register_id = message_id
        return self._encoder.call(message_id, method, args)

    def one_way(self, method: str, args: Sequence[object]) -> bytes:
        """Return the bytes of a call that wants no reply."""
        self._check_sending(method)
        return self._encoder.one_way(method, args)

    def reply(self, message_id: object, result: object) -> bytes:
        """Return the bytes of the reply to the call `message_id`."""
        return self._encoder.reply(message_id, result)

    def error(self, message_id: object, error: BaseException) -> bytes:
        """Return the bytes of the error reply to the call `message_id`."""
        return self._encoder.error(message_id, error)

    def keep_alive(self) -> bytes:
        """Return the bytes that show that this side lives."""
        return self._encoder.keep_alive()

    def status(self, text: bytes) -> bytes:
        """Return the bytes that answer StatusRequested: one frame of JSON."""
        return encode_frame(text)

    def close(self) -> None:
        """End the session: nothing that arrives from now on means anything."""
        self.state = _CLOSED

    def _check_sending(self, method: str) -> None:
        if method not in self._callable:
            raise LocalProtocolError(f"{method} is no method that a {self.role.value} may call")
        if self.state is not _READY and not (method == "register" and self.state is _UNREGISTERED):
            raise LocalProtocolError(f"{method} while {self.state.value}")

    def _move(self, event: type) -> None:
        try:
            self.state = TRANSITIONS[self.state][event]
        except KeyError:
            raise LocalProtocolError(f"{event.__name__} while {self.state.value}") from None
        self._frames.max_bytes = self._limits.get(self.state, self._max_message_bytes)
