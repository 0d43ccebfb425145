"""Blobs: files that belong to objects' revisions, in a directory beside Data.fs.

A committed blob is a read-only file that is named by its object and by the transaction that wrote it (blob_layout.py)
and never changes. The order in which a transaction with blobs comes to disk makes sure that a transaction which counts
as finished has all its blobs:

    store   the file is moved into the transaction's own directory under tmp/, and made read-only
    vote    the files' contents are synced: what can fail for lack of space has failed by now
    finish  the records are written to Data.fs, marked unfinished, and synced
            each file is linked to its place, where its tid is part of its name, and the directories are synced
            the records are marked finished, and synced; only now is the commit acknowledged
            the transaction's directory under tmp/ is removed

What a crash leaves behind, and who removes it:

    before the links        files under tmp/: the next opening removes them, since no transaction outlives its process
    before the mark         files in their places, of records that stand unfinished at the end of Data.fs, whole, since
                            they were synced before: the next opening reads there which files to remove, removes them,
                            and only then cuts the records off
    after the mark          the commit is done; files under tmp/ are second names of what is in its place

A link instead of a rename lets a group of transactions that could not be written be tried again one by one. Where the
file system has no hard links, it is a rename after all.
"""

import errno
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from struct import Struct
from threading import Lock
from typing import IO, Any, NamedTuple, NoReturn

from zeo_core.blob_layout import MARKER, Layout, file_name, tid_of
from zeo_core.errors import POSKeyError, StorageError
from zeo_core.ids import Oid, Tid
from zeo_server.storages import durable
from zeo_server.storages.blob_layout import choose
from zeo_server.storages.faults import failure

__all__ = ["BlobDirectory", "BlobFile", "BlobStaging", "StagedBlob"]

logger = logging.getLogger(__name__)

_STAGING_PREFIX = "staged-"
_ABANDONED_AFTER_S = 24 * 3600  # files under tmp/ of clients that share the directory may be in use for a while
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_COPY_BYTES = 1 << 20
_FOUND = Struct(">8s8sQ")
_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH


class StagedBlob(NamedTuple):
    """A staged file that is to become the blob of `oid` as of `tid`."""

    path: str
    oid: Oid
    tid: Tid


class BlobFile(FileIO):
    """A committed blob, opened for reading, that tells its ZODB.blob.Blob when it is closed."""

    def __init__(self, path: str, blob: Any) -> None:
        """Open the file at `path` for `blob`, which keeps count of its open files."""
        super().__init__(path, "rb")
        self.blob = blob

    def close(self) -> None:
        """Close the file."""
        self.blob.closed(self)
        super().close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("an open blob file cannot be pickled")


class BlobStaging:
    """The blob files of one transaction until it is finished or aborted; StorageError where the disk fails."""

    def __init__(self, temporary: str, read_permissions: int) -> None:
        """Stage under the directory `temporary`; nothing is made there before there is a blob."""
        self._temporary = temporary
        self._read_permissions = read_permissions
        self._directory: str | None = None
        self._count = 0
        self._unsynced: list[str] = []

    def take(self, source: str) -> str:
        """Take over the file at `source`, which is gone afterwards; return its new path, for ObjectWrite.blob."""
        with _reported(source):
            return self._add(source, _move)

    def repeat(self, committed: str) -> str:
        """Take a second name for a committed file, which a pack may remove before this transaction is finished."""
        with _reported(committed):
            return self._add(committed, _link_or_copy)

    def copy(self, source: IO[bytes]) -> str:
        """Copy an open file, from another storage; return the copy's path, for ObjectWrite.blob."""
        with _reported(self._temporary):
            return self._add("", lambda _source, path: _copy_open(source, path))

    def sync(self) -> None:
        """Bring the contents of all files to disk. Their names here need not be: a crash ends the transaction."""
        while self._unsynced:
            path = self._unsynced[-1]
            with _reported(path):
                _sync_contents(path)
            self._unsynced.pop()

    def discard(self) -> None:
        """Remove what is left of the files. What cannot be removed now is left to the next opening."""
        directory, self._directory, self._unsynced = self._directory, None, []
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)

    def _add(self, source: str, bring: Callable[[str, str], None]) -> str:
        if self._directory is None:
            self._directory = tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=self._temporary)
        self._count += 1
        path = os.path.join(self._directory, str(self._count))
        bring(source, path)
        mode = os.lstat(path).st_mode
        if not stat.S_ISREG(mode):
            # Clients that share the directory can put what they like there: a link would lead to another's file.
            os.unlink(path)
            raise StorageError(f"{source}: a blob must be a plain file")
        os.chmod(path, stat.S_IMODE(mode) & ~_WRITABLE | self._read_permissions)
        self._unsynced.append(path)
        return path


