"""Ends connections on which nothing is said: strangers that do not register, and peers that are gone without a word.

One timer looks at all connections from time to time, so that a message costs no timer of its own.
"""

import asyncio
from collections.abc import Collection
from typing import Protocol

from zeo_server.limits import Limits

__all__ = ["LOOKS", "Quiet", "SilenceWatch"]

LOOKS = 4
"""How often a connection is looked at in the shortest time that it may be silent: it may overstay by a quarter."""

_SHORTEST_PERIOD_S, _LONGEST_PERIOD_S = 0.05, 15.0


class Quiet(Protocol):
    """A connection that can be looked at."""

    def end_if_silent(self, now_s: float, limits: Limits) -> None:
        """End the connection if it has been silent for too long at `now_s`, a time of the loop."""


class SilenceWatch:
    """Looks at `connections` while there are some."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connections: Collection[Quiet], limits: Limits) -> None:
        self._loop = loop
        self._connections = connections
        self._limits = limits
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look from time to time, if that is not done already: there is a new connection."""
        if self._timer is None:
            limits = self._limits
            times_s = [each for each in (limits.registration_timeout_s, limits.idle_timeout_s) if each]
            if times_s:
                period_s = min(max(min(times_s) / LOOKS, _SHORTEST_PERIOD_S), _LONGEST_PERIOD_S)
                self._timer = self._loop.call_later(period_s, self._look)

    def change(self, limits: Limits) -> None:
        """Let other times hold from now on, for all connections."""
        self._limits = limits
        self.close()
        if self._connections:
            self.start()

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now_s = self._loop.time()
        for connection in list(self._connections):
            connection.end_if_silent(now_s, self._limits)
        if self._connections:
            self.start()
