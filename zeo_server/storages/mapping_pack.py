"""Packing what a MappingStorage holds, by the rules by which a Data.fs is packed (file/kept.py, file/packed.py).

The log is divided at the boundary, behind the last transaction that is not later than the pack time. Kept of what
stands before it are the objects' current revisions: with garbage collection of those objects that can be reached from
the root, or from any record behind the boundary, or that have a revision there (lesson B31). What stands behind it is
kept as it is.

The new contents are made beside the old ones, to which commits go on being added. Only `finish` needs them to stand
still: it adds what was committed meanwhile.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NoReturn

from zeo_core.errors import RecordFormatError, StorageError
from zeo_core.ids import ROOT_OID, Oid, Tid, oid_repr
from zeo_core.record import references
from zeo_core.storage import Progress
from zeo_core.transaction import whole
from zeo_server.storages.mapping_contents import Contents, Logged, Saved, tid_of

__all__ = ["MappingPack"]

_STEP_OBJECTS = 1000
_PACKED = b"p"


class MappingPack:
    """One pack of one storage's contents."""

    def __init__(self, name: str, contents: Contents, until: Tid, *, gc: bool) -> None:
        """Pack up to the tid `until`; `name` is the storage's, for errors."""
        self._name = name
        self._contents = contents
        self._gc = gc
        self._boundary = bisect_right(contents.log, until, key=tid_of)
        self._last = contents.log[self._boundary - 1] if self._boundary else None
        self._examined = self._boundary  # how much of the log was looked through for what it refers to
        self._later: set[Oid] = set()  # the objects with revisions behind the boundary
        self._kept: set[Oid] = set()
        self._unread: list[Oid] = []
        self._revisions: dict[Oid, list[Saved]] = {}
        self._byte_size = 0

    @property
    def is_redundant(self) -> bool:
        """Tell whether there is nothing to pack: an earlier pack went as far, or further (lesson B32)."""
        return self._last is None or self._last.transaction.status == _PACKED

    def steps(self) -> Iterator[Progress]:
        """Do all that can be done while commits go on."""
        oids, total = list(self._contents.revisions), self._contents.byte_size
        if self._gc:
            self._add_root()
        else:
            self._kept.update(oids)
        self._examine()
        for done in self._mark():
            yield Progress("mark", min(done, total), total)
        for number, oid in enumerate(oids):
            self._copy(oid)
            if number % _STEP_OBJECTS == 0:
                yield Progress("copy", min(self._byte_size, total), total)

    def finish(self) -> Contents:
        """Return the packed contents; to be called, and they to be put in place, while nothing is published."""
        examined, kept = self._examined, set(self._kept)
        self._examine()
        for _ in self._mark():
            pass
        added = {write.oid for logged in self._contents.log[examined:] for write in logged.transaction.writes}
        for oid in added | (self._kept - kept):
            self._copy(oid)
        log = [*self._packed_log(), *self._contents.log[self._boundary :]]
        return Contents(log, self._revisions, self._byte_size)

    def _add_root(self) -> None:
        if self._current(ROOT_OID) is not None:
            self._keep(ROOT_OID)
        elif any(self._current(oid) is not None for oid in list(self._contents.revisions)):
            self._refuse("there is no root object at the pack time, so that nothing could be reached")

    def _examine(self) -> None:
        """Keep what the transactions behind the boundary need."""
        log = self._contents.log[self._examined :]
        self._examined += len(log)
        for logged in log:
            # First all oids: objects made in one transaction refer to each other.
            self._later.update(write.oid for write in logged.transaction.writes)
            for write in logged.transaction.writes:
                if self._current(write.oid) is not None:
                    self._keep(write.oid)
                data = whole(write.data)
                if self._gc and data is not None:
                    self._follow(write.oid, data)

    def _mark(self) -> Iterator[int]:
        """Follow the references of what is kept, and keep what they lead to; yields the bytes of what was read."""
        done = count = 0
        while self._unread:
            oid = self._unread.pop()
            saved = self._current(oid)
            if saved is None or saved.data is None:
                if oid not in self._later:
                    self._refuse(f"the object {oid_repr(oid)} is deleted, but referred to")
                continue
            done, count = done + saved.size, count + 1
            self._follow(oid, saved.data)
            if count % _STEP_OBJECTS == 0:
                yield done

    def _keep(self, oid: Oid) -> None:
        if oid not in self._kept:
            self._kept.add(oid)
            if self._gc:
                self._unread.append(oid)

    def _follow(self, referrer: Oid, data: bytes) -> None:
        for oid in self._references(referrer, data):
            if self._current(oid) is not None:
                self._keep(oid)
            elif oid not in self._later:
                self._refuse(f"the object {oid_repr(referrer)} refers to {oid_repr(oid)}, which is not there")

    def _references(self, oid: Oid, data: bytes) -> Iterable[Oid]:
        try:
            return references(data)
        except RecordFormatError as error:
            raise RecordFormatError(
                f"{self._name}: the references of the object {oid_repr(oid)} cannot be read: {error}; nothing was "
                "packed. Packing without garbage collection is possible"
            ) from error

    def _refuse(self, reason: str) -> NoReturn:
        raise StorageError(
            f"{self._name}: {reason}; nothing was packed. Packing without garbage collection is possible"
        )

    def _current(self, oid: Oid) -> Saved | None:
        """Return the object's revision that is current at the boundary."""
        revisions = self._contents.revisions.get(oid, [])
        count = self._before_boundary(revisions)
        return revisions[count - 1] if count else None

    def _before_boundary(self, revisions: list[Saved]) -> int:
        return 0 if self._last is None else bisect_right(revisions, self._last.tid, key=tid_of)

    def _copy(self, oid: Oid) -> None:
        """Put what is left of an object's revisions into the new contents."""
        revisions = self._contents.revisions[oid]
        count = self._before_boundary(revisions)
        left = revisions[count:]
        if count and oid in self._kept:
            current = revisions[count - 1]
            # With garbage collection, to be unknown says the same as a deletion. Without it there may be a base below
            # that has the object (demo.py).
            if current.data is not None or not self._gc:
                left.insert(0, current)
        tids = {saved.tid for saved in left}
        left = [saved if saved.data_tid in tids else saved._replace(data_tid=None) for saved in left]
        self._byte_size += sum(saved.size for saved in left) - sum(s.size for s in self._revisions.pop(oid, ()))
        if left:
            self._revisions[oid] = left

    def _packed_log(self) -> Iterator[Logged]:
        """Walk what is left of the log before the boundary.

        The last transaction stays even if nothing of it is kept: it shows up to where the log was packed. And so does
        the first if it never had any objects: it is the mark between a DemoStorage's base and its changes.
        """
        for number, (tid, transaction) in enumerate(self._contents.log[: self._boundary]):
            writes = tuple(write for write in transaction.writes if self._is_left(write.oid, tid))
            is_mark = number == 0 and not transaction.writes
            if writes or is_mark or number == self._boundary - 1:
                yield Logged(tid, replace(transaction, writes=writes, status=_PACKED))

    def _is_left(self, oid: Oid, tid: Tid) -> bool:
        left = self._revisions.get(oid)
        return left is not None and left[0].tid == tid
