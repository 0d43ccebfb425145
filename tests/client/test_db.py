"""The DB: connections, transactions, root, threads."""

import os
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import transaction
from persistent.mapping import PersistentMapping

from tests.client.objects import Node, Slotted
from zeo_client.broken import Broken
from zeo_client.connection import Connection
from zeo_client.db import DB
from zeo_core.errors import ConflictError, ConnectionStateError, ReadOnlyError, StorageClosedError, StorageError
from zeo_core.ids import ROOT_OID, ZERO_TID, Tid
from zeo_core.storage import Progress
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

# -- transactions


def test_a_transaction_commits(db: DB) -> None:
    with db.transaction("a note") as conn:
        conn.root.a = 1
    assert conn.opened is None
    assert next(iter(db.storage.history(ROOT_OID)))["description"] == b"a note"  # type: ignore[attr-defined]
    with db.transaction() as conn:
        assert conn.root.a == 1


def test_a_transaction_aborts_on_an_exception(db: DB) -> None:
    conn = None

    def fail() -> None:
        nonlocal conn
        with db.transaction() as conn:
            conn.root.a = 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert conn is not None
    assert conn.opened is None
    with db.transaction() as conn:
        assert not hasattr(conn.root, "a")


def test_a_transaction_that_conflicts_closes_its_connection(db: DB) -> None:
    conn = None

    def conflict() -> None:
        nonlocal conn
        with db.transaction() as conn:
            conn.root.a = 1
            with db.transaction() as other:
                other.root.b = 1

    with pytest.raises(ConflictError):
        conflict()
    assert conn is not None
    assert conn.opened is None
    with db.transaction() as conn:
        assert set(conn.root()) == {"b"}


def test_a_connection_that_was_closed_in_its_transaction_is_not_closed_for_its_next_user(db: DB) -> None:
    with db.transaction() as conn:
        conn.close()
        assert db.open() is conn
    assert conn.opened is not None


def test_transactions_of_one_thread_are_independent(db: DB) -> None:
    with db.transaction() as one, db.transaction() as two:
        assert one is not two
        assert one.root() is not two.root()


# -- opening and closing


def test_connections_are_used_again(db: DB) -> None:
    one = db.open()
    one.close()
    assert db.open() is one
    assert db.open() is not one


def test_more_connections_than_the_pool_holds(storage: MappingStorage) -> None:
    with DB(storage, pool_size=2) as db:
        connections = [db.open(transaction.TransactionManager()) for _ in range(4)]
        for connection in connections:
            connection.close()
        assert sum(connection._snapshot in list[object](db.hub._listeners) for connection in connections) == 2


def test_a_connection_may_be_closed_by_another_thread(db: DB) -> None:
    conn = db.open()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(conn.close).result()
    assert conn.opened is None


def test_closing_the_db_closes_the_storage_and_abandons_changes(storage: MappingStorage) -> None:
    db = DB(storage)
    conn, explicit = db.open(transaction.TransactionManager()), db.open(transaction.TransactionManager(explicit=True))
    conn.root.a = 1
    db.close()
    db.close()
    assert conn.opened is None
    assert explicit.opened is None
    with pytest.raises(StorageClosedError):
        storage.load(ROOT_OID)
    with pytest.raises(ConnectionStateError, match="<DB 'unnamed' on Mapping Storage> is closed"):
        db.open()
    with pytest.raises(ConnectionStateError):
        conn.root()


def test_a_connection_that_is_closed_after_its_db(storage: MappingStorage) -> None:
    db = DB(storage)
    with db.transaction() as conn:
        db.close()
    assert conn.opened is None


class Unable(MappingStorage):
    """Cannot tell its last tid when it is told to fail."""

    fails = False

    def last_tid(self) -> Tid:
        if self.fails:
            raise OSError("disk on fire")
        return super().last_tid()


def test_a_connection_that_cannot_be_opened_is_not_kept() -> None:
    storage = Unable()
    with DB(storage) as db:
        storage.fails = True
        with pytest.raises(OSError, match="on fire"):
            db.open(transaction.TransactionManager())
        storage.fails = False
        conn = db.open(transaction.TransactionManager())
        conn.root.a = 1
        conn.transaction_manager.commit()


