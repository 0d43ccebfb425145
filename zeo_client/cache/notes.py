"""What a process has heard and loaded, and has yet to write into the disk cache.

Revisions in here are true as of `heard`: one that is noted as current gets its end when a change of it is heard.
"""

from collections.abc import Iterable, Sequence

from zeo_client.cache.revision_file import Batch
from zeo_core.ids import ZERO_TID, Oid, Tid
from zeo_core.transaction import Revision

__all__ = ["CHANGES_MAX", "NOTES_MAX_BYTES", "ROW_OVERHEAD_BYTES", "USED_MAX", "Notes"]

NOTES_MAX_BYTES = 16 * 1024 * 1024
"""What is loaded while so much waits to be written is not noted: the disk or another process is stuck."""

ROW_OVERHEAD_BYTES = 300

CHANGES_MAX = 50_000
"""How many changed oids may wait to be written. Past that they are dropped, and the file will drop what is current."""

USED_MAX = 20_000
"""How many places are remembered as read between two writes."""


class Notes:
    """All changes after `heard` that come to be heard, and revisions. Who uses it sees to it that one thread does."""

    def __init__(self, heard: Tid) -> None:
        self.heard = heard
        self._since = heard  # the changes in here are all that there were after it
        self._changes: list[tuple[Tid, Sequence[Oid]]] = []
        self._changed: dict[Oid, Tid] = {}  # the last change of each object among them
        self._number = 0
        self._revisions: dict[bytes, Revision] = {}
        self._current: dict[Oid, bytes] = {}  # the keys of those without an end
        self._bytes = 0
        self._used: set[int] = set()

    def change(self, tid: Tid, oids: Iterable[Oid]) -> None:
        """Take note that transaction `tid`, the next after `heard`, changed `oids`."""
        changed = tuple(oids)
        for oid in changed:
            key = self._current.pop(oid, None)
            if key is not None:
                self._revisions[key] = self._revisions[key]._replace(end_tid=tid)
            self._changed[oid] = tid
        self.heard = tid
        self._changes.append((tid, changed))
        self._number += len(changed) + 1
        if self._number > CHANGES_MAX:
            self._changes, self._changed, self._number, self._since = [], {}, 0, tid

    def add(self, oid: Oid, revision: Revision) -> bool:
        """Take note of a revision that is true as of `heard`; false if there is no room."""
        key = oid + revision.tid
        known = self._revisions.get(key)
        if known is not None:
            return True  # with its end, should it have one: that is heard, too
        size = len(revision.data) + ROW_OVERHEAD_BYTES
        if self._bytes + size > NOTES_MAX_BYTES:
            return False
        if revision.end_tid is None:
            self._current[oid] = key
        self._revisions[key] = revision
        self._bytes += size
        return True

    def use(self, place: int) -> None:
        """Take note that a row was read."""
        if len(self._used) < USED_MAX:
            self._used.add(place)

    def true_until(self, oid: Oid, horizon: Tid) -> Tid:
        """Return up to which tid a row without end is known to be true that a file with this horizon has."""
        if self._since <= horizon < self.heard and self._changed.get(oid, ZERO_TID) <= horizon:
            return self.heard
        return horizon

    def take(self) -> Batch | None:
        """Return what there is to write; the changes stay here until they are written. None if there is nothing."""
        if not (self._changes or self._revisions):
            return None
        batch = Batch(self._since, list(self._changes), self.heard, self._revisions, self._used)
        self._revisions, self._current, self._bytes, self._used = {}, {}, 0, set()
        return batch

    def written(self, batch: Batch) -> None:
        """Drop the changes of a batch that has been written."""
        self._since = max(self._since, batch.until)
        self._changes = [change for change in self._changes if change[0] > batch.until]
        self._number = sum(len(oids) + 1 for _, oids in self._changes)
        self._changed = {oid: tid for tid, oids in self._changes for oid in oids}

    def put_back(self, batch: Batch) -> None:
        """Take those revisions of a batch again that have no end, and still none."""
        for key, revision in batch.revisions.items():
            if revision.end_tid is None and self._changed.get(key[:8], ZERO_TID) <= batch.until:
                self.add(key[:8], revision)
