"""Fresh oids, a hundred at a time."""

import threading
from collections.abc import Callable

from zeo_client import replies
from zeo_client.transport.channel import Channel
from zeo_core.ids import Oid

__all__ = ["OIDS_AT_ONCE", "OidStock"]

OIDS_AT_ONCE = 100
"""As many as ZEO's clients ask for."""


class OidStock:
    """What a connection has given and nobody has taken; dropped when the connection changes (lesson B25)."""

    def __init__(self, channel: Callable[[], Channel]) -> None:
        """`channel` waits for a connection, up to a time."""
        self._channel = channel
        self._lock = threading.Lock()
        self._oids: list[Oid] = []
        self._generation: Channel | None = None

    def take(self) -> Oid:
        """Return an oid that nobody else has or will be given; ClientDisconnected."""
        channel = self._channel()
        with self._lock:
            if self._oids and self._generation is channel:
                return self._oids.pop()
        # Without the lock: a server that is slow to answer must not hold up who wants to begin or to abort.
        fresh: list[Oid] = channel.call("new_oids", (OIDS_AT_ONCE,), replies.fresh_oids)
        fresh.reverse()
        with self._lock:
            oid = fresh.pop()
            self._oids = fresh + self._oids if self._generation is channel else fresh
            self._generation = channel
            return oid
