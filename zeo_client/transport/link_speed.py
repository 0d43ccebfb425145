"""How fast a link brings large messages: what a client goes by when it asks for compression."""

from collections.abc import Callable
from time import perf_counter

__all__ = ["SAMPLE_BYTES", "LinkSpeed"]

SAMPLE_BYTES = 128 * 1024
"""So much has to come for a measurement: less may have waited in the system's buffers."""


class LinkSpeed:
    """The link of one connection; used by the thread that reads from it."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self.bytes_s = 0.0
        """The newest measurement, and half of the one before it; 0 as long as there is none."""
        self._clock = clock
        self._missing = 0
        self._then = 0.0
        self._bytes = 0
        self._seconds = 0.0

    def note(self, missing_bytes: int) -> None:
        """Take note, before each read, of how many bytes the message lacks that has begun to arrive."""
        now = self._clock()
        if missing_bytes < self._missing:
            self._bytes += self._missing - missing_bytes
            self._seconds += now - self._then
            if self._bytes >= SAMPLE_BYTES and self._seconds > 0:
                measured = self._bytes / self._seconds
                self.bytes_s = (self.bytes_s + measured) / 2 if self.bytes_s else measured
                self._bytes, self._seconds = 0, 0.0
        self._missing, self._then = missing_bytes, now
