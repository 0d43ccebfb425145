"""Copying one storage to another, transaction by transaction, under the tids they have.

Source and target are whatever has ZODB's names: `iterator` of the source, `tpc_begin` with a tid, `restore` and, if
there are blobs, `restoreBlob` of the target. A copy that is cut short leaves whole transactions; the last one's tid is
how far it has come (lesson B39). To go on, what is there is compared with the source, transaction by transaction and
byte by byte: only a true beginning of the source is continued.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import IO, Any, Protocol

from zeo_core.errors import StorageError
from zeo_core.ids import ZERO_TID, Tid, tid_repr
from zeo_core.record import is_blob_record
from zeo_core.storage import Progress
from zeo_core.zodb_records import open_blob_of
from zeo_server.storages.local import restored_metadata_of

__all__ = ["Copy", "OpenBlob", "StorageTarget", "Target"]

_COPY_BYTES = 1 << 20
_OVERHEAD_BYTES = 50  # of a record and of a transaction in Data.fs, about: for the progress only

OpenBlob = Callable[[Any], IO[bytes] | None]
"""Opens the blob of a record; None if it has none."""


class Target(Protocol):
    """What a copy is written to."""

    def last_tid(self) -> Tid:
        """Return the tid of the last transaction that is there, ZERO_TID if there is none."""

    def iterator(self) -> Iterable[Any]:
        """Walk the transactions that are there."""

    def add(self, transaction: Any, records: list[Any], open_blob: OpenBlob) -> None:
        """Add a transaction with its records and their blobs."""


class StorageTarget:
    """A storage as a target: each transaction is one of the storage's own, on disk before the next one begins."""

    def __init__(self, storage: Any) -> None:
        """Take a storage with ZODB's names; StorageError if nothing can be restored to it."""
        self._storage = storage
        for name in ("restore", "iterator", "lastTransaction"):
            if not hasattr(storage, name):
                raise StorageError(f"{storage.getName()}: cannot be copied to: it has no {name!r}")

    def last_tid(self) -> Tid:
        """Return the tid of the last transaction."""
        tid: Tid = self._storage.lastTransaction()
        return tid or ZERO_TID

    def iterator(self) -> Iterable[Any]:
        """Walk the transactions."""
        transactions: Iterable[Any] = self._storage.iterator()
        return transactions

    def add(self, transaction: Any, records: list[Any], open_blob: OpenBlob) -> None:
        """Restore a transaction."""
        storage = self._storage
        storage.tpc_begin(transaction, transaction.tid, transaction.status)
        try:
            for record in records:
                with ExitStack() as opened:
                    blob = open_blob(record)
                    if blob is not None:
                        opened.enter_context(blob)
                    self._restore(record, blob, transaction)
            storage.tpc_vote(transaction)
            storage.tpc_finish(transaction)
        except BaseException:
            storage.tpc_abort(transaction)
            raise

    def _restore(self, record: Any, blob: IO[bytes] | None, transaction: Any) -> None:
        storage, arguments = self._storage, (record.oid, record.tid, record.data)
        if blob is None:
            storage.restore(*arguments, "", record.data_txn, transaction)
            return
        if not hasattr(storage, "restoreBlob"):
            raise StorageError(f"{storage.getName()}: has no blobs, and transaction {tid_repr(transaction.tid)} does")
        path = _temporary_copy(blob, storage.temporaryDirectory())
        storage.restoreBlob(*arguments, path, record.data_txn, transaction)


def _temporary_copy(blob: IO[bytes], directory: str) -> str:
    with tempfile.NamedTemporaryFile(dir=directory, suffix=".copy", delete=False) as file:
        shutil.copyfileobj(blob, file, _COPY_BYTES)
    return file.name


class Copy:
    """A copy: run `steps` to its end, then read the counts.

    `compared` counts the transactions that were there already, `transactions` and `records` those copied, `blobs` and
    `lost_blobs` the blobs copied and those that the source does not have; `last_tid` is how far the copy has come.
    """

    def __init__(
        self,
        source: Any,
        target: Target,
        *,
        until: Tid | None = None,
        resume: bool = False,
        dry_run: bool = False,
        blobs: bool = True,
    ) -> None:
        """Prepare a copy of the transactions up to `until`; StorageError if the source cannot be walked.

        `resume` goes on behind what is in the target, which must be empty otherwise. `dry_run` reads everything and
        writes nothing. Without `blobs` only their records are copied.
        """
        if not hasattr(source, "iterator"):
            raise StorageError(f"{source.getName()}: cannot be copied: it has no 'iterator'")
        self._source, self._target = source, target
        self._until = until
        self._dry_run = dry_run
        self._with_blobs = blobs
        self.last_tid = target.last_tid()
        if self.last_tid != ZERO_TID and not resume:
            raise StorageError(f"the target has transactions already, up to {tid_repr(self.last_tid)}; see --resume")
        self.compared = 0
        self.transactions = 0
        self.records = 0
        self.blobs = 0
        self.lost_blobs = 0

    def steps(self) -> Iterator[Progress]:
        """Do it, one transaction a step; StorageError if the target is no beginning of the source."""
        copied_already = self.last_tid
        there = iter(self._target.iterator()) if copied_already != ZERO_TID else iter(())
        done, total = 0, max(int(self._source.getSize()), 1)
        for transaction in self._source.iterator(None, self._until):
            records = list({record.oid: record for record in transaction}.values())  # lesson B30: the last one counts
            if transaction.tid <= copied_already:
                _compare(transaction, records, next(there, None))
                self.compared += 1
            else:
                _expect_none(there)
                self._copy(transaction, records)
            done += _OVERHEAD_BYTES + sum(len(record.data or b"") + _OVERHEAD_BYTES for record in records)
            yield Progress("copying" if self.transactions else "comparing", min(done, total), total)
        _expect_none(there)
        yield Progress("copying", total, total)

    def _copy(self, transaction: Any, records: list[Any]) -> None:
        if self._dry_run:
            for record in records:
                blob = self._open_blob(record)
                if blob is not None:
                    blob.close()
        else:
            self._target.add(transaction, records, self._open_blob)
        self.transactions += 1
        self.records += len(records)
        self.last_tid = transaction.tid

    def _open_blob(self, record: Any) -> IO[bytes] | None:
        if not self._with_blobs or not is_blob_record(record.data):
            return None
        blob = open_blob_of(self._source, record.oid, record.tid)
        if blob is None:
            self.lost_blobs += 1
        else:
            self.blobs += 1
        return blob


def _compare(transaction: Any, records: list[Any], there: Any) -> None:
    """Raise StorageError unless `there`, a target's transaction, is the source's one."""
    if there is None or there.tid != transaction.tid:
        other = "nothing" if there is None else tid_repr(there.tid)
        raise StorageError(f"not resumed: the source has transaction {tid_repr(transaction.tid)}, the target {other}")
    mine = {record.oid: record.data for record in records}
    same = restored_metadata_of(transaction) == restored_metadata_of(there)
    if not same or mine != {record.oid: record.data for record in there}:
        raise StorageError(f"not resumed: transaction {tid_repr(transaction.tid)} is another one in the target")


def _expect_none(there: Iterator[Any]) -> None:
    """Raise StorageError if the target has a transaction that the source does not have."""
    extra = next(there, None)
    if extra is not None:
        raise StorageError(f"not resumed: the target has transaction {tid_repr(extra.tid)}, the source has not")