def test_a_class_factory_finds_the_classes(storage: MappingStorage) -> None:
    asked: list[tuple[str, str]] = []

    class Other(Node):
        """What is found in the place of another class."""

    def factory(_connection: object, module: str, name: str) -> Any:
        asked.append((module, name))
        return Other if name == "Node" else PersistentMapping

    with DB(storage, class_factory=factory, database_name="other") as db:
        with db.transaction() as conn:
            conn.root.a = Node(x=1)
        with DB(storage, class_factory=factory) as again, again.transaction() as conn:
            assert type(conn.root.a) is Other
            assert not issubclass(type(conn.root.a), Broken)
        assert ("tests.client.objects", "Node") in asked
        assert db.database_name == "other"


def test_a_subclass_may_have_its_way_to_find_classes(storage: MappingStorage) -> None:
    class Mine(DB):
        def classFactory(self, connection: Connection, module: str, name: str) -> Any:  # noqa: N802
            assert connection.db() is self
            return Slotted if name == "Node" else PersistentMapping

    with Mine(storage).transaction() as conn:
        conn.root.a = Node(x=1)
    with Mine(storage) as db, db.transaction() as conn:
        assert type(conn.root.a) is Slotted
        db.classFactory = lambda _connection, _module, _name: PersistentMapping  # type: ignore[method-assign, assignment]
        with db.transaction() as other:
            assert type(other.root.a) is PersistentMapping


def test_last_transaction_of_nothing(storage: MappingStorage) -> None:
    assert storage.last_tid() == ZERO_TID
    with DB(storage) as db:
        assert db.lastTransaction() > ZERO_TID


# -- threads

ACCOUNTS = 20
START = 100


