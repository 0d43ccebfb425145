"""What became of a transaction, asked by somebody who was not told."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import ZODB.FileStorage

from tests.server.in_process import InProcess, in_process
from tests.server.raw_client import RawClient
from zeo_core.errors import StorageError, StorageTransactionError
from zeo_core.ids import ZERO_TID, Tid, pack_id
from zeo_core.transaction import PreparedTransaction
from zeo_server.commit.outcomes import find_commit
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

A = pack_id(1)
MARKER, OTHER = b"0123456789abcdef", b"fedcba9876543210"


@pytest.fixture
def server() -> Iterator[InProcess]:
    with in_process() as running:
        yield running


def vote(client: RawClient, marker: bytes = MARKER, extension: Any = None) -> None:
    client.one_way("tpc_begin", 1, "u", "d", extension, None, " ", marker)
    client.one_way("storea", A, ZERO_TID, b"data", 1)
    client.call("vote", 1)


def test_a_committed_transaction_is_known_by_its_marker(server: InProcess) -> None:
    with server.client() as client:
        vote(client)
        tid = client.call("tpc_finish", 1)
    with server.client() as client:
        assert client.call("transaction_outcome", MARKER, ZERO_TID) == tid
        assert client.call("transaction_outcome", OTHER, ZERO_TID) is None
        assert client.call("transaction_outcome", MARKER, tid) is None  # it was to be later than that
        with pytest.raises(StorageError, match="cannot be told"):
            client.call("transaction_outcome", MARKER, pack_id(5))


def test_a_transaction_that_is_open_yet_is_aborted_first(server: InProcess) -> None:
    """Its finish may be on its way: after the answer it must not commit any more."""
    with server.client() as lost, server.client() as client:
        vote(lost)
        assert client.call("transaction_outcome", MARKER, ZERO_TID) is None
        with pytest.raises(StorageTransactionError):
            lost.call("tpc_finish", 1)
        vote(client)  # the lock is free
        client.call("tpc_finish", 1)


class Slow(MappingStorage):
    """Writes when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def write_group(self, transactions: Sequence[PreparedTransaction]) -> Any:
        self.go_on.wait(20)
        return super().write_group(transactions)


@pytest.mark.parametrize("gone", [False, True])
def test_one_that_is_being_written_is_waited_for(gone: bool) -> None:
    storage = Slow()
    with in_process({"1": storage}) as server, server.client() as lost, server.client() as client:
        vote(lost)
        lost.send("tpc_finish", 1)
        if gone:
            lost.close()
            server.until(lambda: len(server.service.connections) == 1)
        else:
            lost.call("ping")
        asked = client.send("transaction_outcome", MARKER, ZERO_TID)
        assert not client.answered(asked)
        storage.go_on.set()
        assert client.wait(asked) == storage.last_tid() != ZERO_TID


def test_zodb_reads_the_transaction_as_if_there_was_no_marker(tmp_path: Path) -> None:
    path = str(tmp_path / "Data.fs")
    tids: list[Tid] = []
    for marker, extension in ((MARKER, None), (OTHER, {"key": "value"})):
        # a server of its own for each: the answer is in the file
        storage = FileStorage(path)
        with in_process({"1": storage}) as server, server.client() as client:
            client.one_way("tpc_begin", 1, "u", "d", extension, None, " ", marker)
            client.one_way("storea", client.call("new_oids", 1)[0], ZERO_TID, b"data", 1)
            client.call("vote", 1)
            tids.append(client.call("tpc_finish", 1))
        storage.close()
    ours = FileStorage(path, read_only=True)
    assert [find_commit(ours, marker, ZERO_TID) for marker in (MARKER, OTHER)] == tids
    assert [each.extension for each in ours.iterator()] == [{}, {"key": "value"}]
    assert next(iter(ours.iterator())).extension_bytes == b""
    ours.close()
    theirs = ZODB.FileStorage.FileStorage(path)
    assert [each.extension for each in theirs.iterator()] == [{}, {"key": "value"}]
    assert theirs.undoLog()[0]["key"] == "value"
    theirs.close()
