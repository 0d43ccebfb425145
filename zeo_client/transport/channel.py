"""One connection to a server, used by many threads at once.

The thread that calls sends on the socket and, while it waits for its reply, reads from it: a hand-over to an I/O thread
and back costs more than the network does. One thread at a time is the reader. It takes in whatever arrives, in the
order of the stream: replies are given to the calls they belong to, pushes to `on_push`. When its own reply has come it
wakes another waiting thread to read on. When no thread waits, the supervisor's background thread reads (`attend`).

Lesson B1 is kept here: what a reply changes (the cache) is done by its `on_reply`, in the reader, before the next
message is looked at; and lesson B20: an error in there ends the connection.
"""

import contextlib
import itertools
import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from zeo_client.transport.address import Address
from zeo_core.errors import ClientDisconnected, RemoteProtocolError, from_wire
from zeo_core.wire.session import ErrorReply, Event, Failed, Greeted, Reply, Request, Role, Session

__all__ = ["Call", "Channel", "OnPush", "OnReply"]

logger = logging.getLogger(__name__)

OnReply = Callable[["Call", Any], Any]
"""Runs in the reader's thread when the reply comes; what it returns is what the caller gets."""

OnPush = Callable[["Channel", str, tuple[Any, ...]], None]

READ_BYTES = 64 * 1024
"""One read takes many small messages in; a large message asks for what it lacks, up to LARGE_READ_BYTES."""

LARGE_READ_BYTES = 4 * 1024 * 1024

TICK_S = 0.005
"""While threads call, the background thread only looks every so often whether they still do. It bounds how long an
invalidation can lie in the socket after the last call; polling all the time would wake it for each reply."""

KEEP_ALIVE_S = 60.0
"""ZEO's clients send a sign of life as often."""


class Call:
    """A call on its way: made by `Channel.start`, waited for by `Channel.wait`."""

    __slots__ = ("args", "done", "error", "method", "on_reply", "result", "superseded_at", "waiting", "wake")

    def __init__(self, method: str, args: Sequence[Any], on_reply: OnReply | None) -> None:
        self.method, self.args, self.on_reply = method, args, on_reply
        self.done = False
        self.waiting = False
        self.result: Any = None
        self.error: Exception | None = None
        self.superseded_at: bytes | None = None
        self.wake = threading.Lock()
        self.wake.acquire()

    def signal(self) -> None:
        """Wake the waiting thread; a signal that comes before it waits, or twice, is not lost and does no harm."""
        with contextlib.suppress(RuntimeError):
            self.wake.release()


