"""FileStorage with a blob directory: what `FileStorage(path, blob_dir=...)` makes.

A class of its own, so that ZODB, and whoever asks for the contract's HasBlobs, sees from the class whether a storage
has blobs. In which order records and files come to disk is told in `zeo_server.storages.blobs`.
"""

import filecmp
import logging
import os
from collections.abc import Generator, Sequence
from typing import IO, Any

from zeo_core.errors import FileFormatError, StorageError, UndoError
from zeo_core.ids import Oid, Tid
from zeo_core.record import is_blob_record
from zeo_core.storage import Progress
from zeo_core.transaction import ObjectWrite, PreparedTransaction, whole
from zeo_core.zodb_records import open_blob_of
from zeo_server.storages.blobs import BlobDirectory, BlobStaging, StagedBlob
from zeo_server.storages.file.format import TRANSACTION_HEADER_SIZE
from zeo_server.storages.file.log import Window, parse_header
from zeo_server.storages.file.reader import Reader
from zeo_server.storages.file.recover import record_positions
from zeo_server.storages.file.storage import FileStorage

__all__ = ["BlobFileStorage", "records_from"]

logger = logging.getLogger(__name__)


def records_from(reader: Reader, position: int) -> list[tuple[Oid, Tid]]:
    """Return the records of the whole transactions from `position` on, finished or not, up to where they are torn."""
    size = os.fstat(reader.descriptor.fd).st_size
    window = Window(reader.descriptor, size)
    found: list[tuple[Oid, Tid]] = []
    while True:
        head = window.bytes_at(position, TRANSACTION_HEADER_SIZE)
        if len(head) < TRANSACTION_HEADER_SIZE:
            return found
        header = parse_header(head, position)
        if header.records_start > header.records_end or header.end > size:
            return found
        try:
            entries = record_positions(reader.path, window, header)
        except FileFormatError:
            return found
        found += [(prefix + suffix, header.tid) for prefix, suffixes in entries.items() for suffix in suffixes]
        position = header.end


