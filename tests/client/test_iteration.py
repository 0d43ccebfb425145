"""Walking a served storage's log from a client."""

import gc
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.client.peer import Peer
from tests.client.storages import Open
from tests.contract.storages import Txn, commit
from tests.server.in_process import InProcess, in_process
from zeo_client.storage import ClientStorage
from zeo_core.errors import ClientDisconnected, RemoteProtocolError
from zeo_core.ids import ROOT_OID, Oid, Tid, pack_id
from zeo_server.session import ServerSession
from zeo_server.storages.mapping import MappingStorage

A, B = pack_id(1), pack_id(2)


@pytest.fixture
def server() -> Iterator[InProcess]:
    with in_process() as started:
        yield started


@pytest.fixture
def storage(server: InProcess) -> Iterator[ClientStorage]:
    with closing(ClientStorage(server.address, wait_timeout=20)) as opened:
        yield opened


def open_walks(server: InProcess) -> int:
    """Return how many iterators the server keeps for its one client."""
    (session,) = server.ask(lambda: list(server.service.connections))
    assert isinstance(session, ServerSession)
    return len(session.iterators)


def test_a_walk_that_came_to_its_end_leaves_nothing_on_the_server(server: InProcess, storage: ClientStorage) -> None:
    tids = [commit(storage, {A: b"%d" % number}) for number in range(3)]
    walked = [(found.tid, [record.data for record in found.records]) for found in storage.transactions()]
    assert walked == [(tid, [b"%d" % number]) for number, tid in enumerate(tids)]
    assert open_walks(server) == 0


def test_walks_that_are_dropped_are_forgotten_with_the_next(server: InProcess, storage: ClientStorage) -> None:
    commit(storage, {A: b"a", B: b"b"})
    walk = storage.transactions()
    records = iter(next(walk).records)
    next(records)
    assert open_walks(server) == 2
    del walk, records
    gc.collect()
    assert list(storage.transactions(b"\xff" * 8)) == []
    assert open_walks(server) == 0


def test_walks_of_several_threads_and_kinds_do_not_meet(storage: ClientStorage) -> None:
    tids = [commit(storage, {A: b"%d" % number}) for number in range(5)]
    walks = [storage.iterator(tid) for tid in tids]
    for position in range(5):
        heads = [next(walk) for walk in walks[: 5 - position]]
        assert [head.tid for head in heads] == tids[position:]
        assert all([record.oid for record in head] == [A] for head in heads)


def test_a_walk_ends_with_its_connection(peer: Peer, opened: Open) -> None:
    storage = opened()
    peer.script["iterator_start"] = lambda link, request: link.send(link.reply(request, 7))
    peer.script["iterator_next"] = lambda link, request: link.cut()
    walk = storage.transactions()
    assert peer.link().calls("iterator_start")[0].args == (None, None)  # no `exact`, which this server does not know
    with pytest.raises(ClientDisconnected):
        next(walk)
    with pytest.raises(ClientDisconnected):
        next(walk)


@pytest.mark.parametrize("answer", [5, (), (b"short", " ", b"", b"", {}), (A, " ", b"", b"", {1: 2}), (A, 5, 5, 5, {})])
def test_what_is_no_transaction_ends_the_connection(
    peer: Peer, opened: Open, answer: object, caplog: pytest.LogCaptureFixture
) -> None:
    storage = opened()
    peer.script["iterator_start"] = lambda link, request: link.send(link.reply(request, 7))
    peer.script["iterator_next"] = lambda link, request: link.send(link.reply(request, answer))
    with pytest.raises(RemoteProtocolError):
        next(storage.transactions())
    assert "cannot apply" in caplog.text


def test_objects_one_by_one(storage: ClientStorage) -> None:
    with pytest.raises(ValueError, match="no object"):
        storage.record_iternext()
    tid = commit(storage, {ROOT_OID: b"root", B: b"b", A: b"a"})
    found: list[tuple[Oid, Tid, bytes]] = []
    following: Oid | None = ROOT_OID
    while following is not None:
        oid, serial, data, following = storage.record_iternext(following)
        found.append((oid, serial, data))
    assert found == [(ROOT_OID, tid, b"root"), (A, tid, b"a"), (B, tid, b"b")]


def test_a_storage_is_copied_to_a_server_and_back_to_the_byte(storage: ClientStorage) -> None:
    original = MappingStorage()
    commit(original, {A: b"a"}, txn=Txn("ann", "first", {"k": [1, (2,)]}))
    commit(original, {A: b"aa", B: b"b"}, txn=Txn(extension=b"}q\x00."))
    storage.copyTransactionsFrom(original)
    back = MappingStorage()
    back.copyTransactionsFrom(storage)
    for copy in (storage, back):
        assert [(t.tid, t.metadata, list(t.records)) for t in copy.transactions()] == [
            (t.tid, t.metadata, list(t.records)) for t in original.transactions()
        ]
    assert storage.load(A) == original.load(A)
