"""Large transactions wait in files, not in the server's memory: with a real server, whatever is done with them."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import transaction
from BTrees.Length import Length
from ZODB.FileStorage import FileStorage as ZODBFileStorage

import zeo_client
from tests.fixtures_small_disk import SmallDisk
from tests.fixtures_zeod import StartZeod, Zeod
from tests.integration.hot_counter import Tally
from tests.server.raw_client import RawClient
from zeo_client.db import DB
from zeo_client.storage import ClientStorage
from zeo_core.errors import ConflictError, StorageFullError
from zeo_core.ids import MAX_TID, ZERO_TID, Oid, pack_id

KB, MB = 1 << 10, 1 << 20
RECORD_BYTES = 32 * KB
A = pack_id(1)

StartWith = Callable[..., Zeod]


@pytest.fixture
def start_with(start_zeod: StartZeod, tmp_path: Path) -> StartWith:
    """Start a server with some keys of <zeo>."""

    def start(*keys: str) -> Zeod:
        (tmp_path / "zeo.conf").write_text(
            "<zeo>\naddress ./zeod.sock\n" + "\n".join(keys) + f"\n</zeo>\n"
            f"<filestorage>\npath {tmp_path}/Data.fs\n</filestorage>\n"
        )
        return start_zeod("-C", "zeo.conf")

    return start


def peak_bytes(server: Zeod) -> int:
    """What the server has taken of memory at most."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * KB


def record(number: int) -> bytes:
    """A record of an object that differs from all others at its start and its end."""
    mark = b"%d" % number
    return mark + b"x" * (RECORD_BYTES - 2 * len(mark)) + mark


def stage(client: RawClient, numbers: range) -> dict[Oid, int]:
    client.begin(1, {})
    for number in numbers:
        client.one_way("storea", pack_id(number), ZERO_TID, record(number), 1)
    return {pack_id(number): number for number in numbers}


def commit_large(server: Zeod, data_fs: Path, size_bytes: int, growth_bytes: int) -> None:
    before = peak_bytes(server)
    with RawClient(server.address) as client:
        staged = stage(client, range(1, size_bytes // RECORD_BYTES + 1))
        assert client.call("vote", 1) == ()
        tid = client.call("tpc_finish", 1)
        for number in (1, len(staged) // 2, len(staged)):
            assert client.load(pack_id(number)) == (record(number), tid, None)
    assert peak_bytes(server) - before < growth_bytes
    assert server.stop() == 0
    storage = ZODBFileStorage(str(data_fs), read_only=True)
    for txn in storage.iterator():
        found = {each.oid: each.data for each in txn}
    assert found == {oid: record(number) for oid, number in staged.items()}
    storage.close()


def test_a_large_transaction_takes_little_memory(start_with: StartWith, tmp_path: Path) -> None:
    server = start_with("transaction-spool-size 1MB")
    commit_large(server, tmp_path / "Data.fs", 96 * MB, 48 * MB)


@pytest.mark.slow
def test_a_very_large_transaction_takes_as_little(start_with: StartWith, tmp_path: Path) -> None:
    server = start_with("transaction-spool-size 8MB")
    commit_large(server, tmp_path / "Data.fs", 300 * MB, 60 * MB)


def test_many_transactions_together_take_little_memory(start_with: StartWith) -> None:
    server = start_with("transaction-spool-size 8MB", "max-staged-memory 8MB")
    before = peak_bytes(server)
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.address)) for _ in range(16)]
        count = 6 * MB // RECORD_BYTES
        for number, client in enumerate(clients):
            stage(client, range(1 + number * count, 1 + (number + 1) * count))
        for client in clients:
            assert client.call("vote", 1) == ()
        assert peak_bytes(server) - before < 48 * MB
        tids = [client.call("tpc_finish", 1) for client in clients]
        last = 16 * count
        assert clients[0].load(pack_id(last)) == (record(last), tids[-1], None)


