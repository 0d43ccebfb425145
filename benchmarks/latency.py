"""The slowest loads of a client while another one commits transactions of 500 objects back to back."""

import time
from typing import Any

import transaction

from benchmarks.processes import group
from benchmarks.servers import connect
from benchmarks.work import LATEST, OBJECTS

__all__ = ["load_p99_beside_commits_us", "load_p99_idle_us"]

_TRANSACTION_OBJECTS = 500
_LOAD_PAUSE_S = 0.001  # a client that has something else to do as well


def load_p99_idle_us(kind: str, port: int, rounds: int) -> float:
    """Return the 99th percentile of loads that nobody disturbs."""
    storage = connect(kind, port, cache_size=1)
    p99 = _load_p99_us(storage, rounds)
    storage.close()
    return p99


def load_p99_beside_commits_us(kind: str, port: int, rounds: int) -> float:
    """Return the 99th percentile of loads beside the commits."""
    with group(_commit_all_the_time, [(kind, port)]) as committer:
        p99 = load_p99_idle_us(kind, port, rounds)
        (committed,) = committer.results()
    if not committed:
        raise RuntimeError("no transaction was committed meanwhile")
    return p99


def _load_p99_us(storage: Any, rounds: int) -> float:
    times = []
    for number in range(rounds):
        oid = (number * 7 % OBJECTS + 1).to_bytes(8, "big")
        start = time.perf_counter()
        storage.loadBefore(oid, LATEST)
        times.append(time.perf_counter() - start)
        time.sleep(_LOAD_PAUSE_S)
    return sorted(times)[rounds * 99 // 100] * 1e6


def _commit_all_the_time(kind: str, port: int, ready: Any, stop: Any) -> int:
    storage = connect(kind, port)
    oids = [storage.new_oid() for _ in range(_TRANSACTION_OBJECTS)]
    data = b"\x80\x03cpersistent.mapping\nPersistentMapping\nq\x00.\x80\x03}q\x01." + b"x" * 240
    serial, committed = b"\0" * 8, 0
    ready()
    while not stop.is_set():
        txn = transaction.Transaction()
        txn.user, txn.description, txn.extension = "", "", {}
        storage.tpc_begin(txn)
        for oid in oids:
            storage.store(oid, serial, data, "", txn)
        storage.tpc_vote(txn)
        serial = storage.tpc_finish(txn)
        committed += 1
    storage.close()
    return committed
