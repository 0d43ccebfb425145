"""The names by which ZODB's own DB calls a storage, as a base class: each is one line over the contract.

A storage of ours that inherits from `ZODBStorage` and keeps the contract (`zeo_core.storage.Transacts`) can be handed
to `ZODB.DB` as it is. The signatures and results are those of ZODB.interfaces.IStorage in ZODB 6.4.
"""

import logging
import sys
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from zeo_core.errors import POSKeyError
from zeo_core.ids import MAX_TID, Oid, Tid, tid_repr
from zeo_core.storage import InvalidationSink, Iterates, Transacts, Undoes
from zeo_core.transaction import Revision
from zeo_core.zodb_interfaces import ZODBInterfaces
from zeo_core.zodb_records import TransactionIterator, history_lines

__all__ = ["ZODBLog", "ZODBStorage"]

logger = logging.getLogger(__name__)


class ZODBStorage(Transacts):
    """The base of our storages: the contract they keep, under ZODB's names."""

    __providedBy__ = ZODBInterfaces()

    def __len__(self) -> int:
        """Return how many objects there are, roughly."""
        return self.object_count()

    def __bool__(self) -> bool:
        """Return True, also for an empty storage, which `len` alone would make false."""
        return True

    def getName(self) -> str:  # noqa: N802 - this and the following are ZODB's names
        """Return the storage's name."""
        return self.name()

    def sortKey(self) -> str:  # noqa: N802
        """Return the text that orders storages in a commit over several databases."""
        return self.name()

    def isReadOnly(self) -> bool:  # noqa: N802
        """Tell whether every write would raise ReadOnlyError."""
        return self.read_only()

    def getSize(self) -> int:  # noqa: N802
        """Return the size in bytes."""
        return self.byte_size()

    def lastTransaction(self) -> Tid:  # noqa: N802
        """Return the last transaction's tid, eight zero bytes if there is none."""
        return self.last_tid()

    def loadBefore(self, oid: Oid, tid: Tid) -> Revision | None:  # noqa: N802
        """Return (data, serial, end tid or None) of the newest revision before `tid`, or None."""
        return self.load_before(oid, tid)

    def load(self, oid: Oid, version: str = "") -> tuple[bytes, Tid]:
        """Return (data, serial) of the current revision; POSKeyError if there is none."""
        revision = self.load_before(oid, MAX_TID)
        if revision is None:
            raise POSKeyError(oid)
        return revision.data, revision.tid

    def loadSerial(self, oid: Oid, serial: Tid) -> bytes:  # noqa: N802
        """Return the data that transaction `serial` wrote."""
        return self.load_serial(oid, serial)

    def getTid(self, oid: Oid) -> Tid:  # noqa: N802
        """Return the serial of the current revision; POSKeyError if there is none."""
        return self.load(oid)[1]

    def history(
        self,
        oid: Oid,
        size: int = 1,
        filter: Callable[[dict[str, Any]], object] | None = None,  # noqa: A002 - ZODB's
    ) -> list[dict[str, Any]]:
        """Return up to `size` dictionaries, newest first, of those that `filter` wants.

        They have time, tid, user_name, description and size, and what the transaction's extension says.
        """
        if filter is None:
            return list(history_lines(self.revisions(oid, size)))
        return [line for line in history_lines(self.revisions(oid, sys.maxsize)) if filter(line)][:size]

    def checkCurrentSerialInTransaction(self, oid: Oid, serial: Tid, transaction: Any) -> None:  # noqa: N802
        """Ask that `serial` is still current when the transaction commits."""
        self.check_current(oid, serial, transaction)

    def registerDB(self, db: InvalidationSink) -> None:  # noqa: N802
        """Name the DB that hears of commits made by others."""
        self.register_sink(db)

    def supportsUndo(self) -> bool:  # noqa: N802
        """Tell whether transactions can be undone."""
        return isinstance(self, Undoes)


class ZODBLog(ZODBStorage, Iterates):
    """The base of our storages whose log can be walked, and into which another storage's can be copied."""

    @abstractmethod
    def tpc_begin(self, transaction: Any, tid: Tid | None = None, status: str | bytes = b" ") -> None:
        """Begin; `tid` and `status` are given to restore a transaction of another storage, see `restore`."""

    @abstractmethod
    def restore(
        self, oid: Oid, serial: Tid, data: bytes | None, version: str, prev_txn: Tid | None, transaction: Any
    ) -> None:
        """Add an object of another storage's transaction as it stands there; conflicts are not looked for.

        Which tid it gets, `tpc_begin` was told. `prev_txn` is the transaction whose data it repeats; that is believed
        only if the data are there (lesson B30). No data: the object does not exist from now on.
        """

    def restore_record(self, record: Any, source: Any, transaction: Any) -> None:
        """Add a record of another storage's iterator, and all of that storage's that belongs to it."""
        self.restore(record.oid, record.tid, record.data, "", record.data_txn, transaction)

    def iterator(self, start: Tid | None = None, stop: Tid | None = None) -> TransactionIterator:
        """Walk the transactions with start <= tid <= stop in ZODB's shape: each can be iterated for its records."""
        return TransactionIterator(self.transactions(start, stop))

    def copyTransactionsFrom(self, other: Any, verbose: int = 0) -> None:  # noqa: N802 - ZODB's name
        """Copy all transactions of another storage, ours or one with ZODB's `iterator`, with their tids.

        StorageError at the first that is not later than all that are here.
        """
        for transaction in other.iterator():
            self.tpc_begin(transaction, transaction.tid, transaction.status)
            try:
                for record in transaction:
                    self.restore_record(record, other, transaction)
                self.tpc_vote(transaction)
                self.tpc_finish(transaction)
            except BaseException:
                self.tpc_abort(transaction)
                raise
            if verbose:
                logger.info("%s: copied %s", self.name(), tid_repr(transaction.tid))
