"""ClientStorage with a directory for blobs: what `ClientStorage(addr, blob_dir=...)` makes.

A class of its own, so that a DB, ours or ZODB's, sees from the class whether a storage has blobs.

A blob that is stored goes to the server between tpc_begin and the vote, and into the cache when the transaction is
finished, not before. A blob that is loaded comes out of the cache, or is fetched by one thread of one process, whoever
else wants it waiting for a lock (`zeo_client.blob_cache`).
"""

import contextlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from typing import IO, Any, cast

from zeo_client.blob_cache import BlobCache, hold_open
from zeo_client.blob_file import BlobFile
from zeo_client.blob_transfer import Download, upload
from zeo_client.shared_blobs import SharedBlobs
from zeo_client.staging import Staging
from zeo_client.storage import ClientStorage
from zeo_client.transport.address import AddressLike
from zeo_client.transport.channel import Channel
from zeo_core.errors import RemoteProtocolError, StorageError, Unsupported
from zeo_core.ids import ZERO_TID, Oid, Tid, oid_repr, tid_repr
from zeo_core.record import is_blob_record
from zeo_core.wire.codec import encode_one_way
from zeo_core.wire.methods import RESTORES_BLOBS
from zeo_core.zodb_records import open_blob_of

__all__ = ["BlobClientStorage"]

logger = logging.getLogger(__name__)


