"""One connection to a server, used by many threads at once.

The thread that calls sends on the socket and, while it waits for its reply, reads from it: a hand-over to an I/O thread
and back costs more than the network does. One thread at a time is the reader. It takes in whatever arrives, in the
order of the stream: replies are given to the calls they belong to, pushes to `on_push`. When its own reply has come it
wakes another waiting thread to read on. When no thread waits, the process's attendant reads (`transport.attendant`).

Lesson B1 is kept here: what a reply changes (the cache) is done by its `on_reply`, in the reader, before the next
message is looked at; and lesson B20: an error in there ends the connection. Nothing in there may wait for the server:
the thread that would read the answer is the very one that waits.

An exception from outside (KeyboardInterrupt) may hit any instruction. A thread that is reading or sending when it comes
cannot tell what it has already taken from the stream or given to it, so it ends the connection; a thread that only
waits goes away alone.
"""

import contextlib
import itertools
import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NoReturn

from zeo_client.transport.address import Address
from zeo_client.transport.attendant import Post, let_go, look_after
from zeo_client.transport.link_speed import LinkSpeed
from zeo_client.transport.spin import Spin
from zeo_client.transport.tls import TLSSocket
from zeo_core.errors import ClientDisconnected, LocalProtocolError, RemoteProtocolError
from zeo_core.wire.codec import Encoder
from zeo_core.wire.faults import from_wire
from zeo_core.wire.session import ErrorReply, Event, Failed, Greeted, Reply, Request, Role, Session

__all__ = [
    "ATTENDING_S",
    "KEEP_ALIVE",
    "KEEP_ALIVE_S",
    "LARGE_READ_BYTES",
    "READ_BYTES",
    "Call",
    "Channel",
    "OnPush",
    "OnReply",
]

logger = logging.getLogger(__name__)

OnReply = Callable[["Call", Any], Any]
"""Runs in the reader's thread when the reply comes; what it returns is what the caller gets."""

OnPush = Callable[["Channel", str, tuple[Any, ...]], None]

READ_BYTES = 64 * 1024
"""One read takes many small messages in; a large message asks for what it lacks, up to LARGE_READ_BYTES."""

LARGE_READ_BYTES = 4 * 1024 * 1024

ATTENDING_S = 0.05
"""How long is waited for the attendant at most: it takes one read in, but may wait for a lock of the application's."""

KEEP_ALIVE_S = 60.0
"""ZEO's clients send a sign of life as often."""

KEEP_ALIVE = Encoder().keep_alive()


class Call:
    """A call on its way: made by `Channel.start`, waited for by `Channel.wait`."""

    __slots__ = ("args", "done", "error", "method", "on_reply", "result", "shared", "superseded", "waiting", "wake")

    def __init__(self, method: str, args: Sequence[Any], on_reply: OnReply | None) -> None:
        self.method, self.args, self.on_reply = method, args, on_reply
        self.done = False
        self.waiting = False
        self.shared = False  # several threads may wait for it
        self.result: Any = None
        self.error: Exception | None = None
        # the tids of invalidations that arrived before the reply, and the oids that they were about
        self.superseded: tuple[tuple[bytes, Collection[bytes]], ...] = ()
        self.wake = threading.Lock()
        self.wake.acquire()

    def signal(self) -> None:
        """Wake the waiting thread; a signal that comes before it waits, or twice, is not lost and does no harm."""
        with contextlib.suppress(RuntimeError):
            self.wake.release()


