import contextlib
import functools
import gc
import logging
import random
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from tests.client.peer import PATIENCE_S, Background, Link, Peer, in_threads, until
from zeo_client.transport.address import Address
from zeo_client.transport.channel import Call, Channel
from zeo_core.errors import (
    ClientDisconnected,
    ConflictError,
    LocalProtocolError,
    POSKeyError,
    ServerError,
)
from zeo_core.ids import ZERO_TID, pack_id
from zeo_core.wire.codec import encode_one_way
from zeo_core.wire.frames import encode_frame
from zeo_core.wire.session import Request

ADDRESS = Address("db1", 9672)
A, B = pack_id(1), pack_id(2)
T1, T2 = pack_id(101), pack_id(102)
LIMIT = 32 * 1024 * 1024


class Client:
    """A channel over a socket pair to a peer, with its background thread, and the pushes it got."""

    def __init__(self, peer: Peer, *, attended: bool = True, on_push: Callable[..., None] | None = None) -> None:
        self.pushes: list[tuple[str, tuple[Any, ...]]] = []
        self.sock = peer.pair()
        self.channel = Channel(self.sock, ADDRESS, on_push or self._pushed, LIMIT)
        self.channel.greet()
        self.channel.call("register", ("1", False))
        self.link = peer.link()
        self.attendant = Background(self.channel.attend) if attended else None

    def close(self) -> None:
        self.channel.fail("the test is over")
        if self.attendant is not None:
            self.attendant.result()
        Background(self.channel.close).result()

    def got(self, pushes: int) -> bool:
        return len(self.pushes) == pushes

    def _pushed(self, _channel: Channel, method: str, args: tuple[Any, ...]) -> None:
        self.pushes.append((method, args))


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer(listen=False)
    yield peer
    peer.stop()


@pytest.fixture
def client(peer: Peer) -> Iterator[Client]:
    client = Client(peer)
    yield client
    client.close()


@pytest.fixture
def unattended(peer: Peer) -> Iterator[Client]:
    """A client without a background thread, as while it verifies."""
    client = Client(peer, attended=False)
    yield client
    client.close()


def asked(link: Link, count: int) -> bool:
    return len(link.requests) > count


def echo(link: Link, request: Request) -> None:
    link.send(link.reply(request, request.args))


# -- greeting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "greeting", [b"", b"\0\0", encode_frame(b"Z5"), encode_frame(b"x" * 100), b"GET / HTTP/1.1\r\n"]
)
def test_a_server_that_does_not_greet_is_refused(peer: Peer, greeting: bytes) -> None:
    def server() -> None:
        theirs.sendall(greeting)
        theirs.shutdown(socket.SHUT_WR)

    ours, theirs = socket.socketpair()
    with theirs:
        channel = Channel(ours, ADDRESS, lambda *_: None, LIMIT)
        greeting_thread = Background(channel.greet)
        server()
        with pytest.raises(ClientDisconnected, match="disconnected from db1:9672: "):
            greeting_thread.result()
        channel.close()


def test_a_server_that_is_silent_is_left_after_the_sockets_timeout() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.settimeout(0.02)
        channel = Channel(ours, ADDRESS, lambda *_: None, LIMIT)
        with pytest.raises(ClientDisconnected, match="timed out"):
            Background(channel.greet).result()
        channel.close()


# -- calls -------------------------------------------------------------------------------------------------------------


def test_replies_find_their_calls_in_whatever_order_they_come(peer: Peer, client: Client) -> None:
    peer.hold("loadSerial")
    calls = [Background(client.channel.call, "loadSerial", (pack_id(n), T1)) for n in range(30)]
    held = [peer.held("loadSerial") for _ in calls]
    random.shuffle(held)
    for link, request in held:
        link.send(link.reply(request, request.args[0]))
    assert [call.result() for call in calls] == [pack_id(n) for n in range(30)]


