"""What takes transactions back, worked out in a thread before the vote asks for locks.

From there on an undo is a transaction like any other: what it is based on are the serials of now, and if one of them
changes before the locks are held that is a conflict.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence

from zeo_core.errors import StorageError
from zeo_core.ids import Oid, Tid
from zeo_core.record import is_blob_record
from zeo_core.storage import HasBlobs, Undoes
from zeo_core.transaction import ObjectWrite, whole

__all__ = ["RepeatedBlob", "repeated_blobs", "undo_writes"]


def undo_writes(storage: Undoes, tids: Sequence[Tid], staged: Mapping[Oid, ObjectWrite]) -> dict[Oid, ObjectWrite]:
    """Return what takes transactions back, one after the other, on top of `staged`; UndoError."""
    changed: dict[Oid, ObjectWrite] = {}
    for tid in tids:
        changed.update((write.oid, write) for write in storage.undo_writes(tid, {**staged, **changed}))
    return changed


def repeated_blobs(storage: object, writes: Mapping[Oid, ObjectWrite]) -> dict[Oid, "RepeatedBlob"]:
    """Return where the blobs of objects come from that go back to an earlier revision."""
    if not isinstance(storage, HasBlobs):
        return {}
    return {
        oid: RepeatedBlob(storage, oid, write.data_tid)
        for oid, write in writes.items()
        if write.data_tid is not None and is_blob_record(whole(write.data))
    }


class RepeatedBlob:
    """A blob that is the same as the one of an earlier revision, which a pack may remove: it is copied."""

    def __init__(self, storage: HasBlobs, oid: Oid, tid: Tid) -> None:
        self._storage = storage
        self._oid = oid
        self._tid = tid
        self._path: str | None = None

    def received_bytes(self) -> int:
        """Return that the client sent nothing of it."""
        return 0

    def complete(self) -> str:
        """Return the path of a file with the same contents; StorageError if there is none."""
        source = self._storage.loadBlob(self._oid, self._tid)
        directory = self._storage.temporaryDirectory()
        try:
            file, self._path = tempfile.mkstemp(prefix="undo", dir=directory)
            os.close(file)
            shutil.copyfile(source, self._path)
        except OSError as error:
            self.discard()
            raise StorageError(f"{source}: {error.strerror or error}") from error
        return self._path

    def discard(self) -> None:
        """Remove the file if it is still there."""
        path, self._path = self._path, None
        if path is not None and os.path.exists(path):
            os.unlink(path)
