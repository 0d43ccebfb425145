"""zeod with ZEO's clients, and our client with ZEO's server: real processes, protocol M5."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZEO.ClientStorage
import ZODB
import ZODB.FileStorage
import ZODB.POSException
from BTrees.Length import Length
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping
from ZODB.Connection import TransactionMetaData

import zeo_client
from tests.fixtures_runzeo import StartRunZEO
from tests.fixtures_zeod import StartZeod
from zeo_core.errors import ConflictError, POSKeyError
from zeo_core.ids import MAX_TID, successor


def zeo_storage(address: Any, **options: Any) -> Any:
    return ZEO.ClientStorage.ClientStorage(address, wait_timeout=20, **options)


Open = Callable[[], Any]


@pytest.fixture(
    params=["ZEO to zeod", "ours to runzeo", "ours to runzeo, under ZODB.DB", "ours to zeod, under ZODB.DB"]
)
def open_db(
    request: pytest.FixtureRequest, start_zeod: StartZeod, start_runzeo: StartRunZEO, tmp_path: Path
) -> Iterator[Open]:
    """A function that opens one more client of one server: each pair of client, object layer and server."""
    pair: str = request.param
    address = start_runzeo(tmp_path / "Data.fs").address if "runzeo" in pair else start_zeod("-f", "Data.fs").address
    opened: list[Any] = []

    def open_one() -> Any:
        storage = zeo_storage(address) if pair.startswith("ZEO") else zeo_client.ClientStorage(address)
        db = zeo_client.DB(storage) if pair == "ours to runzeo" else ZODB.DB(storage)
        opened.append(db)
        return db

    yield open_one
    for db in opened:
        db.close()


def manager_and_connection(db: Any) -> tuple[Any, Any]:
    manager = transaction.TransactionManager()
    return manager, db.open(manager)


def test_what_one_client_commits_another_sees(open_db: Open) -> None:
    writer, writing = manager_and_connection(open_db())
    reader, reading = manager_and_connection(open_db())
    writing.root()["tree"] = OOBTree({f"key {number}": PersistentMapping(number=number) for number in range(300)})
    writer.commit()
    eventually(lambda: reader.begin() and "tree" in reading.root())
    assert [value["number"] for value in reading.root()["tree"].values()] == [
        int(key.split()[1]) for key in reading.root()["tree"]
    ]
    reading.root()["tree"]["key 7"]["number"] = "changed"
    reader.commit()
    eventually(lambda: writer.begin() and writing.root()["tree"]["key 7"]["number"] == "changed")
    writer.abort()
    reader.abort()
    writing.close()
    reading.close()


def test_a_snapshot_stays_what_it_was(open_db: Open) -> None:
    db = open_db()
    writer, writing = manager_and_connection(db)
    writing.root()["a"], writing.root()["b"] = PersistentMapping(n=0), PersistentMapping(n=0)
    writer.commit()
    reader, reading = manager_and_connection(db)
    reader.begin()
    assert reading.root()["a"]["n"] == 0
    for name in "ab":
        writing.root()[name]["n"] = 1
    writer.commit()
    assert reading.root()["b"]["n"] == 0
    reader.begin()
    assert (reading.root()["a"]["n"], reading.root()["b"]["n"]) == (1, 1)
    reader.abort()
    writing.close()
    reading.close()


def test_a_conflict_is_one_for_both_sides(open_db: Open) -> None:
    first, at_first = manager_and_connection(open_db())
    at_first.root()["x"] = PersistentMapping(n=0)
    first.commit()
    second, at_second = manager_and_connection(open_db())
    eventually(lambda: second.begin() and "x" in at_second.root())
    at_second.root()["x"]["n"] = 2
    first.begin()
    at_first.root()["x"]["n"] = 1
    first.commit()
    with pytest.raises((ConflictError, ZODB.POSException.ConflictError)) as caught:
        second.commit()
    assert isinstance(caught.value, transaction.interfaces.TransientError)
    assert "PersistentMapping" in str(caught.value)
    second.abort()
    eventually(lambda: second.begin() and at_second.root()["x"]["n"] == 1)
    at_second.root()["x"]["n"] = 2
    second.commit()
    at_first.close()
    at_second.close()


def test_a_counter_that_many_threads_increase(open_db: Open) -> None:
    db = open_db()
    manager, connection = manager_and_connection(db)
    connection.root()["counter"] = Length(0)
    manager.commit()
    threads = [threading.Thread(target=increase, args=(open_db() if number % 2 else db, 25)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: manager.begin() and connection.root()["counter"].value == 100)
    manager.abort()
    connection.close()


def increase(db: Any, times: int) -> None:
    manager, connection = manager_and_connection(db)
    for _ in range(times):
        for attempt in manager.attempts(1000):
            with attempt:
                connection.root()["counter"].change(1)
    connection.close()


def test_the_storages_api_is_zeos(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    with closing(zeo_storage(server.address)) as storage:
        oid = storage.new_oid()
        tids = [commit(storage, oid, b"one"), commit(storage, oid, b"two", 0)]
        assert storage.loadBefore(oid, tids[1]) == (b"one", tids[0], tids[1])
        assert storage.loadBefore(oid, MAX_TID) == (b"two", tids[1], None)
        assert storage.loadBefore(oid, tids[0]) is None
        assert storage.loadSerial(oid, tids[0]) == b"one"
        assert [entry["tid"] for entry in storage.history(oid, 5)] == tids[::-1]
        assert storage.lastTransaction() == tids[1]
        assert len(storage) == 1
        assert storage.getSize() > 0
        with pytest.raises(ZODB.POSException.POSKeyError):
            storage.loadBefore(b"\0" * 7 + b"\xee", MAX_TID)
        status = storage.server_status()
        assert (status["commits"], status["stores"]) == (2, 2)


def commit(storage: Any, oid: bytes, data: bytes, read: int | None = None) -> bytes:
    """Commit one object, made from the last revision if `read` is given."""
    txn = TransactionMetaData("user", "why", {"key": "value"})
    serial = b"\0" * 8 if read is None else storage.load(oid)[1]
    storage.tpc_begin(txn)
    storage.store(oid, serial, data, "", txn)
    storage.tpc_vote(txn)
    tid: bytes = storage.tpc_finish(txn)
    return tid


def test_a_zeo_client_that_comes_back_catches_up(start_zeod: StartZeod, tmp_path: Path) -> None:
    server = start_zeod("-f", "Data.fs")
    with closing(zeo_storage(server.address, cache=str(tmp_path / "cache"))) as storage:
        oid = storage.new_oid()
        commit(storage, oid, b"one")
    with closing(zeo_client.ClientStorage(server.address)) as ours:
        tid = commit(ours, oid, b"two", 0)
    with closing(zeo_storage(server.address, cache=str(tmp_path / "cache"))) as storage:
        assert storage.loadBefore(oid, successor(tid)) == (b"two", tid, None)


def test_runzeo_answers_our_whole_storage(start_runzeo: StartRunZEO, tmp_path: Path) -> None:
    server = start_runzeo(tmp_path / "Data.fs")
    with closing(zeo_client.ClientStorage(server.address)) as storage:
        oid = storage.new_oid()
        tids = [commit(storage, oid, b"one"), commit(storage, oid, b"two", 0)]
        assert storage.load_before(oid, tids[1]) == (b"one", tids[0], tids[1])
        assert storage.load_before(oid, tids[0]) is None
        assert storage.load_serial(oid, tids[0]) == b"one"
        assert [entry.tid for entry in storage.revisions(oid, 5)] == tids[::-1]
        assert storage.revisions(oid, 1)[0].metadata.user == b"user"
        assert storage.last_tid() == tids[1]
        with pytest.raises(POSKeyError) as caught:
            storage.load_before(b"\0" * 7 + b"\xee", MAX_TID)
        assert caught.value.oid == b"\0" * 7 + b"\xee"


def test_an_unknown_storage_is_refused_by_both_servers(
    start_zeod: StartZeod, start_runzeo: StartRunZEO, tmp_path: Path
) -> None:
    for address in (start_zeod("-f", "a.fs").address, start_runzeo(tmp_path / "b.fs").address):
        with pytest.raises(ValueError, match="nowhere"):
            zeo_client.ClientStorage(address, "nowhere", wait_timeout=20)


@pytest.mark.parametrize("objects", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_database_of_zodbs_is_served_whole(start_zeod: StartZeod, tmp_path: Path, objects: int) -> None:
    path = tmp_path / "Data.fs"
    expected = write_with_zodb(path, objects)
    server = start_zeod("-f", str(path))
    with closing(zeo_client.ClientStorage(server.address)) as ours:
        assert all(ours.load_before(oid, MAX_TID) == (*state, None) for oid, state in expected.items())
    with closing(zeo_storage(server.address)) as theirs:
        assert all(theirs.loadBefore(oid, MAX_TID) == (*state, None) for oid, state in expected.items())


def write_with_zodb(path: Path, objects: int) -> dict[bytes, tuple[bytes, bytes]]:
    """Write so many objects; return the data and serial of each by its oid."""
    with closing(ZODB.DB(ZODB.FileStorage.FileStorage(str(path)))) as db:
        manager, connection = manager_and_connection(db)
        tree = connection.root()["tree"] = OOBTree()
        for number in range(objects):
            tree[number] = PersistentMapping(number=number)
            if number % 2_000 == 0:
                manager.commit()
        manager.commit()
        connection.close()
    with closing(ZODB.FileStorage.FileStorage(str(path), read_only=True)) as storage:
        return {record.oid: (record.data, record.tid) for txn in storage.iterator() for record in txn}


def test_zodb_opens_what_zeod_wrote_for_a_zeo_client(start_zeod: StartZeod, tmp_path: Path) -> None:
    server = start_zeod("-f", "Data.fs")
    with closing(ZODB.DB(zeo_storage(server.address))) as db:
        manager, connection = manager_and_connection(db)
        connection.root()["tree"] = OOBTree({number: PersistentMapping(n=number) for number in range(500)})
        manager.get().note("made through ZEO's client")
        manager.commit()
        connection.close()
    assert server.stop() == 0
    check = (
        "import sys, ZODB, ZODB.FileStorage\n"
        "db = ZODB.DB(ZODB.FileStorage.FileStorage(sys.argv[1]))\n"
        "with db.transaction() as conn:\n"
        "    print(sum(value['n'] for value in conn.root()['tree'].values()))\n"
        "db.close()\n"
    )
    command = [sys.executable, "-c", check, str(tmp_path / "Data.fs")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == [str(sum(range(500)))]


def eventually(condition: Callable[[], object]) -> None:
    """Wait for a condition that another client's commit brings about."""
    deadline = threading.Event()
    timer = threading.Timer(20, deadline.set)
    timer.start()
    try:
        while not condition():
            assert not deadline.is_set(), "it did not come to pass within 20 s"
    finally:
        timer.cancel()