@pytest.mark.parametrize("attended", [True, False])
def test_the_readers_place_is_handed_on(peer: Peer, attended: bool) -> None:
    """Thousands of calls of many threads, replies in bursts and out of order: none may lie unread, none get lost."""
    client = Client(peer, attended=attended)
    waiting: list[tuple[Link, Request]] = []
    choice = random.Random(1)

    def answer_some(link: Link, request: Request) -> None:
        waiting.append((link, request))
        choice.shuffle(waiting)
        # never all of them at once, but somebody gets an answer whenever all eight threads wait
        count = choice.randrange(3) if len(waiting) < 8 else choice.randrange(1, 9)
        answered, waiting[:] = waiting[:count], waiting[count:]
        link.send(*[link.reply(each, each.args) for _, each in answered])

    def work(thread: int) -> Callable[[], int]:
        def calls() -> int:
            for number in range(1500):
                args = (pack_id(thread), pack_id(number))
                assert client.channel.call("loadBefore", args) == args
            with lock:
                left.remove(thread)
            if left:
                peer.script["loadBefore"] = echo if len(left) < 8 else answer_some
                client.channel.call("ping")
            return thread

        return calls

    def flush(link: Link, request: Request) -> None:
        link.send(*[link.reply(each, each.args) for _, each in waiting], link.reply(request, None))
        waiting.clear()

    lock = threading.Lock()
    left = list(range(8))
    peer.script["loadBefore"] = answer_some
    peer.script["ping"] = flush
    try:
        assert in_threads(*map(work, range(8)), patience_s=60) == list(range(8))
        assert client.channel.pending_calls() == []
    finally:
        client.close()


def test_a_waiting_thread_is_not_held_up_by_the_readers_own_slow_call(peer: Peer, client: Client) -> None:
    peer.hold("loadSerial")
    slow = Background(client.channel.call, "loadSerial", (A, T1))
    link, request = peer.held("loadSerial")
    started = time.monotonic()
    for _ in range(200):
        client.channel.call("ping")
    assert time.monotonic() - started < PATIENCE_S / 4
    assert not slow.done()
    link.send(link.reply(request, b"late"))
    assert slow.result() == b"late"


def test_errors_of_the_server_are_raised_as_our_classes(peer: Peer, client: Client) -> None:
    def fail(error: Exception) -> Exception:
        peer.script["ping"] = lambda link, request: link.send(link.error(request, error))
        with pytest.raises(Exception) as caught:
            client.channel.call("ping")
        return caught.value

    unknown = fail(POSKeyError(A))
    assert isinstance(unknown, POSKeyError)
    assert unknown.oid == A
    conflict = fail(ConflictError(oid=A, serials=(T2, T1), class_name="app.Account"))
    assert isinstance(conflict, ConflictError)
    assert (conflict.oid, conflict.serials, conflict.class_name) == (A, (T2, T1), "app.Account")
    foreign = fail(FileNotFoundError("blob"))
    assert isinstance(foreign, ServerError)
    assert "FileNotFoundError" in str(foreign)
    del peer.script["ping"]
    client.channel.call("ping")


def test_a_call_that_the_table_does_not_know_harms_nothing(client: Client) -> None:
    with pytest.raises(LocalProtocolError):
        client.channel.call("invalidateTransaction", (T1, ()))
    client.channel.call("ping")


def test_arguments_that_msgpack_cannot_carry_harm_nothing(client: Client) -> None:
    with pytest.raises(TypeError):
        client.channel.call("loadBefore", (object(), T1))
    assert client.channel.pending_calls() == []
    client.channel.call("ping")


# -- the order of effects ----------------------------------------------------------------------------------------------


def test_what_a_reply_changes_is_done_before_the_next_message_is_looked_at(peer: Peer) -> None:
    """Lesson B1, with reply and push in one chunk, in either order, and any thread reading."""
    order: list[str] = []
    client = Client(peer, on_push=lambda *_: order.append("push"))

    def on_reply(_call: Call, result: Any) -> Any:
        order.append("reply")
        return result

    def reply_first(link: Link, request: Request) -> None:
        link.send(link.reply(request, None), link.invalidation(T1, A))

    def push_first(link: Link, request: Request) -> None:
        link.send(link.invalidation(T1, A), link.reply(request, None))

    for script, expected in ((reply_first, ["reply", "push"]), (push_first, ["push", "reply"])):
        for _ in range(50):
            peer.script["ping"] = script
            client.channel.call("ping", (), on_reply)
            until(lambda: len(order) == 2)
            assert order == expected
            order.clear()
    client.close()


def test_what_on_reply_returns_is_the_result(client: Client) -> None:
    assert client.channel.call("ping", (), lambda call, result: (call.method, result)) == ("ping", None)


# -- nobody calls ------------------------------------------------------------------------------------------------------


def test_pushes_are_taken_in_while_nobody_calls(client: Client) -> None:
    for number in range(3):
        client.link.send(client.link.invalidation(pack_id(number), A))
        until(functools.partial(client.got, number + 1))
    assert client.pushes[0] == ("invalidateTransaction", (pack_id(0), (A,)))


