"""Walks through trees over a real zeod: whole, of one state, whatever others commit meanwhile."""

import threading
from pathlib import Path

import pytest
from BTrees.OOBTree import OOBTree

from tests.client.objects import Node
from tests.fixtures_zeod import StartZeod
from tests.proxy import Proxy
from zeo_client.db import DB
from zeo_client.storage import ClientStorage

OBJECTS = 1500


def fill(url: tuple[str, int] | str) -> None:
    with DB(ClientStorage(url)) as db, db.transaction() as conn:
        conn.root()["tree"] = OOBTree({f"key {number:05}": Node(x=number, round=0) for number in range(OBJECTS)})


def walk(db: DB) -> set[int]:
    """Walk through the tree in a new transaction with no object in memory; return the rounds met."""
    with db.transaction() as conn:
        conn.cacheMinimize()
        nodes = list(conn.root()["tree"].values())
        assert [node.x for node in nodes] == list(range(OBJECTS))
        return {node.round for node in nodes}


def change_all(db: DB, number: int) -> None:
    with db.transaction() as conn:
        for node in conn.root()["tree"].values():
            node.round = number


def test_a_cold_walk_takes_few_round_trips(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    fill(server.address)
    storage = ClientStorage(server.address)
    with DB(storage) as db:
        assert walk(db) == {0}
        misses = storage.cache_stats()["misses"]
        assert walk(db) == {0}
        assert storage.cache_stats()["misses"] == misses


@pytest.mark.parametrize("delay_s", [0.0, 0.001])
def test_every_walk_sees_one_state(start_zeod: StartZeod, tmp_path: Path, delay_s: float) -> None:
    """Invariants 3, 5 and 6, with read-ahead: windows cross the invalidations of everything that they bring."""
    server = start_zeod("-f", "Data.fs")
    assert isinstance(server.address, tuple)
    fill(server.address)
    done = threading.Event()
    seen: list[set[int]] = []

    def walk_on(address: tuple[str, int]) -> None:
        # A small cache, so that every walk has to load most of it.
        with DB(ClientStorage(address, cache_size=200_000)) as db:
            while not done.is_set():
                seen.append(walk(db))
            seen.append(walk(db))

    with Proxy(server.address, delay_s=delay_s, seed=1) as proxy:
        walkers = [threading.Thread(target=walk_on, args=(proxy.address,)) for _ in range(2)]
        for walker in walkers:
            walker.start()
        with DB(ClientStorage(server.address)) as db:
            for number in range(1, 6):
                change_all(db, number)
        done.set()
        for walker in walkers:
            walker.join()
    assert all(len(rounds) == 1 for rounds in seen)
    assert seen[-1] == {5}
