"""Storages that keep their own log: undoing its transactions, packing it, walking its objects, its end.

Undoing needs nothing of how a storage keeps its revisions. A transaction is taken back object by object. If an object's
present state is still the one that the transaction gave it, the state before is written again, as a repetition of the
record that brought it. If the object was changed since, that change is to be kept: then its class must resolve the
three states, or the transaction cannot be undone. Compared are the data, not who wrote them: a state that was left and
come back to is the state.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from zeo_core.errors import ConflictError, MultipleUndoErrors, POSKeyError, StorageError, UndoError
from zeo_core.ids import MAX_TID, ZERO_TID, Oid, Tid, oid_repr, tid_from_time, tid_repr
from zeo_core.storage import Progress, Undoes
from zeo_core.transaction import ObjectWrite, RecordedTransaction, whole
from zeo_core.zodb_records import specified, tid_from_undo_id, undo_lines
from zeo_server.storages.local import LocalStorage

__all__ = ["LoggedStorage", "pack_tid"]


class _State(NamedTuple):
    """An object's data, None while it does not exist, and a transaction that has them."""

    data: bytes | None
    tid: Tid | None


def pack_tid(name: str, until_s: float) -> Tid:
    """Return the tid up to which the storage `name` is packed; StorageError for a time that no tid can hold."""
    try:
        return tid_from_time(until_s)
    except ValueError as error:
        raise StorageError(f"{name}: no time to pack to: {error}") from None


class LoggedStorage(LocalStorage, Undoes):
    """A storage in this process that keeps a log of its own: the base of MappingStorage and FileStorage."""

    @abstractmethod
    def first_oid(self, start: Oid) -> Oid | None:
        """Return the lowest oid that is not below `start`, also of a deleted object; None if there is none."""

    @abstractmethod
    def start_of_last(self, count: int) -> Tid:
        """Return the tid of the first of the last `count` transactions."""

    @abstractmethod
    def first_revision(self, oid: Oid) -> tuple[Tid, bool]:
        """Return the tid of the oldest revision, and whether a pack may have dropped earlier ones.

        POSKeyError for an unknown oid.
        """

    def undo_writes(self, tid: Tid, staged: Mapping[Oid, ObjectWrite]) -> list[ObjectWrite]:
        """Return what takes transaction `tid` back, on top of `staged`; see the contract."""
        transaction = next(self.transactions(tid, tid), None)
        if transaction is None:
            raise UndoError(f"there is no transaction {tid_repr(tid)}")
        if transaction.status != b" ":
            raise UndoError(f"transaction {tid_repr(tid)} is packed")
        writes: list[ObjectWrite] = []
        failures: list[tuple[Oid, str]] = []
        for oid, undone in _last_data(transaction).items():
            try:
                writes.append(self._undo_write(oid, tid, undone, staged.get(oid)))
            except UndoError as error:
                failures.append((oid, error.reason))
        if failures:
            raise MultipleUndoErrors(failures)
        return writes

    def _undo_write(self, oid: Oid, tid: Tid, undone: bytes | None, staged: ObjectWrite | None) -> ObjectWrite:
        serial = self.current_tid(oid) or ZERO_TID
        present = self._state(oid, MAX_TID) if staged is None else _State(whole(staged.data), staged.data_tid)
        before = self._state(oid, tid)
        if present.data == undone:
            return ObjectWrite(oid, serial, before.data, before.tid)
        if present.data is None or undone is None or before.data is None:
            raise UndoError("created, deleted or changed by a later transaction")
        try:
            merged = self.resolved(oid, (serial, tid), (undone, present.data, before.data))
        except ConflictError:
            raise UndoError("changed by a later transaction") from None
        return ObjectWrite(oid, serial, merged)

    def _state(self, oid: Oid, before: Tid) -> _State:
        try:
            revision = self.load_before(oid, before)
        except POSKeyError:
            return _State(None, None)
        return _State(None, None) if revision is None else _State(revision.data, revision.tid)

    @abstractmethod
    def pack_steps(self, until_s: float, *, gc: bool | None = None) -> Iterator[Progress]:
        """Pack step by step; see zeo_core.storage.Packs."""

    def pack(self, t: float, referencesf: object = None, gc: bool | None = None) -> None:
        """Pack to the time `t` (ZODB's name and arguments); see the contract's pack_steps for what is dropped.

        `referencesf` is not used: the references are read from records of all formats, and no class is imported.
        """
        for _progress in self.pack_steps(t, gc=gc):
            pass

    def undo(self, transaction_id: bytes, transaction: Any) -> tuple[None, list[Oid]]:
        """Stage what takes a transaction back, named as the undo log names it; return a pair, in it the oids changed.

        UndoError if it cannot be undone. The pair's first item, the new tid with ZODB, is not known before tpc_finish.
        """
        pending = self.pending_writes(transaction)
        writes = self.undo_writes(tid_from_undo_id(transaction_id), pending)
        pending.update((write.oid, write) for write in writes)
        return None, [write.oid for write in writes]

    def undoLog(  # noqa: N802 - this and the following are ZODB's names
        self,
        first: int = 0,
        last: int = -20,
        filter: Callable[[dict[str, Any]], object] | None = None,  # noqa: A002 - ZODB's name
    ) -> list[dict[str, Any]]:
        """Return what may be undone, newest first, as dictionaries: id, time, user_name, description, size, extension.

        Those from number `first` up to number `last`; a negative `last` is how many. Only what `filter` wants counts.
        """
        return undo_lines(self.undo_log(), first, last, filter)

    def undoInfo(  # noqa: N802
        self, first: int = 0, last: int = -20, specification: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Return what may be undone, of what has the keys and values of `specification`; see undoLog."""
        return self.undoLog(first, last, specified(specification))

    def lastInvalidations(self, count: int) -> list[tuple[Tid, list[Oid]]]:  # noqa: N802
        """Return (tid, oids) of the last `count` transactions, oldest first."""
        if count <= 0:
            return []
        last = self.transactions(self.start_of_last(count))
        return [(transaction.tid, [record.oid for record in transaction.records]) for transaction in last]

    def record_iternext(self, next: Oid | None = None) -> tuple[Oid, Tid, bytes, Oid | None]:  # noqa: A002 - ZODB's name
        """Return (oid, serial, data, following oid or None) of the first object from oid `next` on.

        ValueError if there is none. Deleted objects are left out.
        """
        found = self._first_from(next or ZERO_TID)
        if found is None:
            raise ValueError(f"no object from oid {oid_repr(next or ZERO_TID)} on")
        oid, data, tid = found
        following = self._first_from(_after(oid))
        return oid, tid, data, following and following[0]

    def _first_from(self, start: Oid | None) -> tuple[Oid, bytes, Tid] | None:
        while start is not None and (oid := self.first_oid(start)) is not None:
            state = self._state(oid, MAX_TID)
            if state.data is not None and state.tid is not None:
                return oid, state.data, state.tid
            start = _after(oid)
        return None


def _after(oid: Oid) -> Oid | None:
    number = int.from_bytes(oid, "big") + 1
    return number.to_bytes(8, "big") if number < 2**64 else None


def _last_data(transaction: RecordedTransaction) -> dict[Oid, bytes | None]:
    """Return what a transaction made of its objects: of two records of one object the last counts (lesson B30)."""
    return {record.oid: record.data for record in transaction.records}
