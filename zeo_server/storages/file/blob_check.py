"""Checking that the blobs of a Data.fs are where they belong: each blob's record has its file, each file its record.

Nothing is kept of what was seen: files are looked for when their records come by, and records when the directory is
walked in the end, by the index and the chain of each object's records.
"""

import os
import stat
from collections.abc import Callable, Iterator

from zeo_core.blob_layout import MARKER
from zeo_core.errors import FileFormatError, POSKeyError, StorageError
from zeo_core.ids import Oid, Tid, oid_repr, tid_repr, unpack_id
from zeo_core.record import is_blob_record
from zeo_server.storages.blobs import BlobDirectory
from zeo_server.storages.file.format import DATA_HEADER, DATA_HEADER_SIZE, LENGTH_SIZE
from zeo_server.storages.file.log import TransactionHeader, Window
from zeo_server.storages.file.numbers import Numbers
from zeo_server.storages.file.walk import Walk

__all__ = ["BlobCheck"]

_IN_EVERY_RECORD = b"ZODB.blob"  # what `is_blob_record` looks for first
_WINDOW_BYTES = 1 << 16
_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH

_TellFault = Callable[[int, str, str], None]  # position, what is wrong there, the path of the file if not Data.fs


class BlobCheck:
    """Checks the blob directory at `path`. Feed it transactions and repeated records, then walk `compare_files`.

    `blobs` counts the records of blobs, `files` the files; `unfinished` those of transactions later than the last.
    """

    def __init__(self, path: str, walk: Walk, fault: _TellFault) -> None:
        """Prepare; what is wrong with the directory itself is a fault, and then nothing else is looked at."""
        self.path = path
        self.blobs = 0
        self.files = 0
        self.unfinished = 0
        self._walk = walk
        # For transactions that the walk's window has not whole: the walk goes on where it is.
        self._window = Window(walk.reader.descriptor, walk.size, _WINDOW_BYTES)
        self._fault = fault
        self._directory: BlobDirectory | None = None
        if not os.path.isdir(path):
            fault(0, "there is no such directory for the blobs", path)
            return
        try:
            self._directory = BlobDirectory(path, read_only=True)
        except StorageError as error:
            fault(0, f"the blob directory cannot be used: {error}", path)
        if not os.path.exists(os.path.join(path, MARKER)) and self._directory is not None:
            fault(0, f"there is no {MARKER}, which says how the blobs are laid out: {self.layout} is assumed", path)

    @property
    def layout(self) -> str:
        """The layout's name."""
        return "unknown" if self._directory is None else self._directory.layout_name

    def transaction(self, header: TransactionHeader) -> None:
        """Look for the files of a transaction's records."""
        window = self._walk.window
        start, end = header.records_start - window.start, header.records_end - window.start
        if start >= 0 and end <= len(window.data) and window.data.find(_IN_EVERY_RECORD, start, end) < 0:
            return
        for oid, position, size in self._records(header):
            data = self._window.bytes_at(position + DATA_HEADER_SIZE, size)
            if is_blob_record(data):
                self._look_for(oid, header.tid, position)

    def repeated(self, oid: Oid, position: int) -> None:
        """Look for the file of a record that repeats another one's data."""
        reader = self._walk.reader
        try:
            if is_blob_record(reader.data(oid, position)):
                self._look_for(oid, reader.tid_at(oid, position), position)
        except (POSKeyError, FileFormatError):
            pass  # a deletion; or damage, which the check tells

    def compare_files(self, positions: Numbers, last_tid: Tid) -> Iterator[int]:
        """Look for the records of all files; yield how many are done. `positions` has the objects' last records."""
        if self._directory is None:
            return
        for oid, tid, path in self._directory.files():
            self.files += 1
            if tid > last_tid:
                self.unfinished += 1  # a commit in progress, or one since the check began
            elif not self._has_record(oid, tid, positions.get(unpack_id(oid))):
                self._fault(0, f"no record of oid {oid_repr(oid)}, tid {tid_repr(tid)} that is a blob's", path)
            yield self.files

    def _records(self, header: TransactionHeader) -> Iterator[tuple[Oid, int, int]]:
        """Walk a transaction's records that have data of their own: oid, position and size."""
        position, end = header.records_start, header.records_end
        while position + DATA_HEADER_SIZE < end:
            head = self._window.bytes_at(position, DATA_HEADER_SIZE)
            oid, _, _, transaction, _, size = DATA_HEADER.unpack(head)
            record_end = position + DATA_HEADER_SIZE + (size or LENGTH_SIZE)
            if transaction != header.position or record_end > end:
                return  # that much the check has told
            if size:
                yield oid, position, size
            position = record_end

    def _look_for(self, oid: Oid, tid: Tid, position: int) -> None:
        self.blobs += 1
        if self._directory is None:
            return
        path = self._directory.path_of(oid, tid)
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            self._fault(position, f"the blob of oid {oid_repr(oid)}, tid {tid_repr(tid)} is missing: {path}", "")
            return
        except OSError as error:
            self._fault(0, f"cannot be looked at: {error.strerror}", path)
            return
        if not stat.S_ISREG(mode):
            self._fault(0, "a blob that is no plain file", path)
        elif mode & _WRITABLE:
            self._fault(0, f"a committed blob that can be written to: its permissions are {stat.S_IMODE(mode):o}", path)
        elif not os.access(path, os.R_OK):
            self._fault(0, "a blob that cannot be read", path)

    def _has_record(self, oid: Oid, tid: Tid, position: int) -> bool:
        reader = self._walk.reader
        try:
            found = reader.find(oid, tid, position)
            return bool(found) and is_blob_record(reader.stored_data(oid, found))
        except FileFormatError:
            return True  # that much the check has told
