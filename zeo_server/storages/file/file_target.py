"""A new Data.fs, and a directory for its blobs, as the target of a copy."""

from collections.abc import Iterable
from typing import Any, Self

from zeo_core.errors import StorageError
from zeo_core.ids import Tid, tid_repr
from zeo_core.transaction import RecordedObject
from zeo_core.zodb_records import TransactionIterator
from zeo_server.storages.blobs import BlobDirectory, StagedBlob
from zeo_server.storages.copying import OpenBlob
from zeo_server.storages.file.fresh import FreshFile
from zeo_server.storages.local import restored_metadata_of

__all__ = ["FileTarget"]


class FileTarget:
    """The file that is to be at `path`. A context manager: left without `complete`, what is there can be gone on with.

    Far faster than a FileStorage as a target, since it is brought to disk once, in the end. Blobs are on disk before
    the records that they belong to are written; the directory is made when there is a first one.
    """

    def __init__(self, path: str, blob_dir: str | None) -> None:
        """Begin, or go on with what an earlier copy left; StorageError if the file is there already."""
        self._path = path
        self._blob_dir = blob_dir
        self._blobs: BlobDirectory | None = None
        self._fresh = FreshFile(path, keep=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._fresh.__exit__(*exc)

    def last_tid(self) -> Tid:
        """Return the tid of the last transaction so far."""
        return self._fresh.last_tid()

    def iterator(self) -> Iterable[Any]:
        """Walk the transactions so far."""
        return TransactionIterator(self._fresh.transactions())

    def add(self, transaction: Any, records: list[Any], open_blob: OpenBlob) -> None:
        """Add a transaction."""
        self._place_blobs(records, open_blob, transaction.tid)
        status, metadata = transaction.status, restored_metadata_of(transaction)
        recorded = (RecordedObject(record.oid, record.tid, record.data, record.data_txn) for record in records)
        self._fresh.add(transaction.tid, status.encode() if isinstance(status, str) else status, metadata, recorded)

    def complete(self) -> None:
        """Bring the file to disk and give it its name."""
        self._fresh.complete()

    def _place_blobs(self, records: list[Any], open_blob: OpenBlob, tid: Tid) -> None:
        staging, staged = None, list[StagedBlob]()
        try:
            for record in records:
                blob = open_blob(record)
                if blob is None:
                    continue
                with blob:
                    staging = staging or self._directory(tid).stage()
                    staged.append(StagedBlob(staging.copy(blob), record.oid, tid))
            if staging is not None:
                staging.sync()
                self._directory(tid).place(staged)
        finally:
            if staging is not None:
                staging.discard()

    def _directory(self, tid: Tid) -> BlobDirectory:
        if self._blob_dir is None:
            raise StorageError(f"{self._path}: no directory for blobs, and transaction {tid_repr(tid)} has some")
        if self._blobs is None:
            self._blobs = BlobDirectory(self._blob_dir)
        return self._blobs
