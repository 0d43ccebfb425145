"""An activity monitor: how many objects the connections of a database load and store, over the last hour."""

import threading
import time
from collections import deque
from typing import Any, NamedTuple, Protocol

__all__ = ["ActivityMonitor", "Counted", "Monitor"]


class Counted(Protocol):
    """What a monitor asks of a connection."""

    def getTransferCounts(self, clear: bool = False) -> tuple[int, int]:  # noqa: N802 - ZODB's name
        """Return how many objects were loaded and stored."""


class Monitor(Protocol):
    """What DB.setActivityMonitor takes: ZODB's monitor, one of ours, or another."""

    def closedConnection(self, conn: Any) -> None:  # noqa: N802 - ZODB's name
        """Take note that a connection was closed."""


class _Use(NamedTuple):
    """From an opening of a connection to its close: when it ended, and what it moved."""

    at: float
    loads: int
    stores: int


class ActivityMonitor:
    """Remembers for `history_length` seconds what each connection had loaded and stored when it was closed."""

    def __init__(self, history_length: float = 3600) -> None:
        self._history_s = history_length
        self.log: deque[_Use] = deque()
        self._lock = threading.Lock()

    def closedConnection(self, conn: Counted) -> None:  # noqa: N802 - ZODB's name, as below
        """Take note of what a connection has done; the database calls this when one is closed."""
        loads, stores = conn.getTransferCounts(clear=True)
        with self._lock:
            self.log.append(_Use(time.time(), loads, stores))
            self._forget()

    def setHistoryLength(self, history_length: float) -> None:  # noqa: N802
        """Remember for so many seconds from now on."""
        with self._lock:
            self._history_s = history_length
            self._forget()

    def getHistoryLength(self) -> float:  # noqa: N802
        """Return for how many seconds it remembers."""
        return self._history_s

    def getActivityAnalysis(  # noqa: N802
        self, start: float = 0, end: float = 0, divisions: int = 10
    ) -> list[dict[str, float]]:
        """Return the time from `start` to `end` in equal divisions: start, end, loads, stores, connections of each.

        Times are seconds since 1970; without them it is all that is remembered, until now.
        """
        now = time.time()
        start, end = start or now - self._history_s, end or now
        width = (end - start) / divisions
        result: list[dict[str, float]] = [
            {"start": start + number * width, "end": start + (number + 1) * width, "loads": 0, "stores": 0}
            | {"connections": 0}
            for number in range(divisions)
        ]
        with self._lock:
            uses = [use for use in self.log if start <= use.at <= end]
        for use in uses:
            division = result[min(int((use.at - start) / width) if width else 0, divisions - 1)]
            division["loads"] += use.loads
            division["stores"] += use.stores
            division["connections"] += 1
        return result

    def _forget(self) -> None:
        oldest = time.time() - self._history_s
        while self.log and self.log[0].at < oldest:
            self.log.popleft()
