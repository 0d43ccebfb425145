"""The cache in memory: current revisions and older ones, least recently used ones dropped, measured in bytes.

What it knows holds up to a horizon: a revision that is current there answers for the state before any tid up to the
horizon and not beyond, since what comes later is not known here (lessons, "loadBefore at a tid not yet known"). The
horizon moves as soon as a transaction's invalidations are applied; `last_tid` only with `advance`, when everybody else
has heard of them, too (B4).
"""

import threading
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from zeo_core.ids import ZERO_TID, Oid, Tid, successor
from zeo_core.transaction import Revision

__all__ = ["ENTRY_OVERHEAD_BYTES", "MemoryCache"]

ENTRY_OVERHEAD_BYTES = 300
"""What an entry takes beside its data: the keys, the tuple, two ids and its place in the dictionary (measured)."""


class MemoryCache:
    """Revisions in up to `max_bytes`. Every method is atomic; any thread may call any of them."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        # A current revision under its oid, an older one under oid + tid; the least recently used one first.
        self._revisions: OrderedDict[bytes, Revision] = OrderedDict()
        self._older: dict[Oid, list[Tid]] = {}
        self._bytes = 0
        self._last_tid: Tid = ZERO_TID
        self._heard: Tid = ZERO_TID  # the last change that was applied
        self._horizon: Tid = successor(ZERO_TID)  # follows it
        self._hits = self._misses = 0
        self.cleared = 0
        """How often it was cleared: what was read elsewhere before may not be kept after it, see `keep`."""

    def last_tid(self) -> Tid:
        """Return the tid up to which this cache knows all changes."""
        return self._last_tid

    def advance(self, tid: Tid) -> None:
        """Take note that every change up to `tid` has been applied, and announced to who must hear of it."""
        with self._lock:
            self._last_tid = self._heard = tid
            self._horizon = successor(tid)

    def load_before(self, oid: Oid, tid: Tid) -> Revision | None:
        """Return the revision that was current just before `tid`, None if it is not here."""
        with self._lock:
            revision = self._revisions.get(oid)
            if revision is not None and revision[1] < tid <= self._horizon:
                self._revisions.move_to_end(oid)
                self._hits += 1
                return revision
            revision = self._load_older(oid, tid) if oid in self._older else None
            if revision is None:
                self._misses += 1
            else:
                self._hits += 1
            return revision

    load_from_memory = load_before

    def load_serial(self, oid: Oid, tid: Tid) -> Revision | None:
        """Return the revision that transaction `tid` wrote, None if it is not here."""
        with self._lock:
            revision = self._revisions.get(oid)
            if revision is None or revision.tid != tid:
                revision = self._revisions.get(oid + tid)
            return revision

    def store(self, oid: Oid, revision: Revision) -> None:
        """Keep a revision that the server gave, current if its end_tid is None."""
        if len(revision.data) + ENTRY_OVERHEAD_BYTES > self.max_bytes:
            return  # it would drive out all others, and itself
        with self._lock:
            self._store(oid, revision)

    def keep(self, oid: Oid, revision: Revision, until: Tid, cleared: int) -> None:
        """Keep a revision that was found elsewhere, current up to `until` if its end_tid is None.

        Only if that is as far as all is known here; and if it was looked for after the last clearing of `cleared`.
        """
        if len(revision.data) + ENTRY_OVERHEAD_BYTES > self.max_bytes:
            return
        with self._lock:
            is_known_here = revision.end_tid is not None or self._heard <= until
            if is_known_here and cleared == self.cleared and revision.tid <= self._last_tid:
                self._store(oid, revision)

    def invalidate(self, tid: Tid, oids: Iterable[Oid]) -> None:
        """Take note that transaction `tid` replaced the current revisions of `oids`: they are older ones now.

        `oids` is all that it changed, and every transaction before it has been applied.
        """
        with self._lock:
            if tid > self._heard:
                self._heard, self._horizon = tid, successor(tid)
            for oid in oids:
                revision = self._revisions.get(oid)
                if revision is not None and revision.tid < tid:
                    self._drop_current(oid)
                    self._add_older(oid, revision._replace(end_tid=tid))
            self._evict()

    def forget(self, oids: Iterable[Oid]) -> None:
        """Drop the current revisions of `oids`, of which only is known that they changed at some time (lesson B11)."""
        with self._lock:
            for oid in oids:
                self._drop_current(oid)

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._revisions.clear()
            self._older.clear()
            self._bytes = 0
            self.cleared += 1

    def catch_up(self, server_tid: Tid, ask: Callable[[Tid], tuple[Tid, Sequence[Oid]] | None]) -> Tid:
        """Forget what changed since the last tid, everything if `ask` cannot tell; return the tid that now holds.

        `server_tid` is the server's last transaction. `advance` is to follow.
        """
        known = self._last_tid
        if known == ZERO_TID:
            return server_tid
        answer = ask(known)
        if answer is None:
            self.clear()
            return server_tid
        self.forget(answer[1])
        return answer[0]

    def close(self) -> None:
        """Do nothing: there is nothing to write."""

    def stats(self) -> dict[str, int]:
        """Return hits, misses, bytes, max_bytes and the number of revisions."""
        with self._lock:
            return {
                "hits": self._hits,
                "misses": self._misses,
                "bytes": self._bytes,
                "max_bytes": self.max_bytes,
                "revisions": len(self._revisions),
            }

    memory_stats = stats

    # The rest runs under the lock.

    def _store(self, oid: Oid, revision: Revision) -> None:
        if revision.end_tid is None:
            known = self._revisions.get(oid)
            if known is None or known.tid < revision.tid:
                self._drop_current(oid)
                self._add(oid, revision)
        else:
            self._add_older(oid, revision)
        self._evict()

    def _load_older(self, oid: Oid, tid: Tid) -> Revision | None:
        tids = self._older[oid]
        place = bisect_left(tids, tid)
        if place == 0:
            return None
        key = oid + tids[place - 1]
        revision = self._revisions[key]
        if revision.end_tid is None or tid > revision.end_tid:
            return None
        self._revisions.move_to_end(key)
        return revision

    def _add(self, key: bytes, revision: Revision) -> None:
        self._revisions[key] = revision
        self._bytes += len(revision.data) + ENTRY_OVERHEAD_BYTES

    def _add_older(self, oid: Oid, revision: Revision) -> None:
        key = oid + revision.tid
        if key not in self._revisions:
            insort(self._older.setdefault(oid, []), revision.tid)
            self._add(key, revision)

    def _drop_current(self, oid: Oid) -> None:
        revision = self._revisions.pop(oid, None)
        if revision is not None:
            self._bytes -= len(revision.data) + ENTRY_OVERHEAD_BYTES

    def _evict(self) -> None:
        while self._bytes > self.max_bytes and self._revisions:
            key, revision = self._revisions.popitem(last=False)
            self._bytes -= len(revision.data) + ENTRY_OVERHEAD_BYTES
            if len(key) > 8:
                self._forget_older(key[:8], revision.tid)

    def _forget_older(self, oid: Oid, tid: Tid) -> None:
        tids = self._older[oid]
        tids.remove(tid)
        if not tids:
            del self._older[oid]
