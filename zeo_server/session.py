"""One connection: the asyncio protocol around the wire's session.

Requests are handled in `data_received`, one after the other, by plain functions: no task, no future, no log line on
the way of a load. All replies of one read leave in one write. Everything that goes to the peer goes through `send`, in
the order of the calls, since the order of the stream is what clients rely on (invariant 3).

A peer that sends faster than it reads is not read from until it has caught up; one that does not even read what is
pushed to it is cut off.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from time import perf_counter
from typing import Any, cast

from zeo_core.errors import AccessDeniedError, ConflictError, POSKeyError, ReadOnlyError, ZeodError
from zeo_core.ids import Oid, Tid
from zeo_core.roles import ClientRole
from zeo_core.storage import ServedStorage
from zeo_core.transaction import Revision
from zeo_core.wire.methods import CLIENT_CALLS
from zeo_core.wire.session import Event, Failed, Request, Role, Session, StatusRequested
from zeo_server.bulk import BulkLoads, Wanted
from zeo_server.commit.coordinator import Coordinator
from zeo_server.commit.transaction import Answer
from zeo_server.counters import ClientCounters
from zeo_server.downloads import Downloads
from zeo_server.handlers import HANDLERS
from zeo_server.iterators import Iterators
from zeo_server.limits import Limits
from zeo_server.long_answers import LongAnswers
from zeo_server.peer import Peer, peer_name
from zeo_server.service import CLOSE_GRACE_S, Service
from zeo_server.slow_calls import SlowCalls
from zeo_server.status import ClientStatus, status_json
from zeo_server.storages.relayed import load_threads

__all__ = ["PATIENCE_S", "ServerSession"]

PATIENCE_S = 0.005
"""How long an invalidation may wait for the answer to a finish or a vote, with which it leaves."""

_EVERYDAY = (ConflictError, POSKeyError, ReadOnlyError)  # everyday errors of a client; no line in the server's log
_ADMIN = ClientRole.ADMIN

_log = logging.getLogger("ZEO.StorageServer")


class ServerSession(asyncio.Protocol):
    """One client's connection, from accept to close."""

    coordinator: Coordinator
    storage: ServedStorage
    iterators: Iterators

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        self.label = "a new connection"
        self.role = ClientRole.READER  # until it registers
        self.limits = limits = service.limits
        self.service = service
        self.counters = ClientCounters()
        self._took_a_turn = service.turns.observe
        self._flush_soon = service.outgoing.add
        self._client_label = ""
        self._loop = loop
        self._wire = Session(Role.SERVER, limits.message_max_bytes, limits.registration_max_bytes)
        self._made_s = self._heard_s = loop.time()
        self._heard = True  # something was said since `end_if_silent` looked
        self._waiting = 0  # calls that wait for a thread
        self._out: list[bytes | bytearray] = []
        self._out_bytes = 0
        self._flushing = False  # a callback that writes _out is on its way
        self._flush_timer: asyncio.TimerHandle | None = None
        self.awaiting = 0
        """How many transactions of this client wait for their turn, are voted or with the writer; not counted here."""
        self._receiving = False  # the events of a read are being handled, and _out is written after them
        self._events: Iterator[Event] | None = None  # what is left of a read that had to stop
        self._paused = False  # the peer does not read as fast as we write
        self._held = False  # what the peer sends comes faster than it can be dealt with
        self._downloads: Downloads | None = None
        self._bulk_loads: BulkLoads | None = None
        self._long_answers: list[LongAnswers[Any]] = []  # theirs
        self._registered = False
        self._slow_calls: SlowCalls | None = None  # most clients never have any
        self._ended = False
        self._abort_timer: asyncio.TimerHandle | None = None  # of a connection that was ended from here
        self._transport: asyncio.Transport

    # -- what asyncio calls -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = stream = cast(asyncio.Transport, transport)  # uvloop's transports are no subclass of it
        self.label = peer_name(transport)
        stream.set_write_buffer_limits(high=self.limits.high_water_bytes)
        peer = transport.get_extra_info("peername")
        refusal = self.service.enter(self, peer[0] if isinstance(peer, tuple) else None)
        if refusal is None:
            stream.write(self._wire.greeting())
        else:
            self.disconnect(refusal)

    def data_received(self, data: bytes) -> None:
        """Handle what arrived."""
        self._heard = True
        self.counters.bytes_in += len(data)
        events = self._wire.receive(data)
        self._handle(events if self._events is None else chain(self._events, events))

    def pause_writing(self) -> None:
        """Take no more requests: the peer has to read first."""
        self._paused = True
        self._update_reading()

    def resume_writing(self) -> None:
        """Go on: the peer has caught up."""
        self._paused = False
        for answers in self._long_answers:
            answers.resume()
        self._loop.call_soon(self._go_on)

    def connection_lost(self, exc: Exception | None) -> None:
        """Free everything, if that is not done yet."""
        self._leave("disconnected" + (f": {exc}" if exc else ""), logging.INFO if self._registered else logging.DEBUG)
        if self._abort_timer is not None:
            self._abort_timer.cancel()  # it would keep all of this in memory until then
            self._abort_timer = None
        self.service.exit(self)

    # -- what handlers and the coordinator call --------------------------------------------------------------------

    def register(self, storage: str, read_only: bool) -> Tid:
        """Choose the storage; see Service.choose. From here on the client is told of every commit."""
        coordinator, role = self.service.choose(storage, read_only, Peer.of(self._transport))
        self.coordinator, self.storage = coordinator, coordinator.storage
        self.iterators = Iterators(self.storage, self.limits.iterators_max)
        self.role = role
        self._wire.registered()
        self._registered = True
        coordinator.join(self)
        _log.info("%s: connected to storage %s%s", self.label, storage, "" if role is _ADMIN else f" as {role}")
        return self.storage.last_tid()

    def in_thread(self, function: Callable[[], object], answer: Answer) -> None:
        """Run a slow function in a thread, after those asked for before; `answer` gets what it returns or raises."""
        self.coordinator.counters.slow_calls += 1
        if self._slow_calls is None:
            self._slow_calls = SlowCalls(self._loop, self.service.threads)
        self._slow_calls.add(function, self._counted(answer))

    def rename(self, label: str) -> None:
        """Show `label` in log lines about this client."""
        self._client_label = label
        self.label = f"({label} {peer_name(self._transport)})"  # as runzeo's log has it

    def status(self) -> ClientStatus | None:
        """Return the figures of this client; None before it has registered, and when it has left."""
        if not self._registered or self._ended:
            return None
        counters = self.counters
        return ClientStatus(
            self.coordinator.name,
            self._client_label,
            peer_name(self._transport),
            self.role is ClientRole.READER,
            counters.since_s,
            counters.loads,
            counters.stores,
            counters.commits,
            counters.bytes_in,
            counters.bytes_out,
            self._transport.get_write_buffer_size() + self._out_bytes,
            counters.in_flight,
            *self.coordinator.transactions_of(self),
        )

    def send(self, frame: bytes | bytearray) -> None:
        """Queue bytes behind everything queued before. A peer whose backlog has grown too large is cut off later."""
        if self._ended:
            return
        if not (self._receiving or self._flushing):
            # A group's publication has several messages for each client: one write for all, right after this callback.
            self._flushing = True
            self._flush_soon(self)
        self._out.append(frame)
        self._out_bytes += len(frame)

    def send_later(self, frame: bytes) -> None:
        """Queue bytes that leave with what is sent next, or after a moment."""
        if self._ended:
            return
        if not (self._receiving or self._flushing) and self._flush_timer is None:
            self._flush_timer = self._loop.call_later(PATIENCE_S, self.flush)
        self._out.append(frame)
        self._out_bytes += len(frame)

    def send_blob(self, oid: Oid, serial: Tid, answer: Answer) -> None:
        """Send a blob, behind those asked for before, and then the answer."""
        if self._downloads is None:
            self._downloads = Downloads(self.storage, self, self.coordinator.uploads.run)
            self._long_answers.append(self._downloads.answers)
        self._downloads.send(oid, serial, self._counted(answer))

    def load_many(self, wanted: Wanted, answer: Answer) -> None:
        """Find many objects, behind what was asked for so before."""
        if self._bulk_loads is None:
            self._bulk_loads = BulkLoads(self.coordinator, self, self._loop)
            self._long_answers.append(self._bulk_loads.answers)
        self._bulk_loads.load(wanted, answer)

    def takes_more(self) -> bool:
        """Tell whether the peer has read what it was sent, or most of it."""
        return not self._paused

    def hold(self) -> None:
        """Read no more from the peer for the time being; what has been read is still handled."""
        self._held = True
        self._update_reading()

    def release(self) -> None:
        """Read from the peer again."""
        if self._held:
            self._held = False
            self._update_reading()

    def disconnect(self, reason: str) -> None:
        """End the connection with one log line; what is queued is still delivered, if the peer takes it soon."""
        self._end(reason, logging.WARNING)

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    def end_if_silent(self, now_s: float, limits: Limits) -> None:
        """End the connection if the peer does not register in time, or nothing has been said for too long."""
        if self._heard:
            self._heard, self._heard_s = False, now_s
        if not self._registered:
            if limits.registration_timeout_s and now_s - self._made_s >= limits.registration_timeout_s:
                self.disconnect(f"did not register within {limits.registration_timeout_s:g} seconds")
        elif limits.idle_timeout_s and not self._waiting and now_s - self._heard_s >= limits.idle_timeout_s:
            self.disconnect(f"silent for {limits.idle_timeout_s:g} seconds")

    # -- handling ---------------------------------------------------------------------------------------------------

    def _handle(self, events: Iterator[Event]) -> None:
        """Handle events until there are none left, the peer has to read first, or it is the others' turn."""
        start_s = perf_counter()
        self._receiving = True
        self._events = None
        left = self.limits.turn_calls
        high_water_bytes, calls_max = self.limits.high_water_bytes, self.limits.calls_max
        for event in events:
            if event.__class__ is Request:
                self._request(event)
            else:
                self._other(event)
            left -= 1
            if not left or (self._out_bytes > high_water_bytes and self._must_wait()) or self._waiting >= calls_max:
                self._events = events
                break
        self._receiving = False
        self.flush()
        self._took_a_turn(perf_counter() - start_s)
        if self._events is not None and not self._ended:
            self._update_reading()
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._ended or self._paused or self._waiting >= self.limits.calls_max:
            return
        if self._events is not None:
            self._handle(self._events)
        self._update_reading()

    def _update_reading(self) -> None:
        if self._transport.is_closing():
            return
        if self._paused or self._held or self._events is not None:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _request(self, request: Request) -> None:
        message_id, method, args, one_way = request
        call, later = HANDLERS[method]
        try:
            if self.role is not _ADMIN:
                _check_role(self.role, method, args)
            if later:
                call(self, self._answer_to(request), *args)
                return
            result = call(self, *args)
        except BlockingIOError:  # only load_cached raises it
            self.coordinator.counters.loads_waited += 1
            self._load_in_thread(self._counted(self._answer_to(request)), perf_counter(), *args)
        except Exception as error:  # noqa: BLE001 - the caller is told, and a bug is logged with its traceback
            self._failed(request, error)
        else:
            if not one_way:
                self._reply(message_id, result)

    def _load_in_thread(self, answer: Answer, start_s: float, oid: Oid, tid: Tid) -> None:
        """Load what is not in memory, without holding up the loop.

        A commit may be published and announced before the thread's result is dealt with here: what it calls current is
        true only of a moment that is gone (lesson B2). So it is asked for once more, now that it is in memory.
        """

        def loaded(future: "asyncio.Future[Revision | None]") -> None:
            try:
                revision = future.result()
                if revision is not None and revision.end_tid is None:
                    revision = self.coordinator.load(oid, tid)
            except BlockingIOError:
                self._load_in_thread(answer, start_s, oid, tid)  # it fell out of memory meanwhile
            except Exception as error:  # noqa: BLE001 - the caller is told
                answer(error)
            else:
                self.coordinator.counters.load_wait_seconds.observe(perf_counter() - start_s)
                answer(revision)

        threads, load = load_threads(self.storage), self.storage.load_before
        self._loop.run_in_executor(threads, load, oid, tid).add_done_callback(loaded)

    def _failed(self, request: Request, error: Exception) -> None:
        known = isinstance(error, ZeodError | ValueError)
        if not known:
            _log.error("%s: %s failed", self.label, request.method, exc_info=error)
        if not request.one_way:
            if known and not isinstance(error, _EVERYDAY):
                level = logging.WARNING if isinstance(error, AccessDeniedError) else logging.INFO
                _log.log(level, "%s: %s refused: %s", self.label, request.method, error)
            self._reply(request.message_id, error)
        elif isinstance(error, AccessDeniedError):
            self._refuse_part(request, error)
        elif not isinstance(error, ReadOnlyError):  # a reader's stores come to nothing: its vote is refused
            self.disconnect(f"{request.method}, a call without reply, failed: {error}")

    def _refuse_part(self, request: Request, error: AccessDeniedError) -> None:
        """Let the vote say that a call before it was refused: the rest of the transaction must not go without it."""
        if request.method == "restoreBlobEnd":
            self.coordinator.uploads.leave(self)  # the blob has come, and is of no use
        try:
            self.coordinator.refuse(self, CLIENT_CALLS[request.method].transaction(request.args), error)
        except ZeodError as fault:
            self.disconnect(f"{request.method}, a call without reply, failed: {fault}")

    def _reply(self, message_id: object, outcome: object) -> None:
        """Send a reply, or an error reply for an exception."""
        try:
            if isinstance(outcome, BaseException):
                frame = self._wire.error(message_id, outcome)
            else:
                frame = self._wire.reply(message_id, outcome)
        except (ValueError, TypeError, OverflowError) as error:
            # The id is the peer's and may nest deeper than msgpack packs; without a reply the stream is of no use.
            self.disconnect(f"a reply cannot be encoded: {error}")
        else:
            self.send(frame)

    def _answer_to(self, request: Request) -> Answer:
        self.counters.in_flight += 1

        def answer(outcome: object) -> None:
            self.counters.in_flight -= 1
            if self._ended:
                return
            if isinstance(outcome, Exception):
                self._failed(request, outcome)
            elif not request.one_way:
                self._reply(request.message_id, outcome)

        return answer

    def _counted(self, answer: Answer) -> Answer:
        """Count a call that waits for a thread until it is answered; where there were too many, go on when half are."""
        self._waiting += 1

        def counted(outcome: object) -> None:
            self._waiting -= 1
            answer(outcome)
            if self._events is not None and self._waiting == self.limits.calls_max // 2:
                self._loop.call_soon(self._go_on)

        return counted

    def _other(self, event: Event) -> None:
        if isinstance(event, Failed):
            self.disconnect(str(event.error))
        elif isinstance(event, StatusRequested):
            self.send(self._wire.status(status_json(self.service.status().storages)))
            self._end("asked for the status", logging.DEBUG)

    # -- writing and ending -----------------------------------------------------------------------------------------

    def _must_wait(self) -> bool:
        """Write the replies so far; tell whether the peer takes no more of them at present."""
        self.flush()
        return self._paused

    def flush(self) -> None:
        """Write what is queued."""
        self._flushing = False
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        out = self._out
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            self._out_bytes = 0
            self._write(data)

    def _write(self, data: bytes | bytearray) -> None:
        if self._ended:
            return
        self._heard = True
        self.counters.bytes_out += len(data)
        self._transport.write(data)
        if self._paused and self._transport.get_write_buffer_size() > self.limits.backlog_max_bytes:
            # not here: the coordinator may be in the middle of telling everybody
            self._loop.call_soon(self._cut_off)

    def _cut_off(self) -> None:
        waiting = self._transport.get_write_buffer_size()
        if self._leave(f"reads too slowly: {waiting} bytes wait for it", logging.WARNING):
            self._transport.abort()

    def _end(self, reason: str, level: int) -> None:
        self.flush()
        if self._leave(reason, level):
            self._transport.close()
            self._abort_timer = self._loop.call_later(CLOSE_GRACE_S, self._transport.abort)

    def _leave(self, reason: str, level: int) -> bool:
        """Free all that this connection holds; tell whether that was still to do.

        Every way in which a connection can end comes through here, once (lesson B17).
        """
        if self._ended:
            return False
        self._ended = True
        self._events = None
        self._out.clear()
        self._wire.close()
        for answers in self._long_answers:
            answers.close()
        if self._registered:
            self.coordinator.counters.left(self.counters)
            self.coordinator.leave(self)
        if self._slow_calls is not None:
            self._slow_calls.end(self.iterators.clear)
        _log.log(level, "%s: %s", self.label, reason)
        return True


def _check_role(role: ClientRole, method: str, args: Sequence[object]) -> None:
    """Raise an error if a call needs more than `role`. This is the one place where roles are checked."""
    needed = CLIENT_CALLS[method].role_for(args)
    if needed <= role:
        return
    if role is ClientRole.READER:
        raise ReadOnlyError("this client is connected for reading only")
    raise AccessDeniedError(f"{method} needs the role {needed}, and this client is connected as {role}")