class BlobFileStorage(FileStorage):
    """A FileStorage whose objects may have blobs, under the names that ZODB's IBlobStorage gives to what it does."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        blob_dir: str | os.PathLike[str] | None,
        create: bool = False,
        read_only: bool = False,
        **options: Any,
    ) -> None:
        """Open the file at `path` with the directory `blob_dir`, which is made if it is missing, unless `read_only`.

        A file that is missing while its blobs are there is refused like one whose index is there.
        """
        if blob_dir is None:
            raise StorageError(f"{os.fspath(path)}: no directory for its blobs")
        self.blob_dir = os.path.abspath(blob_dir)
        present = BlobDirectory(blob_dir, read_only=True)
        if not (create or read_only or os.path.exists(path)) and next(present.files(), None) is not None:
            raise StorageError(f"{os.fspath(path)}: is missing, yet there are blobs in {self.blob_dir}")
        self.fshelper = present
        self._staging: BlobStaging | None = None
        super().__init__(path, create=create, read_only=read_only, **options)
        if not read_only:
            # Only now is the file locked, so that nobody else uses what will be cleaned away.
            try:
                self.fshelper = BlobDirectory(blob_dir)
            except BaseException:
                self.close()
                raise

    def stage_blobs(self) -> BlobStaging:
        """Return the staging for the blobs of one transaction; see the contract."""
        self.check_not_read_only()
        return self.fshelper.stage()

    def temporaryDirectory(self) -> str:  # noqa: N802 - this and the following are ZODB's names
        """Return the directory for files that are to become blobs: to take one over from there is to rename it."""
        return self.fshelper.temp_dir

    def loadBlob(self, oid: Oid, serial: Tid) -> str:  # noqa: N802
        """Return the path of a committed blob; POSKeyError if there is none."""
        return self.fshelper.load(oid, serial)

    def openCommittedBlobFile(self, oid: Oid, serial: Tid, blob: Any = None) -> IO[bytes]:  # noqa: N802
        """Open a committed blob for reading; given its ZODB.blob.Blob, so that this one knows of the open file."""
        return self.fshelper.open_committed(oid, serial, blob)

    def storeBlob(  # noqa: N802
        self, oid: Oid, oldserial: Tid | None, data: bytes, blobfilename: str, version: str, transaction: Any
    ) -> None:
        """Add an object and its blob, the file `blobfilename`, which is taken over; ConflictError as with `store`."""
        self.store(oid, oldserial, data, version, transaction)
        self._stage(oid, blobfilename, transaction)

    def restoreBlob(  # noqa: N802
        self, oid: Oid, serial: Tid, data: bytes, blobfilename: str, prev_txn: Tid | None, transaction: Any
    ) -> None:
        """Add an object of another storage's transaction, as `restore` does, and its blob, as `storeBlob` does."""
        self.restore(oid, serial, data, "", prev_txn, transaction)
        self._stage(oid, blobfilename, transaction)

    def restore_record(self, record: Any, source: Any, transaction: Any) -> None:
        """Restore a record of another storage with a copy of its blob, if that one has blobs and it is one."""
        super().restore_record(record, source, transaction)
        blob = open_blob_of(source, record.oid, record.tid) if self._is_blob(record.data) else None
        if blob is not None:
            with blob:
                self._replace(record.oid, self._staged().copy(blob), transaction)

    def tpc_vote(self, transaction: Any) -> Sequence[Oid]:
        """Vote; the contents of the transaction's blobs are on disk when this returns."""
        writes = self.pending_writes(transaction)
        for write in list(writes.values()):
            if write.data_tid is not None and write.blob is None and self._is_blob(whole(write.data)):
                # What an undo repeats is held from now on: a pack may remove the earlier revision's file.
                repeated = self.fshelper.path_of(write.oid, write.data_tid)
                if os.path.exists(repeated):
                    self._replace(write.oid, self._staged().repeat(repeated), transaction)
        if self._staging is not None:
            self._staging.sync()
        return super().tpc_vote(transaction)

    def pack_steps(
        self, until_s: float, *, gc: bool | None = None, keep_old: bool | None = None
    ) -> Generator[Progress, None, None]:
        """Pack step by step; after the switch, the files go that belong to no record that was kept (lesson B37).

        The phase `blobs` counts the bytes of the files that were looked at, twice with `keep_old`: then there is a
        directory `.old` of all blobs as they were, beside the blob directory.
        """
        before = self._opened()
        yield from super().pack_steps(until_s, gc=gc, keep_old=keep_old)
        if self._opened() is before:
            return  # there was nothing to pack
        keep_old = self._pack_keep_old if keep_old is None else keep_old
        try:
            for done, total in self.fshelper.remove_unkept(self._has_record, self.last_tid(), keep_old=keep_old):
                yield Progress("blobs", done, total)
        except StorageError as error:
            # The database is packed, whatever becomes of this.
            logger.warning("%s: packed, but not all blobs that nothing needs are removed: %s", self.name(), error)

    def _has_record(self, oid: Oid, tid: Tid) -> bool:
        generation = self._opened()
        position = generation.index.position(oid)
        return bool(position and generation.reader.find(oid, tid, position))

    def _undo_write(self, oid: Oid, tid: Tid, undone: bytes | None, staged: ObjectWrite | None) -> ObjectWrite:
        """Refuse to undo a blob's change if the blob was changed later; all blobs' records are alike."""
        write = super()._undo_write(oid, tid, undone, staged)
        if self._is_blob(undone):
            repeated = write.serial if staged is None else staged.data_tid
            present = staged.blob if staged is not None else None
            if present is None and repeated is not None:
                present = self.fshelper.path_of(oid, repeated)
            if present is not None and os.path.exists(present) and not _same(present, self.fshelper.path_of(oid, tid)):
                raise UndoError("changed by a later transaction")
        return write

    def _is_blob(self, data: bytes | None) -> bool:
        return data is not None and is_blob_record(self._untransform(data))

    def _stage(self, oid: Oid, path: str, transaction: Any) -> None:
        self._replace(oid, self._staged().take(path), transaction)

    def _staged(self) -> BlobStaging:
        if self._staging is None:
            self._staging = self.stage_blobs()
        return self._staging

    def _replace(self, oid: Oid, blob: str, transaction: Any) -> None:
        writes = self.pending_writes(transaction)
        writes[oid] = writes[oid]._replace(blob=blob)

    def _before_cut(self, reader: Reader, position: int) -> None:
        self.fshelper.remove(records_from(reader, position))

    def _place_blobs(self, transactions: Sequence[PreparedTransaction], tids: Sequence[Tid]) -> None:
        staged = [
            StagedBlob(write.blob, write.oid, tid)
            for transaction, tid in zip(transactions, tids, strict=True)
            for write in transaction.writes
            if write.blob is not None
        ]
        if staged:
            self.fshelper.place(staged)

    def _forget(self) -> None:
        staging, self._staging = self._staging, None
        if staging is not None:
            staging.discard()
        super()._forget()


def _same(path: str, other: str) -> bool:
    """Tell whether two blob files have the same contents: links of ours at a glance, ZODB's copies by reading them."""
    try:
        if os.path.samefile(path, other):
            return True
        return filecmp.cmp(path, other, shallow=False)
    except FileNotFoundError:
        return False
