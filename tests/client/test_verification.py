"""What a server's answer about the past is worth; test_storage_verify.py has the client around it."""

from collections.abc import Iterator

import pytest

from tests.client.peer import Peer
from zeo_client.storage import ClientStorage
from zeo_client.transport.channel import Channel
from zeo_client.verification import ServerChanges
from zeo_core.ids import Tid, pack_id

A, B = pack_id(1), pack_id(2)


@pytest.fixture
def storage(peer: Peer) -> Iterator[ClientStorage]:
    storage = ClientStorage(str(peer.address))
    yield storage
    storage.close()


def asker(storage: ClientStorage, server_tid: Tid) -> ServerChanges:
    channel = storage._supervisor.current()
    assert isinstance(channel, Channel)
    return ServerChanges(channel, server_tid, "test")


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
