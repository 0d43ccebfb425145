import contextlib
import functools
import gc
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from tests.client.peer import Background, Link, Peer, until
from tests.client.transport.channels import LIMIT, T1, T2, A, B, Client, asked, echo
from zeo_client.transport.channel import Call, Channel
from zeo_core.errors import (
    ClientDisconnected,
)
from zeo_core.ids import pack_id
from zeo_core.wire.frames import encode_frame
from zeo_core.wire.session import Request

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
    assert client.channel.lost, "whoever read the reply: when the caller hears of it, the connection has ended"
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