def in_threads(count: int, work: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(count) as executor:
        for done in [executor.submit(work, number) for number in range(count)]:
            done.result()


def test_four_threads_count_to_four_hundred(db: DB) -> None:
    with db.transaction() as conn:
        conn.root.counter = Node(value=0)

    def count(_number: int) -> None:
        conn = db.open()  # in the thread's own transaction
        for _ in range(100):
            for attempt in transaction.manager.attempts(10_000):
                with attempt:
                    conn.root.counter.value += 1
        transaction.abort()
        conn.close()

    in_threads(4, count)
    with db.transaction() as conn:
        assert conn.root.counter.value == 400


def test_a_bank_is_never_seen_with_another_sum(db: DB) -> None:
    """Some move money, some look at all accounts: the sum is the same in every state that anyone can see."""
    with db.transaction() as conn:
        conn.root.accounts = [Node(balance=START) for _ in range(ACCOUNTS)]
    done = threading.Event()
    sums: list[int] = []

    def move(number: int) -> None:
        manager = transaction.TransactionManager(explicit=number % 2 == 0)
        conn = db.open(manager)
        for turn in range(100):

            def transfer(turn: int = turn) -> None:
                source, target = (turn * 7 + number) % ACCOUNTS, (turn * 3 + number * 5 + 1) % ACCOUNTS
                accounts = conn.root.accounts
                accounts[source].balance -= turn
                accounts[target].balance += turn

            manager.run(transfer, tries=10_000)
        conn.close()

    def look(number: int) -> None:
        manager = transaction.TransactionManager(explicit=number % 2 == 0)
        conn = db.open(manager)
        while not done.is_set():
            manager.begin()
            sums.append(sum(account.balance for account in conn.root.accounts))
            if number == 0:
                conn.cacheMinimize()
            manager.abort()
        conn.close()

    with ThreadPoolExecutor(2) as lookers:
        looking = [lookers.submit(look, number) for number in range(2)]
        try:
            in_threads(4, move)
        finally:
            done.set()
        for looker in looking:
            looker.result()
    assert set(sums) == {ACCOUNTS * START}
    with db.transaction() as conn:
        assert sum(account.balance for account in conn.root.accounts) == ACCOUNTS * START


# -- where the objects are


def test_a_database_in_memory() -> None:
    with DB(None, name="scratch") as db:
        assert db.getName() == "scratch"
        assert isinstance(db.storage, MappingStorage)


def test_a_database_in_a_file(tmp_path: Path) -> None:
    path = str(tmp_path / "Data.fs")
    with DB(path) as db, db.transaction() as conn:
        conn.root.a = 1
    with DB(path, read_only=True) as db, db.transaction() as conn:
        assert conn.root.a == 1
        assert db.storage.read_only()
        assert db.getSize() == os.path.getsize(path)
        assert db.objectCount() == 1


def test_a_file_that_cannot_be_used_is_not_left_open(tmp_path: Path) -> None:
    path = str(tmp_path / "Data.fs")
    FileStorage(path).close()
    with pytest.raises(ReadOnlyError):
        DB(path, read_only=True)
    with pytest.raises(TypeError):
        DB(path, cache_size="many")  # type: ignore[arg-type]
    FileStorage(path).close()


def test_options_for_a_storage_that_is_open_already(storage: MappingStorage) -> None:
    with pytest.raises(TypeError, match="open already: quota, read_only"):
        DB(storage, read_only=True, quota=5)


def test_a_database_is_packed(tmp_path: Path) -> None:
    with DB(str(tmp_path / "Data.fs")) as db:
        with db.transaction() as conn:
            conn.root.a = "x" * 10_000
        with db.transaction() as conn:
            conn.root.a = 1
        before = db.getSize()
        db.pack(days=1)
        assert db.getSize() == before
        db.pack()
        assert db.getSize() < before - 9_000


class InSteps(MappingStorage):
    """Notes when it was packed, if it was to the end."""

    def __init__(self) -> None:
        super().__init__()
        self.packed: list[float] = []

    def pack_steps(self, until_s: float, *, gc: bool | None = None) -> Generator[Progress, None, None]:
        yield Progress("copy", 0, 1)
        self.packed.append(until_s)


def test_a_storage_that_packs_in_steps() -> None:
    storage = InSteps()
    with DB(storage) as db:
        db.pack(1_000_000, days=2)
    assert storage.packed == [1_000_000 - 2 * 86_400]


class Unpacked(MappingStorage):
    pack: Any = None
    pack_steps: Any = None


def test_a_storage_that_cannot_be_packed() -> None:
    with DB(Unpacked()) as db, pytest.raises(StorageError, match="cannot be packed"):
        db.pack()


# -- settings


def test_pools_can_be_set(db: DB) -> None:
    assert (db.getPoolSize(), db.getHistoricalPoolSize(), db.getHistoricalTimeout()) == (7, 3, 300)
    connections = [db.open(transaction.TransactionManager()) for _ in range(3)]
    past = [db.open(transaction.TransactionManager(), at=db.lastTransaction()) for _ in range(3)]
    for connection in connections + past:
        connection.close()
    db.setPoolSize(2)
    db.setHistoricalPoolSize(1)
    assert (db.getPoolSize(), db.getHistoricalPoolSize()) == (2, 1)
    assert (len(db.pool.everything()), len(db.historical_pool.everything())) == (2, 1)
    db.setHistoricalTimeout(-1)
    assert db.getHistoricalTimeout() == -1
    assert db.historical_pool.everything() == []


def test_caches_can_be_set(storage: MappingStorage) -> None:
    with DB(storage, cache_size=5, cache_size_bytes=6, historical_cache_size=7, historical_cache_size_bytes=8) as db:
        conn, past = db.open(), db.open(transaction.TransactionManager(), at=db.lastTransaction())
        assert (db.getCacheSize(), db.getCacheSizeBytes()) == (5, 6)
        assert (db.getHistoricalCacheSize(), db.getHistoricalCacheSizeBytes()) == (7, 8)
        assert (conn.cache.cache_size, past.cache.cache_size) == (5, 7)
        db.setCacheSize(15)
        db.setCacheSizeBytes(16)
        db.setHistoricalCacheSize(17)
        db.setHistoricalCacheSizeBytes(18)
        for connection, size in ((conn, 15), (past, 17), (db.open(), 15)):
            assert (connection.cache.cache_size, connection.cache.cache_size_bytes) == (size, size + 1)
        assert (db.getCacheSize(), db.getCacheSizeBytes()) == (15, 16)
        assert (db.getHistoricalCacheSize(), db.getHistoricalCacheSizeBytes()) == (17, 18)


def test_an_idle_connection_goes_after_a_while(storage: MappingStorage) -> None:
    with DB(storage, pool_timeout=-1) as db:
        conn = db.open()
        conn.close()
        assert db.open() is not conn


def test_large_records_are_warned_of(storage: MappingStorage) -> None:
    warned = pytest.warns(UserWarning, match="is large")
    with DB(storage, large_record_size=1000) as db, warned, db.transaction() as conn:
        conn.root.a = "x" * 1000


def test_closing_ends_the_database(storage: MappingStorage) -> None:
    db = DB(storage)
    assert not db.closed
    db.close()
    assert db.closed