def test_nothing_is_left_of_what_is_not_committed(start_with: StartWith, tmp_path: Path) -> None:
    server = start_with("transaction-spool-size 0")
    files = f"/proc/{server.pid}/fd"
    with RawClient(server.address) as client:
        opened = len(os.listdir(files))
        stage(client, range(1, 100))
        assert client.call("vote", 1) == ()
        assert len(os.listdir(files)) == opened + 1
        client.call("tpc_abort", 1)
        while len(os.listdir(files)) > opened:  # a thread closes it
            client.call("ping")
        stage(client, range(1, 100))
        assert client.call("vote", 1) == ()
        names = set(os.listdir(tmp_path))
        server.kill()
    assert set(os.listdir(tmp_path)) == names
    assert not {name for name in names if not name.startswith(("Data.fs", "zeo"))}


@pytest.mark.parametrize("key", ["conflict-resolution-classes default", "conflict-resolution-classes no.such.Class"])
def test_conflicts_of_spooled_records_are_resolved(start_with: StartWith, key: str) -> None:
    """By the server, and by the client where the server may not."""
    server = start_with("transaction-spool-size 0", key)
    storage = ClientStorage(server.address)
    with DB(storage) as db, DB(ClientStorage(server.address)) as other:
        managers = [transaction.TransactionManager() for _ in range(2)]
        mine, theirs = db.open(managers[0]), other.open(managers[1])
        mine.root()["length"], mine.root()["tally"] = Length(), Tally()
        managers[0].commit()
        managers[1].begin()
        for conn, manager, number in ((theirs, managers[1], 5), (mine, managers[0], 3)):
            conn.root()["length"].change(number)
            conn.root()["tally"].change(number)
            manager.commit()
        managers[1].begin()
        assert (theirs.root()["length"].value, theirs.root()["tally"].value) == (8, 8)
        assert storage.server_status()["conflicts_resolved"] == ("default" in key)
        mine.close()
        theirs.close()


def test_more_conflicts_than_can_be_sent_are_no_work_for_the_client(start_with: StartWith) -> None:
    server = start_with("transaction-spool-size 0", "max-backlog 1MB", "conflict-resolution-classes no.such.Class")
    with RawClient(server.address) as client:
        first = client.commit({A: (ZERO_TID, record(1))})
        second = client.commit({A: (first, record(2))})
        client.begin(1, {A: (first, record(3))})
        [asked] = client.call("vote", 1, True)
        assert (asked["oid"], asked["serials"], asked["data"]) == (A, (second, first), record(3))
        client.call("tpc_abort", 1)
        client.begin(2, {A: (first, b"x" * 2 * MB)})
        with pytest.raises(ConflictError):
            client.call("vote", 2, True)
        client.commit({A: (second, record(4))}, 3)  # the locks are free


def test_spooled_transactions_are_undone(start_with: StartWith) -> None:
    server = start_with("transaction-spool-size 0")
    with zeo_client.open(f"zeo://{server.address}") as db:
        for text in ("first", "second"):
            with db.transaction(text) as conn:
                conn.root()["text"] = text
        db.undo(db.undoLog(0, 1)[0]["id"])
        transaction.commit()
        with db.transaction() as conn:
            assert conn.root()["text"] == "first"


def test_a_spool_without_room_is_a_refused_vote(start_with: StartWith, small_disk: Callable[[int], SmallDisk]) -> None:
    disk = small_disk(4)
    server = start_with("transaction-spool-size 1MB", f"spool-directory {disk.path}")
    with RawClient(server.address) as client, RawClient(server.address) as other:
        stage(client, range(1, 16 * MB // RECORD_BYTES))
        with pytest.raises(StorageFullError, match=rf"{disk.path}: No space left on device"):
            client.call("vote", 1)
        tid = other.commit({A: (ZERO_TID, b"small enough")})
        assert other.load(A, MAX_TID) == (b"small enough", tid, None)
        stage(client, range(2, 2 + 3 * MB // RECORD_BYTES))  # there is room again
        assert client.call("vote", 1) == ()
        client.call("tpc_finish", 1)
