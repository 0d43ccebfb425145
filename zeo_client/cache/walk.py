"""Who reads rows of the disk cache in the order in which they came, and how many to read at once then.

What a program has loaded, one that is started again loads in about the same order; and rows lie in the order in which
they were loaded first. A statement that reads one row costs as much as reading ten further ones with it. As long as
nobody walks, nothing is read but what is asked for.
"""

from zeo_client.cache.revision_file import Place

__all__ = ["ROWS_MAX", "WALKS_MAX", "Walks"]

ROWS_MAX = 32
"""Rows that are read at once, when a walk has gone on for a while."""

WALKS_MAX = 16
"""Walks that are followed at the same time: one for each of so many threads, or transactions."""


class Walks:
    """Knows where walks would go on. Who uses it sees to it that one thread does."""

    def __init__(self) -> None:
        self._next: dict[Place, int] = {}  # how many rows were read before, by the place of the row that would follow

    def reach(self, place: Place) -> int:
        """Take note that a row was asked for; return how many of those after it to read as well."""
        rows = self._next.pop(place, 0)
        if rows:
            return min(2 * rows, ROWS_MAX)
        self.expect(place + 1, 1)
        return 0

    def expect(self, place: Place, rows: int) -> None:
        """Take note that `rows` rows were read, after which the one at `place` follows."""
        if len(self._next) >= WALKS_MAX:
            del self._next[next(iter(self._next))]  # the oldest
        self._next[place] = rows
