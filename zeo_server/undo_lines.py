"""The undo log as clients get it: read in a thread, newest first, so that the usual question is answered soon.

A question for entries of a certain kind may have to read the whole log; it gives up when the server stops.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from zeo_core.errors import StorageClosedError
from zeo_core.storage import ServedStorage, Undoes
from zeo_core.transaction import UndoEntry
from zeo_core.zodb_records import specified, undo_lines

__all__ = ["LINES_MAX", "UndoLines"]

LINES_MAX = 10_000
"""Lines that one call gives: encoding the answer is the loop's work. Those who want more ask again from there on."""


class UndoLines:
    """The undo log of one storage; empty for one that undoes nothing."""

    def __init__(self, storage: ServedStorage) -> None:
        self._storage = storage
        self._closed = False

    def read(self, first: int, last: int, specification: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the lines from number `first` to `last`, a negative one counts; of those that fit `specification`."""
        if not isinstance(self._storage, Undoes):
            return []
        count = min(-last if last < 0 else last - first, LINES_MAX)
        if count <= 0:
            return []
        return undo_lines(self._entries(self._storage), first, first + count, specified(specification))

    def close(self) -> None:
        """Give up what is being read."""
        self._closed = True

    def _entries(self, storage: Undoes) -> Iterator[UndoEntry]:
        for entry in storage.undo_log():
            if self._closed:
                raise StorageClosedError("the server is stopping")
            yield entry
