"""How long after the beginning of a tpc_finish the last of 50 clients, which load meanwhile, has been told of it."""

import time
from typing import Any

from benchmarks.processes import group
from benchmarks.servers import connect
from benchmarks.work import LATEST, OBJECTS, committed

__all__ = ["CLIENTS", "fanout_us"]

CLIENTS, _PROCESSES = 50, 5
_LOAD_PAUSE_S = 0.005  # between two loads of a process, each by another of its clients: 1,000 a second from all
_COMMIT_PAUSE_S = 0.02
_SETTLE_S = 0.5


class _Ear:
    """A DB, as far as a storage tells it something: when it was told of which transaction."""

    def __init__(self) -> None:
        self.told_s: dict[bytes, float] = {}

    def invalidate(self, tid: bytes, _oids: Any, *_: Any) -> None:
        """Take note of the time."""
        self.told_s[tid] = time.monotonic()

    def invalidateCache(self) -> None:  # noqa: N802 - its name
        """Do nothing: nothing is kept."""

    def transform_record_data(self, data: bytes) -> bytes:
        """Return the record as it is."""
        return data

    untransform_record_data = transform_record_data


def fanout_us(kind: str, port: int, rounds: int) -> float:
    """Return the median time of `rounds` commits."""
    arguments = [(kind, port, number) for number in range(_PROCESSES)]
    with group(_listen, arguments) as listeners:
        storage = connect(kind, port)
        began_s: dict[bytes, float] = {}
        oid, serial = storage.new_oid(), b"\0" * 8
        for _ in range(rounds):
            time.sleep(_COMMIT_PAUSE_S)
            serial, start_s = committed(storage, oid, serial)
            began_s[serial] = start_s
        time.sleep(_SETTLE_S)
        heard = [told_s for found in listeners.results() for told_s in found]
        storage.close()
    delays: list[float] = sorted(max(told_s[tid] for told_s in heard) - start_s for tid, start_s in began_s.items())
    return delays[len(delays) // 2] * 1e6


def _listen(kind: str, port: int, number: int, ready: Any, stop: Any) -> list[dict[bytes, float]]:
    storages = [connect(kind, port, cache_size=1) for _ in range(CLIENTS // _PROCESSES)]
    ears = [_Ear() for _ in storages]
    for storage, ear in zip(storages, ears, strict=True):
        storage.registerDB(ear)
    ready()
    turn = number * 100
    while not stop.is_set():
        turn += 1
        storages[turn % len(storages)].loadBefore((turn % OBJECTS + 1).to_bytes(8, "big"), LATEST)
        time.sleep(_LOAD_PAUSE_S)
    for storage in storages:
        storage.close()
    return [ear.told_s for ear in ears]
