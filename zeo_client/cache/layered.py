"""Memory over disk: what the memory lacks is looked for in the disk cache, and kept in memory when found there.

A row is read without a lock over both, so that changes may be heard between reading it and keeping it. It is kept only
if it is known to be current as far as the memory's other revisions are; and not at all if the memory was cleared
meanwhile, since then the row may be of a history that the server no longer has.
"""

from collections.abc import Iterable

from zeo_client.cache.disk import AskChanges, DiskCache
from zeo_client.cache.memory import MemoryCache
from zeo_core.ids import Oid, Tid
from zeo_core.transaction import Revision

__all__ = ["LayeredCache"]


class LayeredCache:
    """A memory cache over a disk cache, with a memory cache's methods."""

    def __init__(self, memory: MemoryCache, disk: DiskCache) -> None:
        self._memory = memory
        self._disk = disk
        self.max_bytes = memory.max_bytes
        """What memory holds; the disk's size is in `stats`."""
        self.load_from_memory = memory.load_before
        self.last_tid = memory.last_tid
        self.advance = memory.advance
        self.memory_stats = memory.stats

    def load_before(self, oid: Oid, tid: Tid) -> Revision | None:
        """Return the revision that was current just before `tid`, None if it is nowhere here."""
        revision = self.load_from_memory(oid, tid)
        if revision is not None:
            return revision
        cleared = self._memory.cleared
        reached = self._disk.reach(oid, tid)
        if reached is None:
            return None
        known = reached.known
        self._memory.keep(oid, known.revision, known.until, cleared)
        if reached.rows_ahead:
            for other, further in self._disk.load_ahead(reached, tid):
                self._memory.keep(other, further.revision, further.until, cleared)
        return known.revision

    def load_serial(self, oid: Oid, tid: Tid) -> Revision | None:
        """Return the revision that transaction `tid` wrote, None if it is nowhere here."""
        return self._memory.load_serial(oid, tid) or self._disk.load_serial(oid, tid)

    def store(self, oid: Oid, revision: Revision) -> None:
        """Keep a revision that the server gave, current if its end_tid is None."""
        self._memory.store(oid, revision)
        self._disk.store(oid, revision)

    def invalidate(self, tid: Tid, oids: Iterable[Oid]) -> None:
        """Take note that transaction `tid` replaced the current revisions of `oids`; see MemoryCache."""
        self._disk.invalidate(tid, oids)
        self._memory.invalidate(tid, oids)

    def catch_up(self, server_tid: Tid, ask: AskChanges) -> Tid:
        """Bring both up to the server's last transaction, each from where it is; return how far both are."""
        return min(self._memory.catch_up(server_tid, ask), self._disk.catch_up(server_tid, ask))

    def stats(self) -> dict[str, int]:
        """Return the memory's figures, and the disk's with "disk_" before their names."""
        return self._memory.stats() | {f"disk_{name}": value for name, value in self._disk.stats().items()}

    def close(self) -> None:
        """Write what there is to write, and close the file."""
        self._disk.close()