def test_pushes_are_taken_in_soon_after_a_busy_time(client: Client) -> None:
    delays = []
    for number in range(20):
        for _ in range(20):
            client.channel.call("ping")
        sent = time.monotonic()
        client.link.send(client.link.invalidation(pack_id(number), A))
        until(functools.partial(client.got, number + 1))
        delays.append(time.monotonic() - sent)
    assert sorted(delays)[10] < 0.1


def test_drain_takes_in_what_has_arrived(unattended: Client) -> None:
    unattended.channel.drain()
    assert unattended.pushes == []
    link = unattended.link
    sender = Background(lambda: link.send(*[link.invalidation(pack_id(n), A) for n in range(10_000)]))
    until(lambda: unattended.channel.drain() and len(unattended.pushes) == 10_000)
    sender.result()
    unattended.channel.call("ping")


def test_the_background_does_not_burn_the_processor(client: Client) -> None:
    """Neither while it waits, nor while another thread has the reader's place and is busy."""
    entered, leave = threading.Event(), threading.Event()

    def on_reply(_call: Call, _result: Any) -> None:
        entered.set()
        leave.wait(PATIENCE_S)

    busy = Background(lambda: client.channel.call("ping", (), on_reply))
    entered.wait(PATIENCE_S)
    client.link.send(client.link.invalidation(T1, A))
    started = time.process_time()
    select.select([], [], [], 0.4)
    used = time.process_time() - started
    leave.set()
    busy.result()
    until(lambda: client.pushes)
    assert used < 0.2


def test_it_shows_signs_of_life(monkeypatch: pytest.MonkeyPatch, peer: Peer) -> None:
    monkeypatch.setattr("zeo_client.transport.channel.KEEP_ALIVE_S", 0.01)
    client = Client(peer)
    time.sleep(0.1)
    client.channel.call("ping")
    assert client.link.failure is None
    client.close()


# -- what ends a connection --------------------------------------------------------------------------------------------

BAD_BYTES = [
    encode_frame(b"\xc1"),
    encode_frame(b"\x90"),
    encode_frame(b"random garbage"),
    encode_frame(b"\x94\x01\x00\xa1x\x90"),  # an unknown method
    encode_frame(b"\x94\x00\xc3\xb5invalidateTransaction\x90"),  # without arguments
    encode_frame(b"\x94\xcd\x27\x10\x00\xa6.reply\xc0"),  # the reply to a call that nobody made
    encode_frame(b"\x94\xc3\x00\xa6.reply\xc0"),  # the reply to True
    encode_frame(b"\x94\x90\x00\xa6.reply\xc0"),  # the reply to an empty array
    encode_frame(b"\x94\x80\x00\xa6.reply\xc0"),  # the reply to a map
    encode_frame(b"\x94\x02\x02\xa6.reply\xc0"),  # an error that is none
    (LIMIT + 1).to_bytes(4, "big"),
    b"\xff\xff\xff\xff" + b"x" * 1000,
]


@pytest.mark.parametrize("number", range(len(BAD_BYTES)))
def test_garbage_ends_the_connection_and_every_call(peer: Peer, client: Client, number: int) -> None:
    peer.hold("ping")
    calls = [Background(client.channel.call, "ping") for _ in range(3)]
    for _ in calls:
        link, _request = peer.held("ping")
    link.send(BAD_BYTES[number])
    for call in calls:
        with pytest.raises(ClientDisconnected, match="disconnected from db1:9672: "):
            call.result()
    with pytest.raises(ClientDisconnected):
        client.channel.call("ping")
    with pytest.raises(ClientDisconnected):
        client.channel.send(b"")
    assert client.channel.lost
    assert client.attendant is not None
    client.attendant.result()


