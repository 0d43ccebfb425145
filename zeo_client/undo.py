"""Undoing: the part of a transaction that takes back earlier ones."""

from binascii import b2a_base64
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from zeo_client.commit import StorageTransaction, claim
from zeo_core.errors import UndoError
from zeo_core.ids import Oid, Tid, is_id

if TYPE_CHECKING:
    from zeo_client.db import DB

__all__ = ["Undo", "UndoSavepoint", "undo_ids"]


def undo_ids(tids: bytes | str | Iterable[bytes | str]) -> list[bytes]:
    """Return as undo ids what names one transaction or several: tids, or ids of an undo log.

    UndoError for what can be neither.
    """
    several = [tids] if isinstance(tids, bytes | str) else list(tids)
    ids = [each.encode("ascii", "replace") if isinstance(each, str) else each for each in several]
    for each in ids:
        if not isinstance(each, bytes):
            raise UndoError(f"{each!r} names no transaction: a tid is wanted, or an id of the undo log")
    return [b2a_base64(each, newline=False) if is_id(each) else each for each in ids]


class Undo:
    """A resource of a transaction: it takes back what earlier transactions of the database did.

    All that one transaction undoes is one resource, and the storage undoes it in the order in which it was asked for.
    """

    @classmethod
    def of(cls, db: "DB", transaction: Any) -> "Undo":
        """Return what undoes for this database in this transaction, joined to it."""
        try:
            undo: Undo = transaction.data(db.hub)
        except KeyError:
            undo = cls(db)
            transaction.set_data(db.hub, undo)
        undo.join(transaction)
        return undo

    def __init__(self, db: "DB") -> None:
        self._db = db
        self._storage: Any = db.storage
        self._ids: list[bytes] = []
        self._key: StorageTransaction | None = None
        self._undone: set[Oid] = set()
        self._joined = False

    def join(self, transaction: Any) -> None:
        """Take part in the transaction, if it does not yet: a rollback to a savepoint may have sent it away."""
        if not self._joined:
            transaction.join(self)
            self._joined = True

    def add(self, ids: Iterable[bytes]) -> None:
        """Undo these too."""
        self._ids.extend(ids)

    def savepoint(self) -> "UndoSavepoint":
        """Remember what is to be undone so far."""
        return UndoSavepoint(self._ids)

    def sortKey(self) -> str:  # noqa: N802 - the names of `transaction`, as all below
        """Return the text that puts the resources of a transaction into the same order everywhere."""
        return f"{self._storage.name()}:{id(self)}"

    def tpc_begin(self, transaction: Any) -> None:
        """Begin; StorageTransactionError if a connection to the same storage has changes in this transaction."""
        claim(transaction, self._storage, self)
        key = StorageTransaction(transaction.user, transaction.description, transaction.extension)
        self._storage.tpc_begin(key)
        self._key = key

    def commit(self, transaction: Any) -> None:
        """Have the storage undo; UndoError if that cannot be."""
        for each in self._ids:
            result = self._storage.undo(each, self._key)
            if result:  # a server tells only at the vote what it changed
                self._undone.update(result[1])

    def tpc_vote(self, transaction: Any) -> None:
        """Ask for the storage's promise; ConflictError, and UndoError where a server undoes only now."""
        self._undone.update(self._storage.tpc_vote(self._key) or ())

    def tpc_finish(self, transaction: Any) -> None:
        """Commit; every connection of the DB is told what to load again."""

        def announce(tid: Tid) -> None:
            self._db.hub.committed(tid, self._undone, None)

        self._storage.tpc_finish(self._key, announce)
        self._forget()

    def abort(self, transaction: Any) -> None:
        """Undo nothing, in whatever phase of the commit: a transaction that fails calls both this and tpc_abort."""
        key = self._key
        self._forget()
        if key is not None:
            self._storage.tpc_abort(key)

    tpc_abort = abort

    def _forget(self) -> None:
        self._ids, self._undone, self._key = [], set(), None
        self._joined = False


class UndoSavepoint:
    """What was to be undone when a savepoint was made."""

    def __init__(self, ids: list[bytes]) -> None:
        self._ids = ids
        self._count = len(ids)

    def rollback(self) -> None:
        """Undo no more than was asked for then."""
        del self._ids[self._count :]
