"""What a server holds, in plain lists, for tests of caches."""

from zeo_core.ids import Oid, Tid, pack_id, unpack_id
from zeo_core.transaction import Revision

__all__ = ["OIDS", "History"]

OIDS = [pack_id(number) for number in range(1, 6)]


class History:
    """Every revision of every object."""

    def __init__(self) -> None:
        self.last = 40
        self._newest = 40  # tids are of time: those of a state that was lost do not come again
        self.branch = ""
        self.revisions: dict[Oid, list[tuple[Tid, bytes]]] = {}
        self.log: list[tuple[Tid, frozenset[Oid]]] = [(pack_id(40), frozenset())]

    def commit(self, oids: set[Oid], size: int) -> Tid:
        self.last = self._newest = self._newest + 2  # so that there are tids between
        tid = pack_id(self.last)
        for oid in oids:
            data = f"{oid[-1]}@{self.last}{self.branch}".encode().ljust(size)
            self.revisions.setdefault(oid, []).append((tid, data))
        self.log.append((tid, frozenset(oids)))
        return tid

    def load_before(self, oid: Oid, before: Tid) -> Revision | None:
        end = None
        for tid, data in reversed(self.revisions.get(oid, [])):
            if tid < before:
                return Revision(data, tid, end)
            end = tid
        return None

    def load_as_of(self, oid: Oid, before: Tid, heard: Tid) -> Revision | None:
        """Answer as the server does to one who has heard of everything up to `heard`, and of nothing later."""
        revision = self.load_before(oid, before)
        if revision is not None and revision.end_tid is not None and revision.end_tid > heard:
            return revision._replace(end_tid=None)
        return revision

    def changes_since(self, tid: Tid) -> tuple[Tid, list[Oid]] | None:
        """Answer getInvalidations: only to who knows a transaction of this very history (lesson B12)."""
        tids = [each for each, _ in self.log]
        if tid not in tids:
            return None
        later = self.log[tids.index(tid) + 1 :]
        return pack_id(self.last), list(set().union(*(oids for _, oids in later)))

    def restore_backup(self, keep: Tid) -> None:
        """Go back to an earlier state, and on from there with other transactions."""
        self.branch += "'"
        self.last = unpack_id(keep)
        self.log = [entry for entry in self.log if entry[0] <= keep]
        for oid in self.revisions:
            self.revisions[oid] = [entry for entry in self.revisions[oid] if entry[0] <= keep]