class Channel:
    """A connected, greeted session. `lost` is None, or why it ended, `lost_when` is when; it never comes back."""

    def __init__(
        self, sock: socket.socket | TLSSocket, address: Address, on_push: OnPush, max_message_bytes: int
    ) -> None:
        self.address = address
        self.lost: str | None = None
        self.lost_when = ""
        self._reason = ""
        self._sock = sock
        self._spin = Spin(sock)
        self.speed = LinkSpeed()
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        self._arrived = poll.poll  # for the reader
        self._on_push = on_push
        self._session = Session(Role.CLIENT, max_message_bytes)
        self._ids = itertools.count(1)
        self.calls = 0
        """The number of the last call."""
        self._pending: dict[int, Call] = {}
        self._sending = threading.Lock()
        # Whoever holds it is the reader. Reentrant only because such a lock knows its holder.
        self._reading = threading.RLock()
        self._applying = False  # the reader is in the middle of a message
        self._post: Post | None = None
        self._attending = 0  # the attendant's thread while it is the reader; it never waits for the server
        self._ended = threading.Event()

    # -- for callers ----------------------------------------------------------------------------------------------

    def greet(self) -> None:
        """Shake hands; before any call, under the socket's own timeout. ClientDisconnected says what went wrong."""
        greeted = False
        while not greeted:
            data = self._receive()
            if not data:
                self.fail("the server closed the connection before it greeted")
            for event in self._session.receive(data):
                if isinstance(event, Greeted):
                    self.send(event.answer)
                    greeted = True
                elif isinstance(event, Failed):
                    self.fail(str(event.error))
            if self.lost is not None:
                raise self._disconnected()

    def call(self, method: str, args: Sequence[Any] = (), on_reply: OnReply | None = None) -> Any:
        """Call and wait for the result; raises what the server reports, or ClientDisconnected."""
        post = self._post
        if post is None or not post.watched:
            return self.wait(self.start(method, args, on_reply))
        post.taken()  # the reply may be there sooner than this thread waits for it
        try:
            return self.wait(self.start(method, args, on_reply))
        finally:
            if not post.tended:
                self._hand_on()

    def start(
        self, method: str, args: Sequence[Any] = (), on_reply: OnReply | None = None, before: bytes = b""
    ) -> Call:
        """Send a call, after the one-way calls in `before`, in one write.

        ClientDisconnected if it could not be sent whole: the server cannot have acted on it. If the connection is lost
        later, `wait` tells.
        """
        call = Call(method, args, on_reply)
        with self._sending:
            if self.lost is not None:
                raise self._disconnected()
            message_id = next(self._ids)
            data = self._session.call(message_id, method, args)
            self._pending[message_id] = call
            self.calls = message_id
            fault = self._write(before + data if before else data)
        if fault is not None:
            self._cannot_send(fault)
        return call

    def start_all(self, method: str, arguments: Iterable[Sequence[Any]], on_reply: OnReply | None) -> list[Call]:
        """Do as `start` does, for a call with each of `arguments`, in one write."""
        calls = [Call(method, args, on_reply) for args in arguments]
        with self._sending:
            if self.lost is not None:
                raise self._disconnected()
            by_id = {next(self._ids): call for call in calls}
            data = b"".join(self._session.call(message_id, method, call.args) for message_id, call in by_id.items())
            self._pending.update(by_id)
            self.calls = max(by_id, default=self.calls)
            fault = self._write(data)
        if fault is not None:
            self._cannot_send(fault)
        return calls

    def send(self, data: bytes | bytearray) -> None:
        """Send encoded one-way calls; ClientDisconnected if the connection is lost."""
        with self._sending:
            if self.lost is not None:
                raise self._disconnected()
            fault = self._write(data)
        if fault is not None:
            self._cannot_send(fault)

    def _write(self, data: bytes | bytearray) -> BaseException | None:
        """Send, and return what went wrong: to be told without the lock, which `fail` wants."""
        try:
            self._sock.sendall(data)
        except BaseException as error:  # noqa: BLE001 - an interrupt, too, may leave half a message behind
            return error
        return None

    def _cannot_send(self, fault: BaseException) -> NoReturn:
        if isinstance(fault, OSError):
            self.fail(f"sending failed: {fault}")
            raise self._disconnected() from None
        self.fail(f"interrupted while sending: {type(fault).__name__}")
        raise fault

    def wait(self, call: Call) -> Any:
        """Wait for the reply to `call`, reading for everybody if no other thread does."""
        if self._applying:
            self._check_not_applying(call)
        call.waiting = True  # before looking for the reader's place: whoever leaves it looks for waiting calls after
        try:
            while not call.done:
                if self._reading.acquire(blocking=False):
                    self._read_until(call)
                    self._leave_reading()
                else:
                    call.wake.acquire()
        except BaseException as error:
            call.waiting = False
            self._interrupted(error)
            raise
        if call.shared:
            call.signal()  # the next one
        if call.error is not None:
            raise call.error
        return call.result

    def drain(self) -> bool:
        """Take in what has arrived already, without waiting: fresher snapshots for the price of one system call.

        False if there is a reader already, which is taking it in; perhaps this very thread, in `on_push`. Only the
        attendant is waited for: it may have been woken by the very message that this call is to take in.
        """
        try:
            attending = self._attending
            if attending and attending != threading.get_ident():
                if not self._reading.acquire(timeout=ATTENDING_S):
                    return False
            elif self._applying or not self._reading.acquire(blocking=False):
                return False
            self._take_in_available()
            self._leave_reading()
        except BaseException as error:
            self._interrupted(error)
            raise
        return True

    def pending_calls(self) -> list[Call]:
        """Return the calls that have no reply yet."""
        return list(self._pending.values())

    def set_timeout(self, seconds: float | None) -> None:
        """Bound each single socket operation; for the time of connecting, None afterwards."""
        with contextlib.suppress(OSError):
            self._sock.settimeout(seconds)

    def fail(self, reason: str) -> None:
        """End the connection: every pending and every later call raises ClientDisconnected with `reason`."""
        # The reason first: the reader will fail, too, when the socket ends under it. Then the socket: a thread that is
        # stuck in sendall holds the lock that is wanted next.
        self._reason = self._reason or reason
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        with self._sending:
            if self.lost is not None:
                return
            self.lost_when = time.strftime("%Y-%m-%d %H:%M:%S")
            self.lost = self._reason
            self._session.close()
            self._ended.set()
            pending = list(self._pending.values())
            self._pending.clear()
        for call in pending:
            if not call.done:
                call.error = call.error or self._disconnected()
                call.done = True
            call.signal()

    def close(self) -> None:
        """Let go of the socket, after `fail` and when no thread reads any more."""
        self.fail("closed")
        with self._reading:
            self._sock.close()

    # -- for the background threads -------------------------------------------------------------------------------

    def attend(self) -> None:
        """Have what comes taken in while no one waits, and show signs of life, until the connection is lost."""
        post = self._post = look_after(self)
        try:
            calls = self.calls
            while not self._ended.wait(KEEP_ALIVE_S):
                if calls == self.calls:
                    self._keep_alive()
                calls = self.calls
        finally:
            let_go(post)

    def attend_once(self) -> bool:
        """Take in what has arrived, without waiting; False if another thread reads, or the connection is lost."""
        try:
            if self.lost is not None or not self._reading.acquire(blocking=False):
                return False
            self._attending = threading.get_ident()
            data = self._receive_arrived()
            if data is not None:
                self._take_in(data, None)
            self._attending = 0
            self._leave_reading()
        except BaseException as error:
            self._attending = 0
            self._interrupted(error)
            raise
        return True

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._sock.fileno()

    def _keep_alive(self) -> None:
        with contextlib.suppress(ClientDisconnected):
            self.send(KEEP_ALIVE)

    # -- reading --------------------------------------------------------------------------------------------------

    def _leave_reading(self) -> None:
        """Give up the reader's place: to a thread that waits for a reply, or to the attendant."""
        self._reading.release()
        self._hand_on()

    def _hand_on(self) -> None:
        if not (self._pending and self._wake_a_reader()):
            post = self._post
            if post is not None and not post.tended:
                post.left()

    def _interrupted(self, error: BaseException) -> None:
        """Leave `wait` or `drain` by an exception, at whatever instruction it came."""
        try:
            self._reading.release()  # only its holder can
        except RuntimeError:
            pass  # this thread was not the reader, but it may have been woken to become it
        else:
            self.fail(f"interrupted while reading: {type(error).__name__}")
        self._hand_on()

    def _check_not_applying(self, call: Call) -> None:
        """Refuse to wait in the thread that is in the middle of a message: nobody would read the reply."""
        if self._reading.acquire(blocking=False):  # it is this thread's, or free
            applying = self._applying
            self._reading.release()
            if applying:
                raise LocalProtocolError(f"{call.method} was called while a message of the server was being applied")

    def _wake_a_reader(self) -> bool:
        """Wake a thread that waits for a reply, to take the reader's place; False if none does."""
        for call in self.pending_calls():
            if call.waiting and not call.done:
                call.signal()
                return True
        return False

    def _read_until(self, call: Call) -> None:
        post = self._post
        if post is not None and post.watched:
            post.taken()
        # A finish waits for the disk, and with several calls under way somebody else has a use for the processor.
        soon = call.method != "tpc_finish" and len(self._pending) == 1
        while not call.done:
            self._take_in(self._receive(soon), call)

    def _take_in_available(self) -> None:
        # Asked first: usually nothing is there, and to be told so by an exception takes three times as long.
        while self.lost is None and self._arrived(0):
            data = self._receive_arrived()
            if data is None:
                return
            self._take_in(data, None)

    def _receive_arrived(self) -> bytes | None:
        """Return what has arrived, b"" at the end, None if nothing has."""
        size = max(READ_BYTES, min(self._session.missing_bytes(), LARGE_READ_BYTES))
        try:
            return self._sock.recv(size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            self.fail(f"reading failed: {error}")
            return None

    def _receive(self, soon: bool = False) -> bytes:
        missing_bytes = self._session.missing_bytes()
        if missing_bytes:
            self.speed.note(missing_bytes)
        size = max(READ_BYTES, min(missing_bytes, LARGE_READ_BYTES))
        try:
            data = self._spin.receive(size) if soon else None
            return self._sock.recv(size) if data is None else data
        except OSError as error:
            self.fail(f"reading failed: {error}")
            return b""

    def _take_in(self, data: bytes, own: Call | None) -> None:
        if not data:
            self.fail("the server closed the connection")
            return
        self._applying = True
        try:
            for event in self._session.receive(data):
                self._dispatch(event, own)
        except Exception as error:
            # Whatever could not be applied is lost for good: only a new connection, verified, can make it up (B20).
            if self.lost is None:  # else it met a connection that was closed meanwhile
                logger.exception("%s: cannot apply what the server sent", self.address)
                self.fail(f"cannot apply what the server sent: {error}")
        finally:
            self._applying = False

    def _dispatch(self, event: Event, own: Call | None) -> None:
        if type(event) is Reply:
            call = self._called(event.message_id)
            on_reply = call.on_reply
            try:
                call.result = event.result if on_reply is None else on_reply(call, event.result)
            except Exception as error:
                call.error = error  # whoever waits for it is told when the connection has ended
                raise
            self._done(call, event.message_id, own)
        elif type(event) is Request:
            self._on_push(self, event.method, event.args)
        elif type(event) is ErrorReply:
            call = self._called(event.message_id)
            call.error = from_wire(event.name, event.arguments)
            self._done(call, event.message_id, own)
        elif type(event) is Failed:
            self.fail(str(event.error))

    def _called(self, message_id: object) -> Call:
        call = self._pending.get(message_id) if type(message_id) is int else None
        if call is None:
            raise RemoteProtocolError(f"a reply to {message_id!r}, which is no call of ours")
        return call

    def _done(self, call: Call, message_id: int, own: Call | None) -> None:
        call.done = True
        if call is not own:
            call.signal()
        # Last: should an interrupt come before, `fail` still finds the call and wakes its thread.
        self._pending.pop(message_id, None)

    def _disconnected(self) -> ClientDisconnected:
        return ClientDisconnected(str(self.address), self.lost or "", self.lost_when)
