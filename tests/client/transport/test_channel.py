import functools
import random
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.client.peer import PATIENCE_S, Background, Link, Peer, in_threads, until
from tests.client.transport.channels import ADDRESS, LIMIT, T1, T2, A, B, Client, echo
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


def test_drain_waits_for_the_attendant_that_was_quicker(peer: Peer) -> None:
    entered, leave = threading.Event(), threading.Event()
    applied: list[bytes] = []

    def on_push(_channel: Channel, _method: str, args: tuple[Any, ...]) -> None:
        entered.set()
        leave.wait(PATIENCE_S)
        applied.append(args[0])

    client = Client(peer, on_push=on_push)
    client.link.send(client.link.invalidation(T1, A))
    entered.wait(PATIENCE_S)
    assert not client.channel.drain()  # not for long, though
    threading.Timer(0.01, leave.set).start()
    assert client.channel.drain()
    assert applied == [T1]
    client.close()


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
    until(lambda: client.link.signs_of_life > 2)
    client.channel.call("ping")
    assert client.link.failure is None
    client.close()


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


def test_a_call_that_could_not_be_sent_whole_is_known_not_to_have_happened(unattended: Client) -> None:
    """Then `start` raises: the server cannot have got it, so tpc_finish is not in doubt.

    Nobody reads, who could find the connection ended by the peer before that.
    """
    unattended.sock.shutdown(socket.SHUT_WR)
    with pytest.raises(ClientDisconnected, match="sending failed"):
        unattended.channel.start("tpc_finish", (1,))
    assert unattended.channel.lost