class Channel:
    """A connected, greeted session. `lost` is None, or why the connection ended; it never comes back."""

    def __init__(self, sock: socket.socket, address: Address, on_push: OnPush, max_message_bytes: int) -> None:
        self.address = address
        self.lost: str | None = None
        self._sock = sock
        self._on_push = on_push
        self._session = Session(Role.CLIENT, max_message_bytes)
        self._ids = itertools.count(1)
        self._calls = 0
        self._pending: dict[int, Call] = {}
        self._sending = threading.Lock()
        self._reading = threading.Lock()

    # -- for callers ----------------------------------------------------------------------------------------------

    def greet(self) -> None:
        """Shake hands; before any call, under the socket's own timeout. ClientDisconnected says what went wrong."""
        greeted = False
        while not greeted:
            for event in self._session.receive(self._receive()):
                if isinstance(event, Greeted):
                    self._sock.sendall(event.answer)
                    greeted = True
                elif isinstance(event, Failed):
                    self.fail(str(event.error))
            if self.lost is not None:
                raise self._disconnected()

    def call(self, method: str, args: Sequence[Any] = (), on_reply: OnReply | None = None) -> Any:
        """Call and wait for the result; raises what the server reports, or ClientDisconnected."""
        return self.wait(self.start(method, args, on_reply))

    def start(
        self, method: str, args: Sequence[Any] = (), on_reply: OnReply | None = None, before: bytes = b""
    ) -> Call:
        """Send a call, after the one-way calls in `before`, in one write.

        ClientDisconnected if nothing was sent because the connection is lost already. If it gets lost meanwhile,
        `wait` tells.
        """
        call = Call(method, args, on_reply)
        try:
            with self._sending:
                if self.lost is not None:
                    raise self._disconnected()
                message_id = next(self._ids)
                data = self._session.call(message_id, method, args)
                self._pending[message_id] = call
                self._calls = message_id
                self._sock.sendall(before + data if before else data)
        except OSError as error:
            self.fail(f"sending failed: {error}")
        return call

    def send(self, data: bytes) -> None:
        """Send encoded one-way calls; ClientDisconnected if the connection is lost."""
        try:
            with self._sending:
                if self.lost is not None:
                    raise self._disconnected()
                self._sock.sendall(data)
        except OSError as error:
            self.fail(f"sending failed: {error}")
            raise self._disconnected() from None

    def wait(self, call: Call) -> Any:
        """Wait for the reply to `call`, reading for everybody if no other thread does."""
        call.waiting = True  # before looking for the reader's place: whoever leaves it looks for waiting calls after
        while not call.done:
            if self._reading.acquire(blocking=False):
                try:
                    self._read_until(call)
                finally:
                    self._leave_reading()
            else:
                call.wake.acquire()
        if call.error is not None:
            raise call.error
        return call.result

    def drain(self) -> None:
        """Take in what has arrived already, without waiting: fresher snapshots for the price of one system call."""
        if not self._reading.acquire(blocking=False):
            return  # its holder is taking it in
        try:
            self._take_in_available()
        finally:
            self._leave_reading()

    def pending_calls(self) -> list[Call]:
        """Return the calls that have no reply yet."""
        return list(self._pending.values())

    def set_timeout(self, seconds: float | None) -> None:
        """Bound each single socket operation; for the time of connecting, None afterwards."""
        with contextlib.suppress(OSError):
            self._sock.settimeout(seconds)

    def fail(self, reason: str) -> None:
        """End the connection: every pending and every later call raises ClientDisconnected with `reason`."""
        # The socket first: a thread that is stuck in sendall holds the lock that is wanted next.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        with self._sending:
            if self.lost is not None:
                return
            self.lost = reason
            self._session.close()
            pending = list(self._pending.values())
            self._pending.clear()
        for call in pending:
            call.error = self._disconnected()
            call.done = True
            call.signal()

    def close(self) -> None:
        """Let go of the socket, after `fail` and when no thread reads any more."""
        self.fail("closed")
        with self._reading:
            self._sock.close()

    # -- for the background thread --------------------------------------------------------------------------------

    def attend(self) -> None:
        """Read while no one waits, and show signs of life, until the connection is lost."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        seen = -1
        while self.lost is None:
            if seen != self._calls:  # somebody has been calling, and reads
                seen = self._calls
                time.sleep(TICK_S)
            elif poll.poll(KEEP_ALIVE_S * 1000):
                self.drain()
            else:
                self._keep_alive()

    def _keep_alive(self) -> None:
        with contextlib.suppress(ClientDisconnected):
            self.send(self._session.keep_alive())

    # -- reading --------------------------------------------------------------------------------------------------

    def _leave_reading(self) -> None:
        """Give up the reader's place and wake a thread that waits for a reply, to take it."""
        self._reading.release()
        for call in self.pending_calls() if self._pending else ():
            if call.waiting and not call.done:
                call.signal()
                return

    def _read_until(self, call: Call) -> None:
        while not call.done:
            self._take_in(self._receive(), call)

    def _take_in_available(self) -> None:
        while self.lost is None:
            try:
                data = self._sock.recv(READ_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                self.fail(f"reading failed: {error}")
                return
            self._take_in(data, None)

    def _receive(self) -> bytes:
        try:
            return self._sock.recv(max(READ_BYTES, min(self._session.missing_bytes(), LARGE_READ_BYTES)))
        except OSError as error:
            self.fail(f"reading failed: {error}")
            return b""

    def _take_in(self, data: bytes, own: Call | None) -> None:
        if not data:
            self.fail("the server closed the connection")
            return
        try:
            for event in self._session.receive(data):
                self._dispatch(event, own)
        except Exception as error:
            # Whatever could not be applied is lost for good: only a new connection, verified, can make it up (B20).
            logger.exception("%s: cannot apply what the server sent", self.address)
            self.fail(f"cannot apply what the server sent: {error}")
        except BaseException:  # KeyboardInterrupt in the middle of it
            self.fail("interrupted while applying what the server sent")
            raise

    def _dispatch(self, event: Event, own: Call | None) -> None:
        if type(event) is Reply:
            call = self._pop(event.message_id)
            on_reply = call.on_reply
            try:
                call.result = event.result if on_reply is None else on_reply(call, event.result)
            except Exception as error:
                call.error = error
                raise
            finally:
                self._done(call, own)
        elif type(event) is Request:
            self._on_push(self, event.method, event.args)
        elif type(event) is ErrorReply:
            call = self._pop(event.message_id)
            call.error = from_wire(event.name, event.arguments)
            self._done(call, own)
        elif type(event) is Failed:
            self.fail(str(event.error))

    def _pop(self, message_id: object) -> Call:
        call = self._pending.pop(message_id, None) if isinstance(message_id, int) else None
        if call is None:
            raise RemoteProtocolError(f"a reply to {message_id!r}, which is no call of ours")
        return call

    def _done(self, call: Call, own: Call | None) -> None:
        call.done = True
        if call is not own:
            call.signal()

    def _disconnected(self) -> ClientDisconnected:
        return ClientDisconnected(str(self.address), self.lost or "")
