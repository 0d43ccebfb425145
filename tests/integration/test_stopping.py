"""What clients are told that vote while the server is stopping: something that retry loops repeat."""

import signal
from pathlib import Path

import pytest
import transaction
import ZEO.ClientStorage
import ZODB.POSException
from transaction.interfaces import TransientError

from tests.contract.storages import Txn
from tests.fixtures_zeod import StartZeod, Zeod
from tests.server.raw_client import RawClient
from zeo_client.storage import ClientStorage
from zeo_core.errors import ClientDisconnected
from zeo_core.ids import ZERO_TID, pack_id

A, B, C = pack_id(1), pack_id(2), pack_id(3)


@pytest.fixture
def server(start_zeod: StartZeod) -> Zeod:
    return start_zeod("-f", "Data.fs", "-a", "./zeod.sock")


def begin_stopping(server: Zeod) -> None:
    """Have a server stop that has to wait for a client."""
    server.process.send_signal(signal.SIGTERM)
    while Path(str(server.address)).exists():  # it listens no more
        pass


def test_a_voter_is_disconnected(server: Zeod) -> None:
    with RawClient(server.address) as voted, RawClient(server.address) as late:
        for client, oid in ((voted, A), (late, B)):
            client.begin(1, {oid: (ZERO_TID, b"first")})
            assert client.call("vote", 1) == ()
        begin_stopping(server)
        late.call("tpc_finish", 1)
        late.begin(2, {C: (ZERO_TID, b"too late")})
        with pytest.raises(ConnectionResetError):
            late.call("vote", 2)
        voted.call("tpc_finish", 1)
    assert server.wait() == 0
    assert "Traceback" not in server.log_text()


def test_our_client_is_told_so_where_it_cannot_be_disconnected(server: Zeod) -> None:
    storage = ClientStorage(server.address, wait_timeout=1)
    voted, late = Txn(), Txn()
    storage.tpc_begin(voted)
    storage.store(A, ZERO_TID, b"first", "", voted)
    storage.tpc_vote(voted)
    storage.tpc_begin(late)
    storage.store(B, ZERO_TID, b"too late", "", late)
    begin_stopping(server)
    with pytest.raises(ClientDisconnected, match="the server is stopping") as caught:
        storage.tpc_vote(late)
    assert isinstance(caught.value, TransientError)
    storage.tpc_abort(late)
    storage.tpc_finish(voted)
    storage.close()
    assert server.wait() == 0


def test_zeos_client_retries_as_well(server: Zeod) -> None:
    with RawClient(server.address) as voted:
        storage = ZEO.ClientStorage.ClientStorage(server.address, wait_timeout=10)
        voted.begin(1, {A: (ZERO_TID, b"first")})
        assert voted.call("vote", 1) == ()
        txn = transaction.TransactionManager().get()
        storage.tpc_begin(txn)
        storage.store(B, ZERO_TID, b"too late", "", txn)
        begin_stopping(server)
        with pytest.raises(ZODB.POSException.StorageError) as caught:
            storage.tpc_vote(txn)
        assert isinstance(caught.value, TransientError)
        voted.call("tpc_finish", 1)
        storage.tpc_abort(txn)
        storage.close()
    assert server.wait() == 0
