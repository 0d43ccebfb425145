"""A hot counter: 8 client processes add to one object, with and without conflict resolution, and retry conflicts."""

import time
from typing import Any

import transaction
from BTrees.Length import Length
from persistent.mapping import PersistentMapping
from transaction.interfaces import TransientError

from benchmarks.processes import group
from benchmarks.servers import connect

__all__ = ["plain_counter_us", "resolved_counter_us"]

_CLIENTS = 8


def resolved_counter_us(kind: str, port: int, rounds: int) -> float:
    """Return the time for one of all commits that add to a BTrees.Length."""
    return _counter_us(kind, port, rounds, "length")


def plain_counter_us(kind: str, port: int, rounds: int) -> float:
    """Return the time for one of all commits that add to a number in a PersistentMapping."""
    return _counter_us(kind, port, rounds, "mapping")


def _database(kind: str, storage: Any) -> Any:
    if kind == "zeo":
        import ZODB

        return ZODB.DB(storage)
    import zeo_client

    return zeo_client.DB(storage)


def _counter_us(kind: str, port: int, rounds: int, key: str) -> float:
    with _opened(kind, port) as conn:
        conn.root()[key] = Length() if key == "length" else PersistentMapping(value=0)
        transaction.commit()
    with group(_add, [(kind, port, rounds, key)] * _CLIENTS) as clients:
        start = time.perf_counter()
        ended: float = max(clients.results(stop=False))
    with _opened(kind, port) as conn:
        counter = conn.root()[key]
        value = counter() if key == "length" else counter["value"]
        if value != rounds * _CLIENTS:
            raise RuntimeError(f"{kind} has counted to {value} instead of {rounds * _CLIENTS}")
    return (ended - start) / (rounds * _CLIENTS) * 1e6


class _opened:  # noqa: N801 - used as a function
    def __init__(self, kind: str, port: int) -> None:
        self._db = _database(kind, connect(kind, port))
        self._conn = self._db.open()

    def __enter__(self) -> Any:
        return self._conn

    def __exit__(self, *_: object) -> None:
        transaction.abort()
        self._conn.close()
        self._db.close()


def _add(kind: str, port: int, rounds: int, key: str, ready: Any, _stop: Any) -> float:
    with _opened(kind, port) as conn:
        counter = conn.root()[key]
        counter._p_activate()  # noqa: SLF001
        ready()
        for _ in range(rounds):
            _once(counter, key)
        return time.perf_counter()


def _once(counter: Any, key: str) -> None:
    while True:
        try:
            transaction.begin()
            if key == "length":
                counter.change(1)
            else:
                counter["value"] += 1
            transaction.commit()
        except TransientError:
            transaction.abort()
        else:
            return
