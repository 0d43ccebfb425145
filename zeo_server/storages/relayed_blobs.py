"""A storage of another server, served on with its blobs: they are cached here in a directory, and passed on from there.

A class of its own, so that what it can do is read off its class, as for all storages.
"""

import contextlib
import os
import tempfile

from zeo_core.errors import StorageError
from zeo_core.ids import Oid, Tid
from zeo_core.storage import BlobStage
from zeo_core.transaction import ObjectWrite, whole
from zeo_core.upstream import RemoteBlobStorage, RemoteStorage, UpstreamTransaction
from zeo_server.storages.relayed import RelayedStorage

__all__ = ["RelayedBlobStorage", "RelayedStage"]


class RelayedStage:
    """The blobs of one transaction, until the other server has them."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._paths: list[str] = []

    def take(self, source: str) -> str:
        """Take over the file at `source`; return its new path."""
        file, path = tempfile.mkstemp(prefix="relayed-", dir=self._directory)
        os.close(file)
        try:
            os.replace(source, path)
        except OSError as error:
            os.unlink(path)
            raise StorageError(f"{source}: {error.strerror or error}") from error
        self._paths.append(path)
        return path

    def sync(self) -> None:
        """Do nothing: it is the other server that brings them to disk, before its vote."""

    def discard(self) -> None:
        """Remove what is left of the files."""
        for path in self._paths:
            with contextlib.suppress(OSError):
                os.unlink(path)
        self._paths.clear()


class RelayedBlobStorage(RelayedStorage):
    """What zeod serves where the data, and the blobs, are another server's."""

    def __init__(self, source: RemoteStorage, *, read_only: bool = False) -> None:
        super().__init__(source, read_only=read_only)
        if not isinstance(source, RemoteBlobStorage):
            raise StorageError(f"{source.name()} has no directory for blobs")
        self._files: RemoteBlobStorage = source

    def stage_blobs(self) -> BlobStage:
        """Return the staging for the blobs of one transaction."""
        return RelayedStage(self.temporaryDirectory())

    def stage(self, write: ObjectWrite, key: UpstreamTransaction, *, restored: bool) -> None:
        """Stage an object on the other server, with its blob if it has one."""
        oid, serial, _, data_tid, blob = write
        data = whole(write.data)
        if blob is None or data is None:
            super().stage(write, key, restored=restored)
        elif restored:
            self._files.restoreBlob(oid, serial, data, blob, data_tid, key)
        else:
            self._files.storeBlob(oid, serial, data, blob, "", key)

    def loadBlob(self, oid: Oid, serial: Tid) -> str:  # noqa: N802 - ZODB's name
        """Return the path of a committed blob, fetched if it is not here; POSKeyError if there is none."""
        return self._files.loadBlob(oid, serial)

    def temporaryDirectory(self) -> str:  # noqa: N802 - ZODB's name
        """Return the directory for files that are to become blobs."""
        return self._files.temporaryDirectory()
