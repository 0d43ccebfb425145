"""Connections that are closed and wait to be used again, with the objects in their caches."""

import logging
import weakref

from zeo_client.connection import Connection

__all__ = ["ConnectionPool"]

logger = logging.getLogger(__name__)


class ConnectionPool:
    """Keeps up to `size` closed connections, and knows the open ones. It has no lock: its DB's lock is held around it.

    The one that was closed last is given out first: its cache is the warmest, and the others' grow old together.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._idle: list[Connection] = []
        # Weak: a connection that its user dropped without closing it is not to be kept alive by its pool.
        self._all: weakref.WeakSet[Connection] = weakref.WeakSet()

    def add(self, connection: Connection) -> None:
        """Take note of a new connection that is about to be given out."""
        self._all.add(connection)
        in_use = len(self._all) - len(self._idle)
        if in_use > self.size:
            level = logging.CRITICAL if in_use > 2 * self.size else logging.WARNING
            logger.log(level, "%d connections are open at once, the pool's size is %d", in_use, self.size)

    def take(self) -> Connection | None:
        """Return an idle connection, None if there is none."""
        return self._idle.pop() if self._idle else None

    def put_back(self, connection: Connection) -> list[Connection]:
        """Keep a connection that was closed; return those that there is no room for any more."""
        self._idle.append(connection)
        surplus = self._idle[: max(0, len(self._idle) - self.size)]
        del self._idle[: len(surplus)]
        self._all.difference_update(surplus)
        return surplus

    def everything(self) -> list[Connection]:
        """Return all connections, open and idle."""
        return list(self._all)

    def clear(self) -> list[Connection]:
        """Forget all connections and return them."""
        everything = self.everything()
        self._idle.clear()
        self._all.clear()
        return everything
