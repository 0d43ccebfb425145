"""The search for a better server; test_supervisor.py and test_storage_failover.py have who goes over to it."""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.client.peer import Background, Peer, nothing_left_behind, until
from zeo_client.transport.address import Address
from zeo_client.transport.channel import Channel
from zeo_client.transport.dialling import Dialler
from zeo_client.transport.pauses import Pauses
from zeo_client.transport.seeker import Seeker
from zeo_core.errors import ReadOnlyError
from zeo_core.wire.session import MESSAGE_MAX_BYTES


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    with nothing_left_behind():
        yield


class Search:
    """A seeker, and what it is told and tells."""

    def __init__(self, *addresses: Address) -> None:
        self.addresses: Sequence[Address] = addresses
        self.found: list[Address] = []
        self.pauses: list[float] = []
        self.ended = threading.Event()
        dialler = Dialler(lambda *_: None, MESSAGE_MAX_BYTES)
        self.seeker = Seeker(dialler, ask, self._next, self._found, Pauses(0.001, 0.004))

    def _next(self, pause_s: float) -> Sequence[Address]:
        self.pauses.append(pause_s)
        self.ended.wait(pause_s)
        return () if self.ended.is_set() else self.addresses

    def _found(self, address: Address) -> None:
        self.found.append(address)
        self.ended.set()

    def close(self) -> None:
        self.ended.set()
        Background(self.seeker.close, 5.0).result()


def ask(channel: Channel) -> None:
    channel.call("register", ("1", False))


@pytest.fixture
def search(peer: Peer, tmp_path: Path) -> Iterator[Search]:
    """A search among a server that is not there, and one that is."""
    peer.start()
    search = Search(Address("", 0, str(tmp_path / "nothing")), peer.address)
    yield search
    search.close()


def test_the_first_that_is_better_ends_it(peer: Peer, search: Search) -> None:
    search.seeker.start()
    until(lambda: search.found)
    assert search.found == [peer.address]
    until(lambda: all(link.ended.is_set() for link in peer.links))


def test_it_goes_on_with_longer_pauses_until_one_is(peer: Peer, search: Search) -> None:
    peer.script["register"] = lambda link, request: link.send(link.error(request, ReadOnlyError("replica")))
    search.seeker.start()
    until(lambda: len(search.pauses) > 4)
    assert search.pauses[:5] == [0.001, 0.002, 0.004, 0.004, 0.004]
    assert search.found == []
    peer.release("register")
    until(lambda: search.found)


def test_a_fault_in_the_question_does_not_end_it(peer: Peer, search: Search, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_channel: Channel) -> None:
        raise KeyError("in the question")

    search.seeker._probe = fail
    search.seeker.start()
    until(lambda: len(search.pauses) > 2)
    assert search.found == []
    assert "in the question" in caplog.text


def test_it_can_be_closed_while_a_server_does_not_answer(peer: Peer, search: Search) -> None:
    peer.hold("register")
    search.seeker.start()
    peer.held("register")
    began = time.monotonic()
    search.close()
    assert time.monotonic() - began < 2
