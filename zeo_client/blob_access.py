"""How a connection's blobs reach their files: those of the storage, and those that savepoints hold meanwhile."""

import tempfile
from collections.abc import Callable
from typing import IO, Any

from zeo_client.blob_file import BlobFile
from zeo_core.errors import Unsupported
from zeo_core.ids import ZERO_TID, Oid, Tid
from zeo_core.storage import TransactsBlobs

__all__ = ["BlobAccess"]


class BlobAccess:
    """The blob files of one connection, as its transaction sees them.

    `held` returns the path of the file that a savepoint has of the object with an oid, None if none has. Of a storage
    without blobs nothing is asked before a blob is to be stored or read; Unsupported then.
    """

    def __init__(self, storage: object, held: Callable[[Oid], str | None]) -> None:
        self._storage = storage
        self._held = held

    def temporary_directory(self) -> str:
        """Return where files that are to become blobs are best made: there a commit need not copy them."""
        storage = self._storage
        return storage.temporaryDirectory() if isinstance(storage, TransactsBlobs) else tempfile.gettempdir()

    def storage(self, what: str) -> TransactsBlobs:
        """Return the storage, which is to do `what`; Unsupported if it keeps no blobs."""
        if not isinstance(self._storage, TransactsBlobs):
            name = getattr(self._storage, "name", lambda: "this storage")()
            raise Unsupported(f"{what} Blobs in {name} is not supported; open it with a directory for blobs (blob_dir)")
        return self._storage

    def exists(self, blob: Any) -> bool:
        """Tell whether the blob has a file, committed or of a savepoint."""
        return blob._p_oid is not None and (blob._p_serial != ZERO_TID or self._held(blob._p_oid) is not None)

    def is_committed(self, blob: Any) -> bool:
        """Tell whether the blob has a file, and a committed one."""
        return self.exists(blob) and self._held(blob._p_oid) is None

    def path(self, blob: Any) -> str:
        """Return the path of the committed file; POSKeyError if the storage has lost it."""
        return self.storage("Reading").loadBlob(blob._p_oid, blob._p_serial)

    def open(self, blob: Any, *, counted: bool = False) -> IO[bytes]:
        """Open the blob's file for reading; if `counted`, the blob is told when it is closed. Raises as `path` does."""
        if not counted:
            return self.open_revision(blob._p_oid, blob._p_serial)
        held = self._held(blob._p_oid)
        if held is not None:
            return BlobFile(held, "r", blob)
        return self.storage("Reading").openCommittedBlobFile(blob._p_oid, blob._p_serial, blob)

    def open_revision(self, oid: Oid, serial: Tid) -> IO[bytes]:
        """Open the file of the blob `oid` as of `serial`, or the one that a savepoint has."""
        held = self._held(oid)
        if held is not None:
            return open(held, "rb")
        return self.storage("Reading").openCommittedBlobFile(oid, serial)
