"""Blobs: persistent objects whose data are a file, for what is too large for a record.

A Blob is in one of three states, and moves between them with its transaction:

    uncommitted   its data are a file of its own, `_p_blob_uncommitted`; it is removed with the Blob, or on an abort
    savepoint     a savepoint has taken the file over (`zeo_client.blob_access`)
    committed     the storage has the file, under the object's oid and serial; it never changes

The record of a Blob holds nothing but the class's name, and that is ZODB's, `ZODB.blob.Blob`: each reads the other's
(`zeo_client.zodb_names`).
"""

import contextlib
import os
import shutil
import tempfile
import weakref
from typing import IO, Any

from persistent import Persistent

from zeo_client.blob_access import BlobAccess
from zeo_client.blob_file import BlobFile
from zeo_core.errors import BlobError
from zeo_core.zodb_interfaces import ZODBInterfaces

__all__ = ["Blob"]

_COPY_BYTES = 1 << 20
_Files = weakref.WeakSet[Any]
_MODES = ("r", "w", "r+", "a", "c")


class Blob(Persistent):
    """A persistent object whose data are a file. `Blob(b"...")` is one with these data; it cannot be subclassed.

    Any number of files may be open for reading, or one for writing. Files that are changed belong to the transaction
    as all changed objects do: nobody else sees them before the commit, and an abort undoes them. A conflict cannot be
    resolved.
    """

    __providedBy__ = ZODBInterfaces()

    _p_changed: bool | None  # as Persistent has it
    _p_blob_uncommitted: str | None = None
    _p_blob_cleanup: Any = None  # removes the uncommitted file when nobody else does
    _p_blob_taken: bool = False  # an uncommitted file was given away, to be stored

    # None until __setstate__, which pickling and copying by others do not call
    readers: _Files | None = None
    writers: _Files | None = None

    def __init__(self, data: bytes | None = None) -> None:
        if type(self) is not Blob:
            raise TypeError("Blob cannot be subclassed; refer to a Blob from an object of your class")
        self.__setstate__()
        if data is not None:
            with self.open("w") as file:
                file.write(data)

    def __setstate__(self, _state: object = None) -> None:
        self.readers, self.writers = weakref.WeakSet(), weakref.WeakSet()

    def __getstate__(self) -> None:
        return None

    def open(self, mode: str = "r") -> IO[bytes]:
        """Return the data as a binary file.

        "r" reads what this transaction sees, "w" writes from the start, "a" adds at the end, "r+" changes in place,
        "c" reads the committed data, outlives the transaction, and hinders no writer. BlobError for "w", "a" and "r+"
        while the Blob is open, for "r" while it is open for writing, for "c" if it has uncommitted changes.
        """
        if mode not in _MODES:
            raise ValueError(f"mode {mode!r}: a blob is opened with one of {', '.join(_MODES)}")
        if mode == "c":
            return self._committed().open(self)
        if mode != "w":
            self._check_not_lost()
        if self.writers:
            raise BlobError("Already opened for writing.")
        if mode == "r":
            return self._open_for_reading()
        if self.readers:
            raise BlobError("Already opened for reading.")
        return self._open_for_writing(mode)

    def committed(self) -> str:
        """Return the path of the file with the committed data, which is not to be changed; BlobError if there is none.

        A storage on a server may remove its copy when it needs the room: open("c") is safe from that.
        """
        return self._committed().path(self)

    def consumeFile(self, filename: str | os.PathLike[str]) -> None:  # noqa: N802 - ZODB's name
        """Take the file `filename` over as the data, without copying it where the file systems allow; it is gone then.

        If that fails, the Blob and the file are as they were.
        """
        if self.writers:
            raise BlobError("Already opened for writing.")
        if self.readers:
            raise BlobError("Already opened for reading.")
        source = os.fspath(filename)
        previous = self._p_blob_uncommitted
        target = previous or self._new_file()
        try:
            _move(source, target)
        except BaseException:
            if previous is None:
                self.discard()
            raise
        self._p_changed = True

    # -- for open files, the cache and commits -------------------------------------------------------------------------

    def opened(self) -> bool:
        """Tell whether a file is open, apart from those opened with "c"."""
        return bool(self.readers or self.writers)

    def closed(self, file: Any) -> None:
        """Take note that `file` is closed."""
        for files in (self.readers, self.writers):
            if files is not None:
                files.discard(file)

    def take_uncommitted(self) -> str | None:
        """Give the uncommitted file away: None if nothing was changed, an empty one if a new Blob was never written."""
        if self._p_blob_uncommitted is None and self._reachable() is not None:
            return None
        self._check_not_lost()
        path = self._p_blob_uncommitted or self._new_file()
        self._p_blob_cleanup.detach()
        self._p_blob_uncommitted = self._p_blob_cleanup = None
        self._p_blob_taken = True
        return path

    def discard(self) -> None:
        """Remove the uncommitted file, if there is one."""
        if self._p_blob_cleanup is not None:
            self._p_blob_cleanup()
        self._p_blob_uncommitted = self._p_blob_cleanup = None

    def _p_deactivate(self) -> None:
        if not self.opened():  # who reads the file needs the object
            super()._p_deactivate()

    def _p_invalidate(self) -> None:
        if self._p_changed is None:
            return
        for file in [*(self.readers or ()), *(self.writers or ())]:
            file.close()
        self.discard()
        super()._p_invalidate()

    def _access(self) -> BlobAccess | None:
        """Return the way to the files of others, None for a Blob that belongs to no connection."""
        access: BlobAccess | None = None if self._p_jar is None else self._p_jar.blobs
        return access

    def _reachable(self) -> BlobAccess | None:
        """Return the way to the Blob's own file, None if it has none but the uncommitted one."""
        access = self._access()
        return access if access is not None and access.exists(self) else None

    def _committed(self) -> BlobAccess:
        access = self._access()
        if access is None or self._p_blob_uncommitted is not None or not access.is_committed(self):
            raise BlobError("Uncommitted changes")
        return access

    def _check_not_lost(self) -> None:
        """Refuse to take an empty file for the data of a new Blob, where a transaction took them and was aborted."""
        if self._p_blob_taken and self._p_blob_uncommitted is None and self._reachable() is None:
            raise BlobError(
                "the data of this blob went with a transaction that was aborted; make a new Blob, or write it anew"
            )

    def _open_for_reading(self) -> IO[bytes]:
        access = None if self._p_blob_uncommitted is not None else self._reachable()
        if access is not None:
            file = access.open(self, counted=True)
        else:
            file = BlobFile(self._p_blob_uncommitted or self._new_file(), "r", self)
        self._open_files()[0].add(file)
        return file

    def _open_for_writing(self, mode: str) -> IO[bytes]:
        path = self._p_blob_uncommitted or self._new_file(copy=mode != "w")
        file = BlobFile(path, mode, self)
        self._open_files()[1].add(file)
        self._p_changed = True
        return file

    def _open_files(self) -> tuple[_Files, _Files]:
        if self.readers is None or self.writers is None:
            self.readers, self.writers = weakref.WeakSet(), weakref.WeakSet()
        return self.readers, self.writers

    def _new_file(self, *, copy: bool = False) -> str:
        """Make the uncommitted file, and fill it with the data so far if there is to be a `copy` of them."""
        access, source = self._access(), self._reachable() if copy else None
        # Opened before anything is made: what cannot be read must not leave an empty file in its place.
        with contextlib.nullcontext() if source is None else source.open(self) as data:
            directory = None if access is None else access.temporary_directory()
            descriptor, path = tempfile.mkstemp(prefix="BUC", dir=directory)
            self._p_blob_uncommitted = path
            self._p_blob_cleanup = weakref.finalize(self, _remove, path, os.getpid())
            try:
                with open(descriptor, "wb") as file:
                    if data is not None:
                        shutil.copyfileobj(data, file, _COPY_BYTES)
            except BaseException:
                self.discard()
                raise
        return path


def _remove(path: str, pid: int) -> None:
    """Remove an uncommitted file, in the process that made it: a fork has a Blob of the same file."""
    if pid == os.getpid():
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _move(source: str, target: str) -> None:
    """Put the file `source` into the place of `target`; if it fails, both are as they were."""
    try:
        os.rename(source, target)
    except OSError:
        # On another file system, most likely; if it is anything else, the copy fails too, and its reason is told.
        copied = target + ".copy"
        try:
            shutil.copyfile(source, copied)
            os.rename(copied, target)
        except BaseException:
            if os.path.exists(copied):
                os.unlink(copied)
            raise
        os.unlink(source)
