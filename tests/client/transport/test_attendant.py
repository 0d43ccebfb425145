"""The one thread that reads from all connections of a process while nobody else does."""

import functools
import os
import random
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tests.client.peer import PATIENCE_S, Background, Peer, in_threads, until
from tests.client.transport.channels import A, Client
from zeo_client.transport import attendant
from zeo_client.transport.attendant import BUSY_S, Post, let_go, look_after
from zeo_core.ids import pack_id


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "zeod attendant"]


class Pipe:
    """A connection of the simplest kind; `holder` plays a thread that has the reader's place."""

    def __init__(self) -> None:
        self.calls = 0
        self.heard = b""
        self.woken = 0
        self.holder = False
        self.failed = ""
        self.fault: Exception | None = None
        self._out, self._in = os.pipe()
        self.post = look_after(self)

    def say(self, data: bytes) -> None:
        os.write(self._in, data)

    def fileno(self) -> int:
        return self._out

    def attend_once(self) -> bool:
        self.woken += 1
        if self.fault is not None:
            raise self.fault
        if self.holder or not select.select([self._out], [], [], 0)[0]:
            return False
        self.heard += os.read(self._out, 100)
        return True

    def fail(self, reason: str) -> None:
        self.failed = reason
        self.post.taken()

    def call(self) -> Post:
        """Do as a thread does that calls and reads, up to where it leaves."""
        self.calls += 1
        self.post.taken()
        self.post.left()
        return self.post

    def close(self) -> None:
        let_go(self.post)
        os.close(self._out)
        os.close(self._in)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, calls follow each other closely, and ticks are far apart."""
    monkeypatch.setattr(attendant, "BUSY_S", 60)


def test_one_thread_reads_from_all_connections_and_ends_with_the_last(peer: Peer) -> None:
    assert not threads()
    clients = [Client(peer) for _ in range(5)]
    until(threads)
    for number, client in enumerate(clients):
        client.link.send(client.link.invalidation(pack_id(number), A))
    for client in clients:
        until(functools.partial(client.got, 1))
    (thread,) = threads()
    for client in clients:
        assert thread.is_alive()
        client.close()
    until(lambda: not thread.is_alive())
    later = Client(peer)
    later.link.send(later.link.invalidation(pack_id(1), A))
    until(lambda: later.got(1))
    later.close()


def test_a_call_now_and_then_leaves_the_watch_as_it_was(pipe: Pipe) -> None:
    assert pipe.post.watched
    select.select([], [], [], BUSY_S)
    pipe.post.taken()
    assert (pipe.post.watched, pipe.post.tended) == (False, False)
    pipe.say(b"for the reader")
    pipe.post.left()
    assert (pipe.post.watched, pipe.post.tended) == (True, True)
    until(lambda: pipe.heard == b"for the reader")


def test_what_arrives_while_somebody_reads_does_not_wake_it(pipe: Pipe) -> None:
    pipe.post.taken()
    woken = pipe.woken
    pipe.say(b"reply")
    select.select([], [], [], 0.05)
    assert pipe.woken == woken


@pytest.mark.usefixtures("unhurried")
def test_calls_in_a_row_are_left_alone_until_they_end(pipe: Pipe) -> None:
    post = pipe.call()
    assert (post.watched, post.tended) == (False, True)
    ended = threading.Event()

    def calls() -> None:
        while not ended.is_set():
            pipe.call()

    busy = Background(calls)
    select.select([], [], [], 0.05)
    ended.set()
    busy.result()
    until(lambda: post.watched)
    pipe.say(b"push")
    until(lambda: pipe.heard == b"push")


def test_a_place_that_is_taken_is_found_free_later(pipe: Pipe) -> None:
    """What the attendant could not take in itself lies there until the holder leaves, and wakes nobody meanwhile."""
    pipe.holder = True
    pipe.say(b"push")
    until(lambda: not pipe.post.watched)
    select.select([], [], [], 0.05)
    assert pipe.woken == 2  # once more after the watch had ended
    pipe.holder = False
    pipe.post.left()
    until(lambda: pipe.heard == b"push")


def test_an_error_concerns_only_its_own_connection(pipe: Pipe, caplog: pytest.LogCaptureFixture) -> None:
    other = Pipe()
    other.fault = ZeroDivisionError("not foreseen")
    other.say(b"x")
    until(lambda: other.failed == "cannot attend to the connection")
    assert "not foreseen" in caplog.text
    pipe.say(b"push")
    until(lambda: pipe.heard == b"push")
    other.close()


def test_a_post_that_was_let_go_is_left_alone() -> None:
    pipe = Pipe()
    pipe.close()
    pipe.post.taken()
    pipe.post.left()
    pipe.post.look()
    assert not pipe.post.watched


def test_no_push_lies_unread_whatever_the_calls_were(peer: Peer, client: Client) -> None:
    """Bursts and lone calls of two threads, with pauses around those that make the difference; then a push."""
    choice = random.Random(7)

    def calls() -> None:
        for _ in range(choice.choice((0, 1, 2, 5))):
            client.channel.call("ping")
            if choice.random() < 0.2:
                time.sleep(choice.random() * 2 * BUSY_S)

    for number in range(150):
        callers = [Background(calls) for _ in range(2)]
        client.link.send(client.link.invalidation(pack_id(2 * number), A))
        for caller in callers:
            caller.result()
        client.link.send(client.link.invalidation(pack_id(2 * number + 1), A))
        until(functools.partial(client.got, 2 * number + 2), pause_s=0.0002)
    assert [push[1][0] for push in client.pushes] == [pack_id(number) for number in range(300)]


def test_the_reader_of_one_connection_may_wait_while_another_is_told(peer: Peer, client: Client) -> None:
    """The attendant is nobody's only way on: a thread that waits for a reply takes it in itself."""
    other = Client(peer)
    peer.hold("ping")
    waiting = Background(client.channel.call, "ping")
    link, request = peer.held("ping")
    other.link.send(other.link.invalidation(pack_id(1), A))
    until(lambda: other.got(1))
    link.send(link.reply(request, None))
    waiting.result()
    other.close()


def test_connections_come_and_go_in_many_threads() -> None:
    def come_and_go() -> bool:
        for _ in range(50):
            pipe = Pipe()
            pipe.say(b"x")
            until(functools.partial(getattr, pipe, "heard"))
            pipe.close()
        return True

    assert in_threads(*[come_and_go] * 4, patience_s=PATIENCE_S) == [True] * 4
    until(lambda: not threads())


def test_a_fork_has_an_attendant_of_its_own() -> None:
    script = (
        "import os, sys\n"
        "from tests.client.peer import until\n"
        "from tests.client.transport.test_attendant import Pipe\n"
        "first = Pipe()\n"
        "pid = os.fork()\n"
        "own = Pipe()\n"
        "own.say(b'x')\n"
        "until(lambda: own.heard)\n"
        "own.close()\n"
        "if not pid: os._exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "first.say(b'y')\n"
        "until(lambda: first.heard)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=PATIENCE_S)
