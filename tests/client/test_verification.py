"""What a server's answer about the past is worth; test_storage_verify.py has the client around it."""

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.client.peer import Peer
from zeo_client.storage import ClientStorage
from zeo_client.transport.channel import Channel
from zeo_client.verification import LostStates, ServerChanges, register
from zeo_core.errors import ClientDisconnected, ReadConflictError
from zeo_core.ids import Tid, pack_id

A, B = pack_id(1), pack_id(2)


@pytest.fixture
def storage(peer: Peer) -> Iterator[ClientStorage]:
    storage = ClientStorage(str(peer.address))
    yield storage
    storage.close()


def asker(storage: ClientStorage, server_tid: Tid, *, knows_forks: bool = True) -> ServerChanges:
    channel = storage._supervisor.current()
    assert isinstance(channel, Channel)
    return ServerChanges(channel, server_tid, "test", knows_forks=knows_forks)


def test_what_changed(peer: Peer, storage: ClientStorage) -> None:
    first, second, third = (peer.commit({oid: b"x"}) for oid in (A, A, B))
    ask = asker(storage, third)
    assert ask(first) == (third, (A, B)) or ask(first) == (third, (B, A))
    assert ask(second) == (third, (B,))


def test_each_tid_is_asked_for_once_and_the_last_not_at_all(peer: Peer, storage: ClientStorage) -> None:
    first, second = (peer.commit({A: b"x"}) for _ in range(2))
    ask = asker(storage, second)
    assert ask(second) == (second, ())
    assert ask(first) == ask(first) == (second, (A,))
    assert len(peer.link().calls("getInvalidations")) == 1


def test_a_server_that_is_older_cannot_tell(
    peer: Peer, storage: ClientStorage, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (peer.commit({A: b"x"}) for _ in range(2))
    ask = asker(storage, first)
    assert ask(second) is None
    assert "test: the cache, as of" in caplog.text
    assert peer.link().calls("getInvalidations") == []


def test_an_answer_that_ends_before_the_servers_last_transaction(peer: Peer, storage: ClientStorage) -> None:
    first, second, third = (peer.commit({A: b"x"}) for _ in range(3))
    peer.script["getInvalidations"] = lambda link, request: link.send(link.reply(request, (second, (A,))))
    assert asker(storage, third)(first) is None


def test_a_server_that_would_not_notice_is_asked_for_its_log(peer: Peer, storage: ClientStorage) -> None:
    """B12, with ZEO's server: it tells what is later than any tid."""
    first, second, third = (peer.commit({A: b"x"}) for _ in range(3))
    peer.script["getInvalidations"] = lambda link, request: link.send(link.reply(request, (third, (A,))))
    assert asker(storage, third, knows_forks=False)(first) == (third, (A,))
    peer.log = [(tid, oids) for tid, oids in peer.log if tid != second]
    assert asker(storage, third, knows_forks=False)(second) is None
    assert len(peer.link().calls("iterator_gc")) == 1


def test_a_log_that_cannot_be_walked_vouches_for_nothing(peer: Peer, storage: ClientStorage) -> None:
    first, second = (peer.commit({A: b"x"}) for _ in range(2))
    error = AttributeError("iterator")
    peer.script["iterator_start"] = lambda link, request: link.send(link.error(request, error))
    assert asker(storage, second, knows_forks=False)(first) is None


def test_readers_do_not_go_back_in_time(peer: Peer) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(peer.address))
    channel = Channel(sock, peer.address, lambda *_: None, 1 << 20)
    with closing(channel):
        channel.greet()
        with pytest.raises(ClientDisconnected, match="behind"):
            register(channel, "1", pack_id(5), read_only=True)


def test_states_that_are_lost() -> None:
    lost = LostStates()
    lost.add(pack_id(7), pack_id(7))
    lost.add(pack_id(8), pack_id(7))
    assert not lost
    lost.add(pack_id(5), pack_id(7))
    assert lost
    for number in (6, 9):
        lost.check(A, pack_id(number))
    for number in (7, 8):
        with pytest.raises(ReadConflictError):
            lost.check(A, pack_id(number))
    lost.reached(pack_id(9))
    assert lost
    lost.reached(pack_id(6))
    assert not lost
