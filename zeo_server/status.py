"""What the server says about itself: counters that the work keeps, and the snapshot that every report renders."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from zeo_core.ids import Tid

__all__ = ["Counters", "StorageStatus", "status_json"]


class Counters:
    """Figures of one storage since the server started. Plain attributes: a load counts itself in 20 ns."""

    __slots__ = ("aborts", "active_txns", "commits", "conflicts", "conflicts_resolved", "loads", "start", "stores")

    def __init__(self) -> None:
        self.loads = 0
        self.stores = 0
        self.commits = 0
        self.aborts = 0
        self.active_txns = 0
        self.conflicts = 0
        self.conflicts_resolved = 0
        self.start = time.ctime()


@dataclass(frozen=True, slots=True)
class StorageStatus:
    """One storage's figures at one moment. `locked_for_s` is how long the oldest granted vote waits to be finished."""

    counters: Mapping[str, int]
    start: str
    connections: int
    waiting: int
    locked_for_s: float | None
    last_tid: Tid
    timeout_enabled: bool

    def as_map(self) -> dict[str, object]:
        """Return the figures under the keys of ZEO's server_status."""
        return {
            **self.counters,
            "start": self.start,
            "connections": self.connections,
            "waiting": self.waiting,
            # a point in time, as in ZEO: monitors subtract it from theirs
            "lock_time": None if self.locked_for_s is None else time.time() - self.locked_for_s,
            "last-transaction": self.last_tid.hex(),
            # ZEO has a thread for this and says "stub" where no timeout is configured; monitors look for the key
            "timeout-thread-is-alive": True if self.timeout_enabled else "stub",
        }

    @classmethod
    def of(
        cls,
        counters: Counters,
        *,
        connections: int,
        waiting: int,
        locked_for_s: float | None,
        last_tid: Tid,
        timeout_enabled: bool,
    ) -> "StorageStatus":
        """Freeze `counters` together with what only the storage's coordinator knows."""
        figures = {name: getattr(counters, name) for name in Counters.__slots__ if name != "start"}
        return cls(figures, counters.start, connections, waiting, locked_for_s, last_tid, timeout_enabled)


def status_json(storages: Mapping[str, StorageStatus]) -> bytes:
    """Return what `ruok` is answered with: a JSON map from storage name to figures."""
    return json.dumps({name: status.as_map() for name, status in storages.items()}).encode("ascii")