def test_an_error_while_applying_a_push_ends_the_connection(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    """Lesson B20: what could not be applied is lost for good."""

    def on_push(*_: object) -> None:
        raise ZeroDivisionError("in the application's sink")

    client = Client(peer, on_push=on_push)
    peer.hold("ping")
    call = Background(client.channel.call, "ping")
    peer.held("ping")
    client.link.send(client.link.invalidation(T1, A))
    with pytest.raises(ClientDisconnected, match="in the application's sink"):
        call.result()
    assert "cannot apply" in caplog.text
    client.close()


def test_an_error_while_applying_a_reply_is_the_callers_and_ends_the_connection(peer: Peer, client: Client) -> None:
    def on_reply(_call: Call, _result: Any) -> Any:
        raise ZeroDivisionError("in on_reply")

    peer.hold("ping")
    other = Background(client.channel.call, "ping")
    peer.held("ping")
    peer.script["loadSerial"] = echo
    with pytest.raises(ZeroDivisionError):
        client.channel.call("loadSerial", (A, T1), on_reply)
    with pytest.raises(ClientDisconnected, match="in on_reply"):
        other.result()


def test_nothing_after_a_failed_message_is_applied(peer: Peer) -> None:
    seen: list[bytes] = []

    def on_push(_channel: Channel, _method: str, args: tuple[Any, ...]) -> None:
        seen.append(args[0])
        if args[0] == T1:
            raise ZeroDivisionError

    client = Client(peer, on_push=on_push)
    client.link.send(client.link.invalidation(T1), client.link.invalidation(T2))
    until(lambda: client.channel.lost)
    assert seen == [T1]
    client.close()


def test_a_reply_cut_at_any_byte_is_a_lost_connection() -> None:
    whole = encode_frame(b"\x94\x02\x00\xa6.reply\xc4\x05hello")
    for length in range(len(whole)):
        peer = Peer(listen=False)
        client = Client(peer)

        def cut(link: Link, _request: Request, head: bytes = whole[:length]) -> None:
            link.send(head)
            link.cut()

        peer.script["ping"] = cut
        with pytest.raises(ClientDisconnected, match=r"closed the connection|reading failed"):
            Background(client.channel.call, "ping").result()
        client.close()
        peer.stop()


def test_a_reply_may_arrive_byte_by_byte(peer: Peer, client: Client) -> None:
    def dribble(link: Link, request: Request) -> None:
        for byte in link.reply(request, b"hello"):
            link.send(bytes([byte]))

    peer.script["loadSerial"] = dribble
    assert client.channel.call("loadSerial", (A, T1)) == b"hello"


def test_fail_ends_calls_of_every_kind_of_thread(peer: Peer, client: Client) -> None:
    peer.hold("ping")
    calls = [Background(client.channel.call, "ping") for _ in range(8)]
    for _ in calls:
        peer.held("ping")
    client.channel.fail("for a reason")
    client.channel.fail("for another reason")
    for call in calls:
        with pytest.raises(ClientDisconnected, match="for a reason"):
            call.result()


def test_failing_in_the_middle_of_traffic_is_quiet(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    """A reply that meets a connection which has just been closed is no fault of the server's."""
    for _ in range(30):
        client = Client(peer)

        def load(channel: Channel = client.channel) -> None:
            with contextlib.suppress(ClientDisconnected):
                while True:
                    channel.call("ping")

        callers = [Background(load) for _ in range(3)]
        until(functools.partial(asked, client.link, 20))
        client.channel.fail("closed by this client")
        for caller in callers:
            caller.result()
        client.close()
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


# -- large messages ----------------------------------------------------------------------------------------------------


def test_large_messages_both_ways_while_the_server_does_not_read(peer: Peer, client: Client) -> None:
    """The server writes 8 MB before it reads on, while we write 8 MB: somebody must read, or both wait for ever."""
    big = b"x" * (8 * 1024 * 1024)

    def answer(link: Link, request: Request) -> None:
        link.send(link.reply(request, big))

    peer.script["loadSerial"] = answer
    peer.script["storea"] = lambda _link, _request: None
    client.link.reading.clear()
    load = Background(client.channel.call, "loadSerial", (A, T1))
    stores = [Background(client.channel.send, store_bytes(big)) for _ in range(2)]
    client.link.reading.set()
    for store in stores:
        store.result()
    assert load.result() == big
    client.channel.call("ping")


def test_a_burst_larger_than_the_buffers_with_nobody_else_waiting(peer: Peer, client: Client) -> None:
    """The only caller is stuck in sending while the server is stuck in writing to us."""
    big = b"y" * (8 * 1024 * 1024)

    def push_much(link: Link, request: Request) -> None:
        link.send(*[link.push("info", {"name": big}) for _ in range(2)])
        link.send(link.reply(request, []))

    peer.script["vote"] = push_much
    peer.script["storea"] = lambda link, request: link.send(link.push("info", {"name": big}))
    call = Background(lambda: client.channel.wait(client.channel.start("vote", (1,), before=store_bytes(big))))
    assert call.result() == ()
    until(lambda: len(client.pushes) == 3)


def store_bytes(data: bytes) -> bytes:
    return encode_one_way("storea", (B, ZERO_TID, data, 1))


# -- interrupts --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def alarm(after_s: float) -> Iterator[None]:
    """Raise a KeyboardInterrupt in the main thread, which runs the tests."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    gc.disable()  # Python drops what is raised inside of a collection's callbacks
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, after_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()


def test_an_interrupted_call_leaves_the_reader_s_place(peer: Peer, client: Client) -> None:
    peer.hold("ping")
    with alarm(0.05), pytest.raises(KeyboardInterrupt):
        client.channel.call("ping")
    link, request = peer.held("ping")
    link.send(link.reply(request, None))
    # the connection goes on or is lost for the reason; it may not hang
    with contextlib.suppress(ClientDisconnected):
        Background(client.channel.call, "lastTransaction").result()


def test_an_interrupted_waiter_does_not_keep_the_reader_s_place_from_others(peer: Peer, unattended: Client) -> None:
    """Three calls: a thread reads, the main thread waits and is interrupted; the third must get the place."""
    peer.hold("ping", "loadSerial")
    reader = Background(unattended.channel.call, "loadSerial", (A, T1))
    link, first = peer.held("loadSerial")
    with alarm(0.05), pytest.raises(KeyboardInterrupt):
        unattended.channel.call("ping")
    peer.held("ping")
    third = Background(unattended.channel.call, "loadSerial", (B, T1))
    _, second = peer.held("loadSerial")
    time.sleep(0.05)
    link.send(link.reply(first, b"a"))
    assert reader.result() == b"a"
    link.send(link.reply(second, b"b"))
    assert third.result() == b"b"


def test_interrupts_at_any_moment_never_lose_a_message_nor_hang_the_others() -> None:
    """Whatever instruction the interrupt hits: the stream stays whole or the connection ends, and nobody hangs."""
    peer = Peer(listen=False)
    stop = threading.Event()
    lost = 0

    def others(client: Client) -> Callable[[], None]:
        def run() -> None:
            with contextlib.suppress(ClientDisconnected):
                while not stop.is_set():
                    client.channel.call("ping")

        return run

    def count_pushes(link: Link, request: Request) -> None:
        tid = link.peer.last_oid = link.peer.last_oid + 1
        link.send(link.invalidation(pack_id(tid), A), link.reply(request, tid))

    peer.script["lastTransaction"] = count_pushes
    for seed in range(150):
        client = Client(peer)
        first = peer.last_oid
        caller = Background(others(client))
        answered = first
        with contextlib.suppress(ClientDisconnected):
            try:
                with alarm(0.001 + 0.00037 * (seed % 10)):
                    while True:
                        answered = client.channel.call("lastTransaction")
            except KeyboardInterrupt:
                pass
            stop.set()
            # what was pushed before a reply that comes later must have been applied
            answered = Background(client.channel.call, "lastTransaction").result()
            got = [args[0] for _, args in client.pushes]
            assert got == [pack_id(number) for number in range(first + 1, answered + 1)]
        lost += client.channel.lost is not None
        stop.set()
        caller.result()
        stop.clear()
        client.close()
    peer.stop()
    assert lost < 150


# -- calls out of place ------------------------------------------------------------------------------------------------


def test_a_call_from_inside_on_push_is_an_error_instead_of_a_hang(peer: Peer) -> None:
    """It could never be answered: its thread is the one that would have to read the answer."""
    errors: list[Exception] = []

    def on_push(channel: Channel, _method: str, _args: tuple[Any, ...]) -> None:
        try:
            channel.call("ping")
        except Exception as error:
            errors.append(error)
            raise

    client = Client(peer, on_push=on_push)
    client.link.send(client.link.invalidation(T1))
    until(lambda: errors)
    assert isinstance(errors[0], LocalProtocolError)
    client.close()


def test_drain_from_inside_on_push_does_nothing(peer: Peer) -> None:
    seen: list[bytes] = []

    def on_push(channel: Channel, _method: str, args: tuple[Any, ...]) -> None:
        channel.drain()
        seen.append(args[0])

    client = Client(peer, on_push=on_push)
    client.link.send(client.link.invalidation(T1), client.link.invalidation(T2))
    until(lambda: len(seen) == 2)
    assert seen == [T1, T2]
    client.close()


def test_a_lost_connection_refuses_at_once_and_sends_nothing(peer: Peer, client: Client) -> None:
    client.channel.fail("gone")
    with pytest.raises(ClientDisconnected, match="gone"):
        client.channel.start("ping")
    assert client.link.calls("ping") == []


def test_a_call_that_could_not_be_sent_whole_is_known_not_to_have_happened(peer: Peer, client: Client) -> None:
    """Then `start` raises: the server cannot have got it, so tpc_finish is not in doubt."""
    client.sock.shutdown(socket.SHUT_WR)
    with pytest.raises(ClientDisconnected, match="sending failed"):
        client.channel.start("tpc_finish", (1,))
    assert client.channel.lost
