"""Loads by several at once: threads that share one client, and processes with a client each."""

import threading
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.processes import group
from benchmarks.servers import connect
from benchmarks.work import LATEST, OBJECTS

__all__ = ["COUNT", "process_loads_us", "thread_loads_us"]

COUNT = 4


def thread_loads_us(kind: str, port: int, rounds: int) -> float:
    """Load by COUNT threads on one client whose cache is empty; the time for one load of all of them together."""
    storage = connect(kind, port, cache_size=1)
    barrier = threading.Barrier(COUNT + 1)
    shares = _shares(rounds)
    threads = [threading.Thread(target=_load, args=(storage, share, barrier.wait)) for share in shares]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - start
    storage.close()
    return elapsed / sum(map(len, shares)) * 1e6


def process_loads_us(kind: str, port: int, rounds: int) -> float:
    """Load by COUNT processes with a client each; the time for one load of all of them together."""
    shares = _shares(rounds)
    with group(_process, [(kind, port, share) for share in shares]) as processes:
        times = processes.results(stop=False)
    elapsed: float = max(end for _, end in times) - min(start for start, _ in times)
    return elapsed / sum(map(len, shares)) * 1e6


def _shares(rounds: int) -> list[list[bytes]]:
    """Return oids for each: never the same at the same time, which a client asks for only once."""
    oids = [(number % OBJECTS + 1).to_bytes(8, "big") for number in range(rounds)]
    return [oids[first::COUNT] for first in range(COUNT)]


def _process(kind: str, port: int, share: Sequence[bytes], ready: Any, _stop: Any) -> tuple[float, float]:
    storage = connect(kind, port, cache_size=1)
    storage.loadBefore(share[0], LATEST)
    ready()
    start = time.monotonic()  # one clock for all processes
    _load(storage, share, lambda: None)
    end = time.monotonic()
    storage.close()
    return start, end


def _load(storage: Any, oids: Sequence[bytes], ready: Any) -> None:
    ready()
    for oid in oids:
        storage.loadBefore(oid, LATEST)
