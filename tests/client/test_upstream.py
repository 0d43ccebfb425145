"""What a server needs of a ClientStorage whose storage it serves on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.peer import Peer, until
from tests.client.storages import Open
from zeo_client.storage import ClientStorage
from zeo_client.upstream import open_upstream
from zeo_core.commit_marker import MARKER_BYTES, marked
from zeo_core.errors import ClientDisconnected, ConfigurationError, StorageTransactionError
from zeo_core.ids import MAX_TID, ZERO_TID, pack_id
from zeo_core.transaction import Revision, TransactionMetadata
from zeo_core.upstream import RemoteStorage, UpstreamTransaction

A, B = pack_id(1), pack_id(2)


@pytest.fixture
def storage(peer: Peer) -> Iterator[ClientStorage]:
    storage = ClientStorage(str(peer.address), reconnect_timeout=0.05)
    yield storage
    storage.close()


def test_a_client_storage_can_be_served_on(storage: ClientStorage) -> None:
    assert isinstance(storage, RemoteStorage)


def test_only_what_is_in_memory_is_had_without_waiting(peer: Peer, storage: ClientStorage) -> None:
    tid = peer.commit({A: b"x"})
    storage.ping()
    link = storage.upstream()
    with pytest.raises(BlockingIOError):
        link.load_cached(A, MAX_TID)
    storage.load_before(A, MAX_TID)
    assert link.load_cached(A, pack_id(int.from_bytes(tid) + 1)) == Revision(b"x", tid, None)
    assert link.known_tid() == tid


def test_a_disk_cache_is_not_memory(peer: Peer, tmp_path: Path) -> None:
    tid = peer.commit({A: b"x"})
    for _ in range(2):
        storage = ClientStorage(str(peer.address), cache=tmp_path / "cache")
        try:
            with pytest.raises(BlockingIOError):
                storage.upstream().load_cached(A, MAX_TID)
            assert storage.load_before(A, pack_id(int.from_bytes(tid) + 1)) == Revision(b"x", tid, None)
        finally:
            storage.close()


def test_what_changed_is_asked_for(peer: Peer, storage: ClientStorage) -> None:
    first, second = peer.commit({A: b"x"}), peer.commit({B: b"x"})
    assert storage.upstream().changes_since(first) == (second, (B,))
    peer.script["getInvalidations"] = lambda link, request: link.send(link.reply(request, None))
    assert storage.upstream().changes_since(first) is None


def test_where_the_server_is_and_for_how_long_it_is_away(peer: Peer, storage: ClientStorage) -> None:
    link = storage.upstream()
    assert link.address() == str(peer.address)
    assert link.away_s() == 0.0
    peer.stop()
    until(lambda: link.away_s() > 0.01)
    assert link.address() == str(peer.address)
    with pytest.raises(ClientDisconnected):
        link.changes_since(pack_id(1))


def test_a_storage_as_a_configuration_says(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "zeo_client.client_options")
    storage = open_upstream([str(peer.address)], {"read_only": True, "name": "db", "username": "x", "wait": None})
    try:
        assert storage.name() == "db"
        assert storage.read_only()
        assert "db: username: no effect" in caplog.text
    finally:
        storage.close()


def test_tls_that_cannot_be_used_is_said_before_anybody_is_called(tmp_path: Path) -> None:
    files = {"certificate": str(tmp_path / "none.pem"), "server_hostname": None}
    with pytest.raises(ConfigurationError, match=r"none\.pem"):
        open_upstream(["127.0.0.1:9"], {}, files)


# -- transactions that are passed on -----------------------------------------------------------------------------------


def test_a_vote_whose_conflicts_are_resolved_by_somebody_else(peer: Peer, storage: ClientStorage) -> None:
    first = peer.commit({A: b"one"})
    storage.ping()
    second = peer.commit({A: b"two"})
    told = {"oid": A, "serials": (second, first), "data": b"mine"}
    votes = iter([(told,), ()])
    peer.script["vote"] = lambda link, request: link.send(link.reply(request, next(votes)))
    txn = UpstreamTransaction(TransactionMetadata())
    storage.tpc_begin(txn)
    storage.store(A, first, b"mine", "", txn)
    link = storage.upstream()
    assert link.vote(txn, resolves=True) == (frozenset(), [(A, second, first, None)])
    with pytest.raises(StorageTransactionError):
        storage.tpc_finish(txn)
    assert link.vote(txn, resolves=True, again=[(A, second, b"both")]) == (frozenset(), [])
    stored = [request.args[:3] for request in peer.link().calls("storea")]
    assert stored[-2:] == [(A, first, b"mine"), (A, second, b"both")]
    storage.tpc_abort(txn)


def test_a_transaction_that_is_passed_on_keeps_its_marker(peer: Peer, opened: Open) -> None:
    peer.extensions = ("commit-outcome", "concurrent-transactions")
    storage, marker = opened(), bytes(range(MARKER_BYTES))
    sent = []
    for extension in (marked(b"", marker), b""):
        txn = UpstreamTransaction(TransactionMetadata(extension=extension))
        storage.tpc_begin(txn)
        storage.store(A, ZERO_TID, b"x", "", txn)
        storage.tpc_vote(txn)
        sent.append(peer.link().calls("tpc_begin")[-1].args[6])
        storage.tpc_abort(txn)
    assert sent[0] == marker
    assert sent[1] != marker
    assert len(sent[1]) == MARKER_BYTES
