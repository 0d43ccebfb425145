"""DemoStorage with blobs: those of the changes in the changes, those of the base where they are.

A class of its own for the reason for which BlobFileStorage is one: it is the class that says whether there are blobs.
A blob's file never changes, so that each is on the one side of the border or on the other, as its tid says.
"""

import filecmp
import os
import tempfile
from collections.abc import Sequence
from typing import IO, Any

from zeo_core.errors import POSKeyError, StorageError, UndoError
from zeo_core.ids import Oid, Tid
from zeo_core.record import is_blob_record
from zeo_core.storage import HasBlobs, Loads, ServedStorage
from zeo_core.transaction import ObjectWrite, whole
from zeo_core.zodb_records import open_blob_of
from zeo_server.storages.blobs import BlobFile, BlobStaging
from zeo_server.storages.demo import DemoStorage
from zeo_server.storages.file import FileStorage

__all__ = ["BlobDemoStorage"]


class BlobDemoStorage(DemoStorage):
    """A DemoStorage whose changes have blobs; without `changes` they are in a temporary directory while it is open."""

    def __init__(
        self,
        name: str | None = None,
        base: Loads | None = None,
        changes: ServedStorage | None = None,
        close_base_on_close: bool | None = None,
        close_changes_on_close: bool | None = None,
    ) -> None:
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._staging: BlobStaging | None = None
        if changes is None:
            self._directory = tempfile.TemporaryDirectory(prefix="zeod-demo-")
            path = os.path.join(self._directory.name, "changes")
            changes = FileStorage(path + ".fs", blob_dir=path)
        if not isinstance(changes, HasBlobs):
            raise StorageError(f"{changes.name()} cannot take the blobs of a DemoStorage")
        self._blob_changes: HasBlobs = changes
        super().__init__(name, base, changes, close_base_on_close, close_changes_on_close)

    def stage_blobs(self) -> BlobStaging:
        """Return the staging for the blobs of one transaction; see the contract."""
        staging = self._blob_changes.stage_blobs()
        if not isinstance(staging, BlobStaging):
            raise StorageError(f"{self.changes.name()} does not stage its blobs in a directory")
        return staging

    def temporaryDirectory(self) -> str:  # noqa: N802 - this and the following are ZODB's names
        """Return the directory for files that are to become blobs: to take one over from there is to rename it."""
        return self._blob_changes.temporaryDirectory()

    def loadBlob(self, oid: Oid, serial: Tid) -> str:  # noqa: N802
        """Return the path of a committed blob; POSKeyError if there is none."""
        if serial >= self._border:
            return self._blob_changes.loadBlob(oid, serial)
        if not isinstance(self.base, HasBlobs):
            raise POSKeyError(oid)
        return self.base.loadBlob(oid, serial)

    def openCommittedBlobFile(self, oid: Oid, serial: Tid, blob: Any = None) -> IO[bytes]:  # noqa: N802
        """Open a committed blob for reading; given its ZODB.blob.Blob, so that this one knows of the open file."""
        path = self.loadBlob(oid, serial)
        return open(path, "rb") if blob is None else BlobFile(path, blob)

    def storeBlob(  # noqa: N802
        self, oid: Oid, oldserial: Tid | None, data: bytes, blobfilename: str, version: str, transaction: Any
    ) -> None:
        """Add an object and its blob, the file `blobfilename`, which is taken over; ConflictError as with `store`."""
        self.store(oid, oldserial, data, version, transaction)
        self._attach(oid, self._staged().take(blobfilename), transaction)

    def restoreBlob(  # noqa: N802
        self, oid: Oid, serial: Tid, data: bytes, blobfilename: str, prev_txn: Tid | None, transaction: Any
    ) -> None:
        """Add an object of another storage's transaction, as `restore` does, and its blob, as `storeBlob` does."""
        self.restore(oid, serial, data, "", prev_txn, transaction)
        self._attach(oid, self._staged().take(blobfilename), transaction)

    def restore_record(self, record: Any, source: Any, transaction: Any) -> None:
        """Restore a record of another storage with a copy of its blob, if that one has blobs and it is one."""
        super().restore_record(record, source, transaction)
        blob = open_blob_of(source, record.oid, record.tid) if self._is_blob(record.data) else None
        if blob is not None:
            with blob:
                self._attach(record.oid, self._staged().copy(blob), transaction)

    def tpc_vote(self, transaction: Any) -> Sequence[Oid]:
        """Vote; the contents of the transaction's blobs are on disk when this returns."""
        for write in list(self.pending_writes(transaction).values()):
            if write.data_tid is not None and write.blob is None and self._is_blob(whole(write.data)):
                # what an undo repeats may be the base's, and is held from now on in any case
                repeated = self.loadBlob(write.oid, write.data_tid)
                self._attach(write.oid, self._staged().repeat(repeated), transaction)
        if self._staging is not None:
            self._staging.sync()
        return super().tpc_vote(transaction)

    def close(self) -> None:
        """Let go of the changes and the base; blobs in a temporary directory are gone."""
        super().close()
        if self._directory is not None:
            self.changes.close()
            self._directory.cleanup()

    def pop(self) -> Loads:
        """Close the changes, and this storage, and return the base."""
        base = super().pop()
        if self._directory is not None:
            self._directory.cleanup()
        return base

    def _undo_write(self, oid: Oid, tid: Tid, undone: bytes | None, staged: ObjectWrite | None) -> ObjectWrite:
        """Refuse to undo a blob's change if the blob was changed later; all blobs' records are alike."""
        write = super()._undo_write(oid, tid, undone, staged)
        if staged is not None or write.serial == tid or not self._is_blob(undone):
            return write
        if not filecmp.cmp(self.loadBlob(oid, write.serial), self.loadBlob(oid, tid), shallow=False):
            raise UndoError("changed by a later transaction")
        return write

    def _is_blob(self, data: bytes | None) -> bool:
        return data is not None and is_blob_record(self._untransform(data))

    def _staged(self) -> BlobStaging:
        if self._staging is None:
            self._staging = self.stage_blobs()
        return self._staging

    def _attach(self, oid: Oid, blob: str, transaction: Any) -> None:
        writes = self.pending_writes(transaction)
        writes[oid] = writes[oid]._replace(blob=blob)

    def _forget(self) -> None:
        staging, self._staging = self._staging, None
        if staging is not None:
            staging.discard()
        super()._forget()
