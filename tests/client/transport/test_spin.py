"""Looking for an answer before sleeping: what comes soon is taken, and what never comes is soon given up."""

import socket
import threading
from collections.abc import Iterator

import pytest

from zeo_client.transport.spin import MISSES_MAX, RETRY_EVERY, TAKEN_S, Spin


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


class Clock:
    """Each look takes `step_s`, however busy the machine of the test is."""

    def __init__(self, step_s: float) -> None:
        self.step_s = step_s
        self._now_s = 0.0

    def __call__(self) -> float:
        self._now_s += self.step_s
        return self._now_s


@pytest.fixture
def spin(pair: tuple[socket.socket, socket.socket]) -> Spin:
    return Spin(pair[0], 2, Clock(TAKEN_S / 10))


def test_what_is_there_is_taken(pair: tuple[socket.socket, socket.socket], spin: Spin) -> None:
    pair[1].sendall(b"answer")
    assert spin.receive(3) == b"ans"
    assert spin.receive(100) == b"wer"


def test_the_end_of_the_stream_is_told(pair: tuple[socket.socket, socket.socket], spin: Spin) -> None:
    pair[1].close()
    assert spin.receive(100) == b""


def test_after_some_misses_it_looks_only_now_and_then(pair: tuple[socket.socket, socket.socket], spin: Spin) -> None:
    for _ in range(MISSES_MAX):
        assert spin.receive(100) is None
    pair[1].sendall(b"soon")
    answers = [spin.receive(100) for _ in range(RETRY_EVERY)]
    assert answers.count(b"soon") == 1
    assert answers.count(None) > RETRY_EVERY - MISSES_MAX - 2


def test_a_hit_makes_it_patient_again(pair: tuple[socket.socket, socket.socket], spin: Spin) -> None:
    for _ in range(MISSES_MAX - 1):
        assert spin.receive(100) is None
    pair[1].sendall(b"x")
    assert spin.receive(100) == b"x"
    assert spin.receive(100) is None
    pair[1].sendall(b"y")
    assert spin.receive(100) == b"y"


def test_a_closed_socket_raises(pair: tuple[socket.socket, socket.socket], spin: Spin) -> None:
    pair[0].close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        spin.receive(100)


def test_other_threads_go_on_meanwhile(pair: tuple[socket.socket, socket.socket], spin: Spin) -> None:
    answered = threading.Thread(target=lambda: pair[1].sendall(b"from a thread"))
    answered.start()
    received = None
    while received is None:
        received = spin.receive(100)
    answered.join()
    assert received == b"from a thread"


def test_one_processor_is_left_to_the_server(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].sendall(b"answer")
    assert Spin(pair[0], processors=1).receive(100) is None


def test_a_processor_that_others_want_is_left_to_them(pair: tuple[socket.socket, socket.socket]) -> None:
    spin = Spin(pair[0], 2, Clock(TAKEN_S * 2))
    assert spin.receive(100) is None
    pair[1].sendall(b"soon")
    answers = [spin.receive(100) for _ in range(RETRY_EVERY)]
    assert answers.count(b"soon") == 1
    assert answers[:10] == [None] * 10
