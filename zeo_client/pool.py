"""Connections that are closed and wait to be used again, with the objects in their caches."""

import logging
import time
import weakref
from typing import Final, NamedTuple

from zeo_client.connection import Connection
from zeo_core.ids import Tid

__all__ = ["NEVER_S", "ConnectionPool"]

logger = logging.getLogger(__name__)

NEVER_S: Final = 1 << 31
"""A timeout that no connection waits for; ZODB's."""


class _Idle(NamedTuple):
    """A connection in the pool, and since when (time.time())."""

    since: float
    connection: Connection


class ConnectionPool:
    """Keeps up to `size` closed connections for `timeout` seconds, and knows the open ones.

    It has no lock: its DB's lock is held around it. Those that it has no place for any more are returned to the caller,
    who is to release them without that lock.

    The largest cache is given out first, and of equal ones that which was closed last: so the others can grow old.
    """

    def __init__(self, size: int, timeout: float = NEVER_S) -> None:
        self.size = size
        self.timeout = timeout
        self.available: list[_Idle] = []
        # Weak: a connection that its user dropped without closing it is not to be kept alive by its pool.
        self.all: weakref.WeakSet[Connection] = weakref.WeakSet()

    def add(self, connection: Connection) -> None:
        """Take note of a new connection that is about to be given out."""
        self.all.add(connection)
        in_use = len(self.all) - len(self.available)
        if in_use > self.size:
            level = logging.CRITICAL if in_use > 2 * self.size else logging.WARNING
            logger.log(level, "%d connections are open at once, the pool's size is %d", in_use, self.size)

    def take(self, before: Tid | None = None, *, alone: bool = False) -> Connection | None:
        """Return an idle connection to the state before `before`, None if there is none.

        `alone`: one that has no connections to other databases with it.
        """
        for place in reversed(range(len(self.available))):
            connection = self.available[place].connection
            if connection.before == before and not (alone and len(connection.connections) > 1):
                del self.available[place]
                return connection
        return None

    def put_back(self, connection: Connection) -> list[Connection]:
        """Keep a connection that was closed; return those that there is no room for any more."""
        if self.size <= 0:
            self.all.discard(connection)
            return [connection]
        surplus = self._reduce(self.size - 1)
        place = len(self.available)
        while place and self.available[place - 1].connection.cached > connection.cached:
            place -= 1
        self.available.insert(place, _Idle(time.time(), connection))
        return surplus

    def reduce(self) -> list[Connection]:
        """Return the connections that have waited too long or are too many, and forget them."""
        return self._reduce(self.size)

    def _reduce(self, size: int) -> list[Connection]:
        if not self.available or (self.timeout == NEVER_S and len(self.available) <= size):
            return []
        deadline = time.time() - self.timeout
        kept = [idle for idle in self.available if idle.since >= deadline]
        kept = kept[max(0, len(kept) - size) :]
        staying = {id(idle) for idle in kept}
        surplus = [idle.connection for idle in self.available if id(idle) not in staying]
        self.available = kept
        self.all.difference_update(surplus)
        return surplus

    def everything(self) -> list[Connection]:
        """Return all connections, open and idle."""
        return list(self.all)

    def clear(self) -> list[Connection]:
        """Forget all connections and return them."""
        everything = self.everything()
        self.available.clear()
        self.all.clear()
        return everything
