"""The work that is timed, on any storage with ZODB's API; each function returns microseconds for one unit of it."""

import logging
import multiprocessing
import time
from pathlib import Path
from typing import Any

import transaction

from benchmarks.servers import connect

__all__ = [
    "LATEST",
    "OBJECTS",
    "cold_load_us",
    "committed",
    "make_database",
    "parallel_commit_us",
    "small_commit_us",
    "stored",
    "warm_load_us",
]

OBJECTS = 5000
"""Objects in the database, beside the root, with the oids 1 to OBJECTS and 300 bytes each."""

LATEST = b"\x7f" + b"\xff" * 7
"""What loadBefore is asked for to get what is current."""


def make_database(path: Path) -> None:
    """Write a Data.fs of OBJECTS objects with ZODB."""
    import ZODB.FileStorage
    from persistent.mapping import PersistentMapping

    database = ZODB.DB(ZODB.FileStorage.FileStorage(str(path)))
    connection = database.open()
    for number in range(OBJECTS):
        connection.root()[number] = PersistentMapping(text="x" * 200)
    transaction.commit()
    connection.close()
    database.close()


def cold_load_us(kind: str, port: int, rounds: int) -> float:
    """Load objects one by one, each for the first time."""
    storage = connect(kind, port, cache_size=1)
    oids = [number.to_bytes(8, "big") for number in range(1, min(rounds, OBJECTS) + 1)]
    start = time.perf_counter()
    for oid in oids:
        storage.loadBefore(oid, LATEST)
    elapsed = time.perf_counter() - start
    storage.close()
    return elapsed / len(oids) * 1e6


def warm_load_us(kind: str, port: int, rounds: int) -> float:
    """Load one object again and again, as of the last transaction, from the client's cache."""
    storage = connect(kind, port)
    before = (int.from_bytes(storage.lastTransaction(), "big") + 1).to_bytes(8, "big")
    oid = (1).to_bytes(8, "big")
    storage.loadBefore(oid, before)
    start = time.perf_counter()
    for _ in range(rounds):
        storage.loadBefore(oid, before)
    elapsed = time.perf_counter() - start
    storage.close()
    return elapsed / rounds * 1e6


def small_commit_us(kind: str, port: int, rounds: int) -> float:
    """Commit transactions of one object of 300 bytes each, one after the other."""
    storage = connect(kind, port)
    elapsed = _commit(storage, rounds)
    storage.close()
    return elapsed / rounds * 1e6


def parallel_commit_us(kind: str, port: int, rounds: int, clients: int = 8) -> float:
    """Commit as `small_commit_us` does, from several processes; the time for one commit of all of them together."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(clients + 1)
    processes = [context.Process(target=_committer, args=(kind, port, rounds, barrier)) for _ in range(clients)]
    for process in processes:
        process.start()
    barrier.wait()
    start = time.perf_counter()
    barrier.wait()
    elapsed = time.perf_counter() - start
    for process in processes:
        process.join()
    return elapsed / (rounds * clients) * 1e6


def _committer(kind: str, port: int, rounds: int, barrier: Any) -> None:
    logging.disable()  # ZEO's client has much to say when invalidations overtake each other
    storage = connect(kind, port)
    _commit(storage, 5)
    barrier.wait()
    _commit(storage, rounds)
    barrier.wait()
    storage.close()


def _commit(storage: Any, rounds: int) -> float:
    oid, serial = storage.new_oid(), b"\0" * 8
    start = time.perf_counter()
    for _ in range(rounds):
        serial, _ = committed(storage, oid, serial)
    return time.perf_counter() - start


def committed(storage: Any, oid: bytes, serial: bytes) -> tuple[bytes, float]:
    """Commit one object; return the new serial and the time.monotonic() at which tpc_finish was called."""
    data = b"\x80\x03cpersistent.mapping\nPersistentMapping\nq\x00.\x80\x03}q\x01." + b"x" * 240
    return stored(storage, oid, data, serial)


def stored(storage: Any, oid: bytes, data: bytes, serial: bytes = b"\0" * 8) -> tuple[bytes, float]:
    """Commit one object with `data`, otherwise as `committed` does."""
    txn = transaction.Transaction()
    txn.user, txn.description, txn.extension = "", "", {}
    storage.tpc_begin(txn)
    storage.store(oid, serial, data, "", txn)
    storage.tpc_vote(txn)
    start_s = time.monotonic()
    return storage.tpc_finish(txn), start_s
