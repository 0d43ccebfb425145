"""The blobs of a backup: one copy of each in the repository, whatever number of backups needs it.

    blobs/                      the files, laid out as in a blob directory: their names never change, nor their bytes
    NAME.full.blobs             the blobs of the records in part NAME.full, one a line: oid, tid, bytes, SHA-256
    NAME.delta.blobs            in hexadecimal; of a blob that was lost already, "lost" in place of the last two

The manifest has the checksum of each list, the lists those of the files. A file is shared with the blob directory where
the file system can share its bytes (a reflink), else it is a second name of the same file (a hard link), else a copy. A
restore never makes hard links, so that nothing that befalls a restored database touches its backup.
"""

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from zeo_core.errors import StorageError
from zeo_core.ids import Oid, Tid, oid_repr, tid_repr
from zeo_core.record import is_blob_record
from zeo_core.storage import Progress
from zeo_server.storages import durable
from zeo_server.storages.blobs import BlobDirectory
from zeo_server.storages.faults import failure
from zeo_server.storages.file.log import Log

__all__ = ["BlobList", "SavedBlob", "SavedBlobs", "blob_records"]

_BLOCK_BYTES = 1 << 20
_FICLONE = 0x40049409  # linux/fs.h
_NO_CLONE = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EBADF, errno.ETXTBSY}
_NO_LINK = {errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}
_LOST = "lost"


@dataclass(frozen=True, slots=True)
class BlobList:
    """What the manifest says of the blobs of a part: the list's name and checksum, and what it comes to."""

    name: str
    sha256: str
    count: int
    bytes: int
    lost: int
    layout: str


class SavedBlob(NamedTuple):
    """A line of a list; `sha256` is "" for a blob that was lost when the backup was made."""

    oid: Oid
    tid: Tid
    size: int
    sha256: str

    def line(self) -> str:
        """Return the line."""
        what = f"{self.size} {self.sha256}" if self.sha256 else _LOST
        return f"{self.oid.hex()} {self.tid.hex()} {what}\n"


def blob_records(log: Log, start: Tid | None) -> Iterator[tuple[Oid, Tid]]:
    """Walk the records of blobs in a log from `start` on."""
    for transaction in log.transactions(start, None):
        for record in transaction.records:
            if is_blob_record(record.data):
                yield record.oid, record.tid