class BlobDirectory:
    """A directory of blobs that ZODB can read and write too.

    StorageError if it cannot be used: a layout that is unknown or not the one asked for, or no access.
    """

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False, layout: str | None = None) -> None:
        """Open the directory at `path`; one that is missing is made, unless `read_only`.

        Whoever opens it for writing is the only writer: it removes what others have left behind.
        """
        self.path = os.path.abspath(path)
        self.temp_dir = os.path.join(self.path, "tmp")
        self._lock = Lock()  # files are placed and emptied directories removed one at a time
        with _reported(self.path):
            self.layout: Layout = choose(self.path, layout)
            if not read_only:
                self._make()
                self._clean()

    @property
    def base_dir(self) -> str:
        """The directory, with a slash at its end: ZODB's name for it."""
        return os.path.join(self.path, "")

    @property
    def layout_name(self) -> str:
        """The layout's name."""
        return self.layout.name

    def path_of(self, oid: Oid, tid: Tid) -> str:
        """Return where the blob of `oid` that `tid` wrote is, or would be."""
        return os.path.join(self.getPathForOID(oid), file_name(tid))

    def getPathForOID(self, oid: Oid) -> str:  # noqa: N802 - ZODB's name
        """Return the directory of an object's blobs, which need not exist."""
        return os.path.join(self.path, self.layout.directory(oid))

    def getBlobFilename(self, oid: Oid, tid: Tid) -> str:  # noqa: N802 - ZODB's name
        """Return where the blob of `oid` that `tid` wrote is, or would be."""
        return self.path_of(oid, tid)

    def load(self, oid: Oid, tid: Tid) -> str:
        """Return the path of a committed blob; POSKeyError if there is none."""
        path = self.path_of(oid, tid)
        if not os.path.exists(path):
            raise POSKeyError(oid)
        return path

    def open_committed(self, oid: Oid, tid: Tid, blob: Any = None) -> IO[bytes]:
        """Open a committed blob for reading; given its ZODB.blob.Blob, so that this one knows of the open file."""
        try:
            path = self.path_of(oid, tid)
            return open(path, "rb") if blob is None else BlobFile(path, blob)
        except FileNotFoundError:
            raise POSKeyError(oid) from None

    def stage(self) -> BlobStaging:
        """Return the staging of a new transaction."""
        return BlobStaging(self.temp_dir, os.stat(self.path).st_mode & _READABLE)

    def place(self, staged: Sequence[StagedBlob]) -> None:
        """Give synced files their committed names, on disk when this returns; StorageError, then nothing is changed."""
        placed: list[StagedBlob] = []
        entries: list[str] = []
        with self._lock, _reported(self.path):
            try:
                for blob in staged:
                    target = self.path_of(blob.oid, blob.tid)
                    entries += [*_make_directories(os.path.dirname(target)), target]
                    placed.append(blob)
                    _link_or_rename(blob.path, target)
                _sync_names(entries)
            except BaseException:
                self._take_back(placed)
                raise

    def remove(self, blobs: Iterable[tuple[Oid, Tid]]) -> None:
        """Remove the files of transactions that were not finished, where there are any; gone from disk on return."""
        with self._lock, _reported(self.path):
            for oid, tid in blobs:
                path = self.path_of(oid, tid)
                if os.path.lexists(path):
                    os.unlink(path)
                    durable.sync_directory(path)
                    self._prune(os.path.dirname(path))
                    logger.warning("%s: removed, since its transaction was not finished", path)

    def files(self) -> Iterator[tuple[Oid, Tid, str]]:
        """Walk the committed blobs: oid, tid and path, by oid and then by tid as far as their names sort so."""
        return self._files(self.path, ())

    def remove_unkept(
        self, is_kept: Callable[[Oid, Tid], bool], newest: Tid, *, keep_old: bool = False
    ) -> Iterator[tuple[int, int]]:
        """Remove the blobs up to transaction `newest` whose record a pack did not keep: a walk of (bytes done, total).

        The bytes are those of the files that were looked at, twice if they are kept beside as well.

        To be walked after the pack's switch (lesson B37): cut short, it leaves files that the next pack removes. Blobs
        later than `newest`, the last published tid, may wait for their mark. `keep_old` keeps all that were there
        in a directory beside, `.old` appended to its name, as links: the blobs of Data.fs.old. An earlier one goes
        in either case, as Data.fs.old does.
        """
        old = self.path + ".old"
        with _reported(old):
            if os.path.lexists(old):
                shutil.rmtree(old)
        found = _Found()
        for oid, tid, path in self.files():
            if tid <= newest:
                found.add(oid, tid, path)
        done, total = 0, found.byte_count * (2 if keep_old else 1)
        if keep_old:
            # All of them first: from then on there is one directory in which Data.fs.old has its blobs.
            for oid, tid, size in found:
                with _reported(old):
                    self._keep(old, self.path_of(oid, tid))
                done += size
                yield done, total
        for oid, tid, size in found:
            if not is_kept(oid, tid):
                self._remove_packed(self.path_of(oid, tid))
            done += size
            yield done, total

    def _keep(self, old: str, path: str) -> None:
        marker = os.path.join(old, MARKER)
        if not os.path.exists(marker):
            os.mkdir(old)
            shutil.copyfile(os.path.join(self.path, MARKER), marker)
        target = old + path.removeprefix(self.path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        _link_or_copy(path, target)

    def _remove_packed(self, path: str) -> None:
        # No sync: a file that comes back after a power cut is one that the next pack removes.
        with self._lock, _reported(path), suppress(FileNotFoundError):
            os.unlink(path)
            self._prune(os.path.dirname(path))

    def _prune(self, directory: str) -> None:
        """Remove a directory and those above it as far as they are empty."""
        while directory != self.path:
            try:
                os.rmdir(directory)
            except OSError:
                return  # not empty
            directory = os.path.dirname(directory)

    def _take_back(self, placed: list[StagedBlob]) -> None:
        for blob in placed:
            target = self.path_of(blob.oid, blob.tid)
            with suppress(OSError):  # the first error is the one to tell; a file left behind does no harm
                if os.path.lexists(blob.path):
                    os.unlink(target)
                else:
                    os.rename(target, blob.path)
            self._prune(os.path.dirname(target))

    def _make(self) -> None:
        entries = [*_make_directories(self.temp_dir)]
        marker = os.path.join(self.path, MARKER)
        if not os.path.exists(marker):
            durable.write_file(marker, [self.layout.name.encode()], marker + "_tmp")
        _sync_names(entries)

    def _clean(self) -> None:
        """Remove what is left of transactions that ended with their process.

        Clients may share the directory and keep files of open transactions under names of their own, so those go by
        age: the time of their last change, which a rename sets too.
        """
        oldest = time.time() - _ABANDONED_AFTER_S
        for name in os.listdir(self.temp_dir):
            path = os.path.join(self.temp_dir, name)
            with suppress(FileNotFoundError):
                if name.startswith(_STAGING_PREFIX) or os.lstat(path).st_ctime < oldest:
                    _remove_tree(path)

    def _files(self, directory: str, names: tuple[str, ...]) -> Iterator[tuple[Oid, Tid, str]]:
        oid = self.layout.oid_of(names)
        try:
            entries = sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in entries:
            path = os.path.join(directory, name)
            if oid is not None:
                tid = tid_of(name)
                if tid is not None:
                    yield oid, tid, path
            elif self.layout.level.fullmatch(name) and len(names) < self.layout.depth:
                yield from self._files(path, (*names, name))


class _Found:
    """Blobs and their sizes, in 24 bytes each: there may be millions."""

    def __init__(self) -> None:
        self._rows = bytearray()
        self.byte_count = 0

    def add(self, oid: Oid, tid: Tid, path: str) -> None:
        with suppress(FileNotFoundError):  # removed by somebody else's hand
            size = os.lstat(path).st_size
            self._rows += _FOUND.pack(oid, tid, size)
            self.byte_count += size

    def __iter__(self) -> Iterator[tuple[Oid, Tid, int]]:
        return _FOUND.iter_unpack(self._rows)


@contextmanager
def _reported(path: str) -> Iterator[None]:
    """Turn what the system says of the file at `path` into a StorageError."""
    try:
        yield
    except OSError as error:
        raise failure(str(error.filename or path), error) from error


def _move(source: str, target: str) -> None:
    """Move a file, copying it if it is on another file system."""
    try:
        os.rename(source, target)
    except OSError:
        # Whatever the reason, a copy is still worth a try; if it fails too, its reason is the one to tell.
        shutil.copyfile(source, target)
        os.unlink(source)


def _copy_open(source: IO[bytes], target: str) -> None:
    with open(target, "xb") as file:
        shutil.copyfileobj(source, file, _COPY_BYTES)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(source, target)


def _link_or_rename(source: str, target: str) -> None:
    """Give a file its committed name. What stands there already is a transaction's that a crash has ended."""
    with suppress(FileNotFoundError):
        os.unlink(target)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.rename(source, target)


def _make_directories(path: str) -> Iterator[str]:
    """Make a directory and what is missing above it; walk those made, from the top down."""
    if os.path.isdir(path):
        return
    yield from _make_directories(os.path.dirname(path))
    try:
        os.mkdir(path)
    except FileExistsError:
        return
    yield path


def _sync_names(paths: Sequence[str]) -> None:
    """Bring new names to disk, each directory that has some once."""
    for path in {os.path.dirname(path): path for path in paths}.values():
        durable.sync_directory(path)


def _sync_contents(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        durable.sync_file(fd)
    finally:
        os.close(fd)


def _remove_tree(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
