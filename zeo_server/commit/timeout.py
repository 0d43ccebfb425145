"""The transaction timeout: how long a client may hold its locks between vote and finish.

All have the same time, so they run out in the order in which they started, and one timer of the loop serves them all:
a vote and a finish cost a dictionary entry each, no timer.
"""

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Timeouts"]

Key = TypeVar("Key", bound=Hashable)


class Timeouts(Generic[Key]):
    """Calls `expired(key)` in the loop when a key has been here for `timeout_s` seconds; 0 means never."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout_s: float, expired: Callable[[Key], None]) -> None:
        self.timeout_s = timeout_s
        self._loop = loop
        self._expired = expired
        self._started_s: dict[Key, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Return for how many the time runs."""
        return len(self._started_s)

    def start(self, key: Key) -> None:
        """Let the time run for `key`."""
        now_s = self._loop.time()
        self._started_s[key] = now_s
        if self._timer is None and self.timeout_s:
            self._timer = self._loop.call_at(now_s + self.timeout_s, self._ring)

    def stop(self, key: Key) -> None:
        """Let it run no more; harmless for a key that is not here."""
        self._started_s.pop(key, None)

    def longest_s(self) -> float | None:
        """Return for how long the oldest key has been here, None if there is none."""
        for started_s in self._started_s.values():
            return self._loop.time() - started_s
        return None

    def change(self, timeout_s: float) -> None:
        """Give everybody that much time from now on, also those whose time runs."""
        self.close()
        self.timeout_s = timeout_s
        if timeout_s:
            self._ring()

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        while self._started_s:
            key, started_s = next(iter(self._started_s.items()))
            ends_s = started_s + self.timeout_s
            if ends_s > self._loop.time():
                self._timer = self._loop.call_at(ends_s, self._ring)
                return
            del self._started_s[key]
            self._expired(key)