class BlobClientStorage(ClientStorage):
    """A ClientStorage whose objects may have blobs, under the names that ZODB's IBlobStorage gives to what it does."""

    def __init__(
        self,
        addr: AddressLike | list[AddressLike],
        storage: str = "1",
        *,
        blob_dir: str | os.PathLike[str] | None,
        shared_blob_dir: bool = False,
        blob_cache_size: int | None = None,
        blob_cache_size_check: int = 10,
        **options: Any,
    ) -> None:
        if blob_dir is None:
            raise StorageError("a ClientStorage with blobs needs a directory for them")
        self.blob_dir = os.path.abspath(blob_dir)
        self.shared_blob_dir = shared_blob_dir
        self._files: BlobCache | SharedBlobs = (
            SharedBlobs(self.blob_dir)
            if shared_blob_dir
            else BlobCache(self.blob_dir, blob_cache_size, blob_cache_size_check)
        )
        self._downloads: dict[tuple[Oid, Tid], Download] = {}
        self._uploading = threading.Lock()  # a chunk does not say whose it is: one blob after the other (lesson B18)
        super().__init__(addr, storage, **options)

    def close(self) -> None:
        """Disconnect for good."""
        super().close()
        self._files.close()

    # -- loading ------------------------------------------------------------------------------------------------------

    def temporaryDirectory(self) -> str:  # noqa: N802 - this and the following are ZODB's names
        """Return the directory for files that are to become blobs: to take one over from there is to rename it."""
        return self._files.temporary

    def loadBlob(self, oid: Oid, serial: Tid) -> str:  # noqa: N802
        """Return the path of a committed blob, fetched if it is not here; POSKeyError if there is none.

        With a cache of limited size the file may be removed some seconds after its last use.
        """
        files = self._files
        if isinstance(files, SharedBlobs):
            return files.load(oid, serial)
        path = files.find(oid, serial)
        if path is None:
            path = files.path_of(oid, serial)
            with files.locked(path):
                self._fetch(files, oid, serial)
        return path

    def openCommittedBlobFile(self, oid: Oid, serial: Tid, blob: Any = None) -> IO[bytes]:  # noqa: N802
        """Open a committed blob for reading; given its ZODB.blob.Blob, so that this one knows of the open file."""
        files = self._files
        path = self.loadBlob(oid, serial)
        if isinstance(files, SharedBlobs):
            return _open(path, blob)
        with contextlib.suppress(FileNotFoundError):
            return _held(_open(path, blob))
        # It was removed in that moment. Under the lock nobody removes it.
        with files.locked(path):
            self._fetch(files, oid, serial)
            return _held(_open(path, blob))

    def _fetch(self, cache: BlobCache, oid: Oid, serial: Tid) -> None:
        """Fetch a blob, under its lock, unless somebody else has done so meanwhile."""
        if cache.find(oid, serial) is not None:
            return
        file, temporary = cache.new_file()
        try:
            with file:
                download = self._downloads[oid, serial] = Download(oid, file)
                self._channel().call("sendBlob", (oid, serial))
                download.check_whole()
                cache.sync(file.fileno())
            cache.keep(temporary, cache.path_of(oid, serial))
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        finally:
            self._downloads.pop((oid, serial), None)

    def _pushed(self, channel: Channel, method: str, args: tuple[Any, ...]) -> None:
        if method not in ("receiveBlobStart", "receiveBlobChunk", "receiveBlobStop"):
            super()._pushed(channel, method, args)
            return
        download = self._downloads.get((args[0], args[1]))
        if download is None:
            raise RemoteProtocolError(
                f"the server sent the blob of {oid_repr(args[0])} as of {tid_repr(args[1])}, which is not awaited"
            )
        if method == "receiveBlobChunk":
            download.add(args[2])
        elif method == "receiveBlobStart":
            download.start()
        else:
            download.stop()

    # -- two-phase commit ---------------------------------------------------------------------------------------------

    def storeBlob(  # noqa: N802
        self, oid: Oid, oldserial: Tid | None, data: bytes, blobfilename: str, version: str, transaction: Any
    ) -> None:
        """Add an object and its blob, the file `blobfilename`, which is taken over; conflicts are told by tpc_vote."""
        self._check_has_blobs()
        self.store(oid, oldserial or ZERO_TID, data, version, transaction)
        self._take(oid, blobfilename, transaction)

    def restoreBlob(  # noqa: N802
        self, oid: Oid, serial: Tid, data: bytes, blobfilename: str, prev_txn: Tid | None, transaction: Any
    ) -> None:
        """Add an object of another storage's transaction, as `restore` does, and its blob, as `storeBlob` does."""
        self._check_restores_blobs()
        self.restore(oid, serial, data, "", prev_txn, transaction)
        self._take(oid, blobfilename, transaction)

    def restore_record(self, record: Any, source: Any, transaction: Any) -> None:
        """Restore a record of another storage with a copy of its blob, if that one has blobs and it is one."""
        blob = open_blob_of(source, record.oid, record.tid) if is_blob_record(record.data) else None
        if blob is None:
            super().restore_record(record, source, transaction)
            return
        with blob:
            self._check_restores_blobs()
            with tempfile.NamedTemporaryFile(dir=self.temporaryDirectory(), delete=False) as file:
                shutil.copyfileobj(blob, file)
        self.restoreBlob(record.oid, record.tid, record.data, file.name, record.data_txn, transaction)

    def _check_has_blobs(self) -> None:
        if ("ZODB.interfaces", "IBlobStorage") not in self._info.get("interfaces", ()):
            raise Unsupported(f"{self.name()} keeps no blobs: its server has no directory for them")

    def _check_restores_blobs(self) -> None:
        self._check_has_blobs()
        if not self._has(RESTORES_BLOBS):
            raise Unsupported(f"{self.name()}: blobs cannot be restored on this server")

    def _take(self, oid: Oid, blobfilename: str, transaction: Any) -> None:
        """Take over the file of an object that has been staged."""
        staging = self._staging(transaction)
        try:
            path = self._files.take(oid, blobfilename)
        except OSError as error:
            raise StorageError(f"{blobfilename}: cannot be taken over: {error}") from error
        replaced = staging.blobs.get(oid)
        staging.blobs[oid] = path
        if replaced is not None:
            os.unlink(replaced)

    def tpc_finish(self, transaction: Any, announce: Callable[[Tid], None] | None = None) -> Tid:
        """Commit, as ClientStorage does; the blobs are in the cache when this returns."""
        staging = self._transactions.staging(transaction)
        try:
            tid = super().tpc_finish(transaction, announce)
        except BaseException:
            if self._transactions.find(transaction) is not staging:  # no abort will come
                self._discard(staging)
            raise
        if isinstance(self._files, BlobCache):
            self._keep(self._files, staging, tid)
        else:
            self._discard(staging)  # what was sent, although the directory is shared
        return tid

    def tpc_abort(self, transaction: Any) -> None:
        """Forget the transaction, here and on the server; its blobs are removed."""
        staging = self._transactions.find(transaction)
        super().tpc_abort(transaction)
        if staging is not None:
            self._discard(staging)

    def send_staged(self, channel: Channel, staging: Staging) -> bytes:
        """Send the blobs, behind the objects; nothing is left for the vote's own write then."""
        burst = super().send_staged(channel, staging)
        if not staging.blobs:
            return burst
        channel.send(burst)
        for oid, path in staging.blobs.items():
            write = staging.write(oid)
            if isinstance(self._files, SharedBlobs) and write is not None and write.method == "storea":
                arguments = (*write.args, os.path.basename(path), staging.txn_id)
                channel.send(encode_one_way("storeBlobShared", arguments))
            else:
                with self._uploading:
                    upload(channel, path, staging.blob_end(oid))
        return b""

    def while_voting(self, staging: Staging) -> None:
        """Bring the blobs to our disk while the server brings them to its own."""
        if isinstance(self._files, BlobCache):
            for path in staging.blobs.values():
                self._files.sync(path)

    def _keep(self, cache: BlobCache, staging: Staging, tid: Tid) -> None:
        """Give the blobs their names in the cache. If that fails, they will be fetched: the commit is done."""
        for oid, path in staging.blobs.items():
            target = cache.path_of(oid, tid)
            try:
                with cache.locked(target):
                    cache.keep(path, target)
            except OSError as error:
                logger.warning("%s: the blob of %s is not cached: %s", self.name(), oid_repr(oid), error)
                self._discard(staging)

    def _discard(self, staging: Staging) -> None:
        for path in staging.blobs.values():
            with contextlib.suppress(FileNotFoundError):  # the server has taken it over
                os.unlink(path)


def _open(path: str, blob: Any) -> IO[bytes]:
    return open(path, "rb") if blob is None else cast(IO[bytes], BlobFile(path, "r", blob))


def _held(file: IO[bytes]) -> IO[bytes]:
    hold_open(file)
    return file