class SavedBlobs:
    """The blobs in the repository at `path`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._directory = os.path.join(path, "blobs")

    def save(
        self, source: BlobDirectory, records: Iterator[tuple[Oid, Tid]], name: str
    ) -> Generator[Progress, None, BlobList]:
        """Save the blobs of `records`, and the list `name` of them; all is on disk when this ends."""
        count = size = lost = 0
        path, digest = os.path.join(self._path, name), hashlib.sha256()
        lines: list[bytes] = []
        try:
            made = BlobDirectory(self._directory, layout="bushy")
            for oid, tid in records:
                saved = _save(source.path_of(oid, tid), made, oid, tid)
                lines.append(saved.line().encode())
                digest.update(lines[-1])
                count, size, lost = count + 1, size + saved.size, lost + (not saved.sha256)
                yield Progress("saving blobs", size, size)
            durable.write_file(path, lines, path + ".part")
        except OSError as error:
            raise failure(error.filename or path, error) from error
        return BlobList(name, digest.hexdigest(), count, size, lost, source.layout_name)

    def restore(self, listed: BlobList, target: BlobDirectory, last_tid: Tid) -> Iterator[Progress]:
        """Bring the blobs of a list, up to those of `last_tid`, to a blob directory; each is verified and on disk."""
        done = 0
        for saved in self.listed(listed):
            if saved.tid <= last_tid and saved.sha256:
                path = target.path_of(saved.oid, saved.tid)
                try:
                    _make_directories(os.path.dirname(path))
                    _clone_or_copy(self._file(saved), path)
                    self._check(saved, path)
                    _finish(path)
                except OSError as error:
                    raise failure(error.filename or path, error) from error
            done += saved.size
            yield Progress("restoring blobs", done, listed.bytes)

    def verify(self, listed: BlobList) -> Iterator[Progress | str]:
        """Read the blobs of a list, and yield a line for each that is not what was saved."""
        done = 0
        try:
            for saved in self.listed(listed):
                if saved.sha256:
                    try:
                        self._check(saved, self._file(saved))
                    except (OSError, StorageError) as error:
                        yield str(error)
                done += saved.size
                yield Progress("verifying blobs", done, listed.bytes)
        except StorageError as error:
            yield str(error)

    def listed(self, listed: BlobList) -> list[SavedBlob]:
        """Return the lines of a list; StorageError if it is not what was saved."""
        path = os.path.join(self._path, listed.name)
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError as error:
            raise failure(path, error) from error
        if hashlib.sha256(content).hexdigest() != listed.sha256:
            raise StorageError(f"{path}: damaged: its bytes are not those that were saved (SHA-256)")
        return [_parsed(line.split()) for line in content.decode().splitlines()]

    def _file(self, saved: SavedBlob) -> str:
        return BlobDirectory(self._directory, read_only=True).path_of(saved.oid, saved.tid)

    def _check(self, saved: SavedBlob, path: str) -> None:
        if (os.path.getsize(path), _digest(path)) != (saved.size, saved.sha256):
            blob = f"the blob of oid {oid_repr(saved.oid)}, tid {tid_repr(saved.tid)}"
            raise StorageError(f"{self._file(saved)}: damaged: {blob} is not what was saved (SHA-256)")


def _parsed(words: list[str]) -> SavedBlob:
    oid, tid = bytes.fromhex(words[0]), bytes.fromhex(words[1])
    return SavedBlob(oid, tid, 0, "") if words[2] == _LOST else SavedBlob(oid, tid, int(words[2]), words[3])


def _save(source: str, made: BlobDirectory, oid: Oid, tid: Tid) -> SavedBlob:
    """Bring one blob to the repository, unless it is there already and the same."""
    path = made.path_of(oid, tid)
    try:
        digest = _digest(source)
    except FileNotFoundError:
        return SavedBlob(oid, tid, 0, "")
    if not os.path.exists(path) or not (os.path.samefile(source, path) or _digest(path) == digest):
        _make_directories(os.path.dirname(path))
        temporary = os.path.join(made.temp_dir, os.path.basename(path))
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        if not _clone(source, temporary) and not _link(source, temporary):
            shutil.copyfile(source, temporary)
        if _digest(temporary) != digest:
            raise StorageError(f"{source}: changed while it was saved")
        os.replace(temporary, path)
    _finish(path)
    return SavedBlob(oid, tid, os.path.getsize(path), digest)


def _make_directories(path: str) -> None:
    """Make a directory and what is missing above it; their names are on disk when this returns."""
    if not os.path.isdir(path):
        _make_directories(os.path.dirname(path))
        os.mkdir(path)
        durable.sync_directory(path)


def _clone_or_copy(source: str, target: str) -> None:
    if not _clone(source, target):
        shutil.copyfile(source, target)


def _clone(source: str, target: str) -> bool:
    """Make a file that shares the bytes of another one, where the file system can."""
    with open(source, "rb") as theirs, open(target, "xb") as file:
        try:
            fcntl.ioctl(file.fileno(), _FICLONE, theirs.fileno())
        except OSError as error:
            if error.errno not in _NO_CLONE:
                raise
            cloned = False
        else:
            cloned = True
    if not cloned:
        os.unlink(target)
    return cloned


def _link(source: str, target: str) -> bool:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True


def _finish(path: str) -> None:
    """Make a file read-only, and bring it and the names that lead to it to disk."""
    mode = os.stat(path).st_mode & 0o777
    if mode & 0o222:
        os.chmod(path, mode & ~0o222)
    fd = os.open(path, os.O_RDONLY)
    try:
        durable.sync_file(fd)
    finally:
        os.close(fd)
    durable.sync_directory(path)


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
