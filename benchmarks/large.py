"""Large objects: stored one by one, each in a transaction, and loaded by a client whose cache holds none."""

import os
import time

from benchmarks.servers import connect
from benchmarks.work import LATEST, stored

__all__ = ["SIZE", "load_us", "store_us"]

SIZE = 2_000_000


def store_us(kind: str, port: int, rounds: int) -> float:
    """Store new objects of SIZE bytes; the time for one, with its commit."""
    storage = connect(kind, port)
    data = _data()
    stored(storage, storage.new_oid(), data)  # the storage has to get to know the connection
    oids = [storage.new_oid() for _ in range(rounds)]
    start = time.perf_counter()
    for oid in oids:
        stored(storage, oid, data)
    elapsed = time.perf_counter() - start
    storage.close()
    return elapsed / rounds * 1e6


def load_us(kind: str, port: int, rounds: int) -> float:
    """Load objects of SIZE bytes, each for the first time; the time for one."""
    storage = connect(kind, port, cache_size=1)
    data = _data()
    oids = [storage.new_oid() for _ in range(10)]
    for oid in oids:
        stored(storage, oid, data)
    storage.close()
    storage = connect(kind, port, cache_size=1)
    start = time.perf_counter()
    for number in range(rounds):
        found = storage.loadBefore(oids[number % len(oids)], LATEST)
        if len(found[0]) != len(data):
            raise RuntimeError("not what was stored")
    elapsed = time.perf_counter() - start
    storage.close()
    return elapsed / rounds * 1e6


def _data() -> bytes:
    """Return a record that nothing could make smaller."""
    return b"\x80\x03cpersistent.mapping\nPersistentMapping\nq\x00.\x80\x03}q\x01." + os.urandom(SIZE)
