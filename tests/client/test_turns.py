import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.client.peer import Background, until
from zeo_client.staging import Staging
from zeo_client.transport.address import Address
from zeo_client.transport.channel import Channel
from zeo_client.turns import Turns


class Connections:
    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []

    def open(self) -> Channel:
        ours, theirs = socket.socketpair()
        self.sockets += [ours, theirs]
        return Channel(ours, Address("db1", 1), lambda *_: None, 1000)


@pytest.fixture
def connections() -> Iterator[Connections]:
    connections = Connections()
    yield connections
    for sock in connections.sockets:
        sock.close()


def staging(channel: Channel) -> Staging:
    return Staging(object(), 1, channel, b"")


def test_one_at_a_time_and_everybody_in_the_end(connections: Connections) -> None:
    turns, channel = Turns(), connections.open()
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(100):
            mine = staging(channel)
            turns.take(mine)
            inside.append(1)
            most.append(len(inside))
            inside.pop()
            turns.give(mine)

    workers = [Background(work) for _ in range(4)]
    for worker in workers:
        worker.result()
    assert max(most) == 1
    assert len(most) == 400


def test_only_the_holder_can_end_its_turn(connections: Connections) -> None:
    turns, channel = Turns(), connections.open()
    holder, other = staging(channel), staging(channel)
    turns.take(holder)
    turns.give(other)
    waiting = Background(turns.take, other)
    time.sleep(0.02)
    assert not waiting.done()
    turns.give(holder)
    turns.give(holder)
    waiting.result()


def test_who_has_the_turn_need_not_wait_for_it(connections: Connections) -> None:
    turns = Turns()
    holder = staging(connections.open())
    turns.take(holder)
    Background(turns.take, holder).result()


def test_a_turn_ends_with_its_connection(connections: Connections) -> None:
    turns = Turns()
    lost, renewed = connections.open(), connections.open()
    turns.take(staging(lost))
    same, next_one = Background(turns.take, staging(lost)), Background(turns.take, staging(renewed))
    until(lambda: threading.active_count() >= 3)
    lost.fail("gone")
    same.result()
    next_one.result()


def test_who_lost_the_connection_while_waiting_takes_no_turn(connections: Connections) -> None:
    turns = Turns()
    here, lost = connections.open(), connections.open()
    holder = staging(here)
    turns.take(holder)
    lost.fail("gone")
    Background(turns.take, staging(lost)).result()
    turns.give(holder)
    Background(turns.take, staging(here)).result()
