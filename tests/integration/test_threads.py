"""One program, one DB, many threads: a bank under load, while its pools, caches and history are used and changed."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import transaction

from tests.client.objects import Node
from tests.fixtures_zeod import StartZeod
from zeo_client import DB
from zeo_client import open as open_database
from zeo_client.activity import ActivityMonitor
from zeo_client.connection import Connection
from zeo_core.errors import ConflictError, UndoError
from zeo_core.ids import Tid

ACCOUNTS = 12
START = 100
LIMIT_S = 240.0
ENOUGH = 25
"""Transfers after which, everybody else having had several turns as well, it may end."""


@pytest.fixture(params=["embedded", "served"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DB]:
    """A database with more users than its pool has room for, and caches that are too small."""
    where = str(tmp_path / "Data.fs")
    if request.param == "served":
        start_zeod: StartZeod = request.getfixturevalue("start_zeod")
        where = start_zeod("-f", "served.fs").url
    with open_database(where, pool_size=3, cache_size=6, historical_pool_size=2, historical_cache_size=4) as opened:
        with opened.transaction("opening balance") as conn:
            conn.root.accounts = [Node(balance=START) for _ in range(ACCOUNTS)]
        yield opened


def total(conn: Connection) -> int:
    return sum(account.balance for account in conn.root.accounts)


class Bank:
    """What the threads do until it is enough, each with a random generator of its own."""

    def __init__(self, db: DB) -> None:
        self._db = db
        self._tids: list[Tid] = [db.lastTransaction()]
        self.seen: list[int] = []
        self.moved = 0
        self.undone = 0
        self._counting = threading.Lock()

    def move(self, chance: random.Random) -> None:
        """Move money, in a connection that is taken from the pool for it and given back."""
        source, target = chance.sample(range(ACCOUNTS), 2)
        amount = chance.randrange(10)

        def transfer(conn: Connection) -> None:
            accounts = conn.root.accounts
            accounts[source].balance -= amount
            accounts[target].balance += amount

        self._db.run(transfer, 1000)
        with self._counting:
            self.moved += 1

    def keep_moving(self, chance: random.Random) -> None:
        """Move money several times in a connection that stays open, with savepoints that are rolled back."""
        manager = transaction.TransactionManager()
        conn = self._db.open(manager)
        for attempt in manager.attempts(1000):
            with attempt:
                account = conn.root.accounts[chance.randrange(ACCOUNTS)]
                account.balance -= 7
                savepoint = manager.savepoint()
                account.balance -= 1000
                savepoint.rollback()
                account.balance += 7
        conn.close()

    def look(self, _chance: random.Random) -> None:
        """Look at all accounts."""
        with self._db.transaction() as conn:
            self.seen.append(total(conn))
        self._tids.append(self._db.lastTransaction())

    def look_back(self, chance: random.Random) -> None:
        """Look at all accounts as they were."""
        conn = self._db.open(transaction.TransactionManager(), at=chance.choice(self._tids[-20:]))
        self.seen.append(total(conn))
        conn.close()

    def undo(self, _chance: random.Random) -> None:
        """Take back the last transfer, if nobody has touched its accounts since."""
        manager = transaction.TransactionManager()
        last = next(iter(self._db.undoLog(0, 1)), None)  # none where the storage cannot undo
        if last is None or last["description"]:
            return
        self._db.undo(last["id"], manager.get())
        try:
            manager.commit()
        except (UndoError, ConflictError):
            manager.abort()
        else:
            self.undone += 1

    def administer(self, chance: random.Random) -> None:
        """Look into the caches, and change their sizes and the pools'."""
        db = self._db
        db.cacheDetail()
        db.cacheExtremeDetail()
        db.connectionDebugInfo()
        db.setCacheSize(chance.randrange(1, 20))
        db.setPoolSize(chance.randrange(1, 6))
        db.setHistoricalPoolSize(chance.randrange(1, 4))
        db.cacheMinimize()
        time.sleep(0.01)  # so that others get something done


def until(enough: Callable[[], bool], work: Callable[[random.Random], None], seed: int, turns: list[int]) -> None:
    chance = random.Random(seed)
    deadline = time.monotonic() + LIMIT_S
    while not enough():
        assert time.monotonic() < deadline, turns
        work(chance)
        turns[seed] += 1


def test_a_bank_with_one_database_and_many_threads(db: DB) -> None:
    monitor = ActivityMonitor()
    db.setActivityMonitor(monitor)
    bank = Bank(db)
    works = [bank.move, bank.move, bank.move, bank.keep_moving, bank.look, bank.look_back, bank.undo, bank.administer]
    turns = [0] * len(works)

    def enough() -> bool:
        return bank.moved >= ENOUGH and min(turns) >= 2

    with ThreadPoolExecutor(len(works)) as threads:
        for done in [threads.submit(until, enough, work, seed, turns) for seed, work in enumerate(works)]:
            done.result()
    assert set(bank.seen) == {ACCOUNTS * START}
    with db.transaction() as conn:
        assert total(conn) == ACCOUNTS * START
    # Every connection came back: none is open, and the pools hold no more than they may.
    assert [line["opened"] for line in db.connectionDebugInfo() if line["opened"]] == []
    assert len(db.pool.available) <= db.getPoolSize()
    assert len(db.historical_pool.available) <= db.getHistoricalPoolSize()
    assert sum(line["connections"] for line in monitor.getActivityAnalysis()) >= bank.moved
