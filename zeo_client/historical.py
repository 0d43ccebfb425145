"""The past: what a historical connection sees, and how a moment is named."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, TypeAlias

from zeo_core.errors import POSKeyError
from zeo_core.ids import Oid, Tid, is_id, successor, tid_from_time
from zeo_core.storage import Loads

__all__ = ["HistoricalView", "Moment", "tid_before"]

Moment: TypeAlias = datetime | Tid | float | Any
"""A tid, a datetime (UTC if it names no zone), seconds since 1970, or a persistent.TimeStamp."""


class HistoricalView:
    """The state before one tid, for as long as it is wanted: nothing that is committed changes it."""

    def __init__(self, storage: Loads, before: Tid) -> None:
        self._storage = storage
        self.start = before
        """The tid before which it loads."""

    def advance(self) -> Collection[Oid] | None:
        """Stay."""
        return ()

    def load(self, oid: Oid) -> tuple[bytes, Tid]:
        """Return the data and the serial that an object had; POSKeyError if there was no such object then."""
        revision = self._storage.load_before(oid, self.start)
        if revision is None:
            raise POSKeyError(oid)
        return revision[0], revision[1]

    def release(self) -> None:
        """Do nothing: nobody tells a view of the past anything."""


def tid_before(at: Moment | None, before: Moment | None) -> Tid | None:
    """Return the tid before which to look, to see the state as of `at`, or before `before`; None for neither.

    ValueError for both, and for what is no moment.
    """
    if at is not None and before is not None:
        raise ValueError("a connection can be opened `at` a moment or `before` one, not both")
    if at is not None:
        return successor(_tid(at))
    return None if before is None else _tid(before)


def _tid(moment: Moment) -> Tid:
    if isinstance(moment, datetime):
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return tid_from_time(aware.timestamp())
    if isinstance(moment, int | float) and not isinstance(moment, bool):
        return tid_from_time(moment)
    tid = moment if isinstance(moment, bytes) else getattr(moment, "raw", bytes)()
    if not is_id(tid):
        raise ValueError(f"{moment!r} is no moment: neither a tid, a datetime nor seconds since 1970")
    return tid
