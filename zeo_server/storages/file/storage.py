"""FileStorage: the storage contract on one Data.fs.

Beside the file stand `.lock` (held while it is open for writing), `.index` (the saved index, a hint) and, if an opening
had to cut off a torn tail, `.tr0` and so on. Readers find records through the index only, and the index has only what
is published; the writer works behind the published end, through a descriptor of its own.
"""

import logging
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import NoReturn, Self, cast

import zc.lockfile

from zeo_core.errors import (
    FileLockedError,
    POSKeyError,
    RecordFormatError,
    StorageClosedError,
    StorageError,
    StorageFullError,
    UndoError,
)
from zeo_core.ids import ZERO_TID, Oid, Tid, oid_repr
from zeo_core.record import references
from zeo_core.storage import Announce, Progress, WrittenGroup
from zeo_core.transaction import (
    HistoryEntry,
    ObjectWrite,
    PreparedTransaction,
    RecordedTransaction,
    Revision,
    UndoEntry,
    whole,
)
from zeo_server.histogram import Distribution
from zeo_server.storages import durable
from zeo_server.storages.faults import failure
from zeo_server.storages.file.format import MAGIC, MAGIC_SIZE
from zeo_server.storages.file.generation import Generation
from zeo_server.storages.file.log import Log
from zeo_server.storages.file.pack import Finish, PackRun, Replacement, clear_leftovers
from zeo_server.storages.file.reader import Descriptor, Reader
from zeo_server.storages.file.recover import BeforeCut, Contents, read_contents
from zeo_server.storages.file.saving import IndexSaver
from zeo_server.storages.file.writer import FileGroup, Writer
from zeo_server.storages.local import check_writable
from zeo_server.storages.logged import LoggedStorage

__all__ = ["FileStorage", "is_missing", "lock"]

logger = logging.getLogger(__name__)

_SAVE_INDEX_AFTER_BYTES = 64 << 20  # an opening scans this much in a second or so; more than it is not left to scan
_ROOM_SLACK_BYTES = 256 << 10  # a transaction's headers: three texts of up to 64 kB, and what comes without a vote
_REMAINS = (".index", ".old", ".pack")


class FileStorage(LoggedStorage):
    """A storage in a file that ZODB's FileStorage can read and write too.

    FileLockedError if another process has it open for writing, FileFormatError if it is damaged before its end,
    StorageError for a file that cannot be opened or made.
    """

    def __new__(cls, *_arguments: object, blob_dir: object = None, **_options: object) -> Self:
        """Make a BlobFileStorage if there is a directory for blobs: only such a one has their methods."""
        if blob_dir is not None and cls is FileStorage:
            # Here, since that one's base is this class.
            from zeo_server.storages.file.blob_storage import BlobFileStorage

            return cast(Self, super().__new__(BlobFileStorage))
        return super().__new__(cls)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        create: bool = False,
        read_only: bool = False,
        blob_dir: str | os.PathLike[str] | None = None,
        stop: Tid | None = None,
        quota: int | None = None,
        pack_gc: bool = True,
        pack_keep_old: bool = True,
    ) -> None:
        """Open the file at `path`; one that is missing is made, unless `read_only`.

        A missing file whose index or earlier version (.old, .pack) is there is taken for lost, not for new, and
        refused: `create` says that a new one is wanted all the same. `create` never replaces a file with data.
        With `blob_dir` it becomes a BlobFileStorage.

        `stop` opens the file as it was before that tid, read-only. `quota` is the size in bytes that the file is not
        to grow over: a vote for more gets a StorageFullError. `pack_gc` and `pack_keep_old` say whether a pack drops
        unreachable objects, and whether it keeps the file as it was, where it is not told.
        """
        self._path = os.path.abspath(path)
        super().__init__(self._path, read_only=read_only)
        if create and read_only:
            raise StorageError(f"{self._path}: a file cannot be created and read-only")
        if stop is not None and not read_only:
            raise StorageError(f"{self._path}: a file can be opened as of a past time only read-only")
        self._quota = quota
        self._write_lock = Lock()
        self._switch_lock = Lock()  # held to publish and to go over to a packed file; inside the write lock, if both
        self._pack_run: PackRun | None = None
        self._pack_gc, self._pack_keep_old = pack_gc, pack_keep_old
        self._lock_file = None if read_only else lock(self._path)
        try:
            if not read_only:
                clear_leftovers(self._path)
            reader, contents, writer = _open(
                self._path, create=create, read_only=read_only, before_cut=self._before_cut, stop=stop
            )
        except BaseException as error:
            self._unlock()
            if isinstance(error, OSError):
                raise failure(self._path, error) from error
            raise
        # Read once by each call that needs it: a pack replaces all of it at once.
        self._generation: Generation | None = Generation(reader, contents.index, contents.end)
        self._writer = writer
        self._last_tid = contents.last_tid
        self._oids.pass_by([contents.index.highest_oid()])
        self._index_saver = IndexSaver(
            self._path + ".index",
            contents.end - contents.scanned,
            _SAVE_INDEX_AFTER_BYTES,
            self._switch_lock,
            lambda: self._generation,
        )
        if contents.scanned > _SAVE_INDEX_AFTER_BYTES and not read_only:
            self._index_saver.save()

    def load_before(self, oid: Oid, tid: Tid) -> Revision | None:
        """Return the newest revision written before `tid`, None if there was none yet; POSKeyError if unknown."""
        generation = self._opened()
        return generation.reader.load_before(oid, tid, generation.place(oid))

    def load_cached(self, oid: Oid, tid: Tid) -> Revision | None:
        """Do as `load_before` does, but raise BlockingIOError rather than wait for the disk."""
        generation = self._opened()
        return generation.cached_reader.load_before(oid, tid, generation.place(oid))

    def load_serial(self, oid: Oid, tid: Tid) -> bytes:
        """Return the data that transaction `tid` wrote for `oid`; POSKeyError if it wrote none."""
        generation = self._opened()
        return generation.reader.load_serial(oid, tid, generation.index.position(oid))

    def revisions(self, oid: Oid, size: int) -> list[HistoryEntry]:
        """Return up to `size` revisions, newest first; POSKeyError for an unknown oid."""
        generation = self._opened()
        position = generation.index.position(oid)
        if not position:
            raise POSKeyError(oid)
        return generation.reader.revisions(oid, size, position)

    def first_revision(self, oid: Oid) -> tuple[Tid, bool]:
        """Return the tid of the oldest revision, and whether a pack may have dropped earlier ones."""
        generation = self._opened()
        return generation.reader.first_revision(oid, generation.place(oid))

    def object_count(self) -> int:
        """Return how many objects the index has, those deleted included but for the mark that a pack may leave."""
        generation = self._opened()
        oid = generation.index.highest_oid()
        position = generation.index.position(oid)
        if not position:
            return 0
        header = generation.reader.header(oid, position)
        is_mark = header.back == 0 and not header.previous  # a deletion without anything that was deleted
        return len(generation.index) - is_mark

    def byte_size(self) -> int:
        """Return how long the file is, up to the end of the last published transaction."""
        return self._opened().end

    def index_bytes(self) -> int:
        """Return how many bytes the entries of the index take in memory, without the room to grow."""
        return self._opened().index.memory_bytes()

    def sync_seconds(self) -> Distribution | None:
        """Return how long bringing commits to disk took, None if the storage is read-only."""
        return None if self._writer is None else self._writer.syncs.frozen()

    def spool_directory(self) -> str:
        """Return the file's directory, where records of large transactions can wait."""
        return os.path.dirname(self._path)

    def check_room(self, byte_count: int) -> None:
        """Take room on the disk for `byte_count` bytes of promised commits; StorageFullError if there is none.

        The room is counted from the end of what is published: commits on their way to the disk are to be part of it.
        """
        end = self.byte_size()
        if self._quota is not None and end + byte_count > self._quota:
            raise StorageFullError(self._path, f"{byte_count} bytes to store would exceed the quota of {self._quota}")
        writer = self._writer
        if writer is None:
            self._refuse_closed()
        writer.room.take(end + byte_count + _ROOM_SLACK_BYTES)

    def current_tid(self, oid: Oid) -> Tid | None:
        """Return the current record's tid, also that of a deletion; None for an unknown oid."""
        generation = self._opened()
        position = generation.index.position(oid)
        return generation.reader.tid_at(oid, position) if position else None

    def write_group(self, transactions: Sequence[PreparedTransaction]) -> FileGroup:
        """Write all transactions and bring them to disk; see the contract, and writer.py for how."""
        self.check_not_read_only()
        with self._write_lock:
            if self._writer is None:
                self._refuse_closed()
            check_writable(transactions)
            self._check_undone(transactions)
            group = self._writer.write(
                transactions, self._opened().index, self._repeated, partial(self._place_blobs, transactions)
            )
        for oids in group.oids:
            self._oids.pass_by(oids)
        return group

    def anticipate(self, transaction: PreparedTransaction) -> None:
        """Bring to disk beforehand what will probably be the next group; see the contract."""
        with self._write_lock:
            if self._writer is not None and not self._read_only:
                check_writable([transaction])
                self._writer.anticipate(transaction, self._opened().index, self._repeated)

    def publish(self, group: WrittenGroup, announce: Announce | None = None) -> None:
        """Make a group of this storage's own visible."""
        if not isinstance(group, FileGroup):
            raise TypeError(f"{group!r} was not written by a FileStorage")
        with self._switch_lock:
            generation = self._opened()
            generation.add(group)
        self._index_saver.grown(generation.end)
        self._announce(zip(group.tids, group.oids, strict=True), announce)

    def transactions(self, start: Tid | None = None, stop: Tid | None = None) -> Iterator[RecordedTransaction]:
        """Walk the transactions with start <= tid <= stop; the end is fixed here, at the call."""
        generation = self._opened()
        return Log(generation.reader, generation.end).transactions(start, stop)

    def pack_steps(
        self, until_s: float, *, gc: bool | None = None, keep_old: bool | None = None
    ) -> Generator[Progress, None, None]:
        """Pack step by step, in a process beside; see the contract, and pack.py for how.

        With `keep_old` the file as it was stays as Data.fs.old.
        """
        self.check_not_read_only()
        run = PackRun(
            self._path,
            until_s,
            gc=self._pack_gc if gc is None else gc,
            keep_old=self._pack_keep_old if keep_old is None else keep_old,
            end=lambda: self._opened().end,
            switch=self._switch,
        )
        with self._switch_lock:
            self._opened()
            if self._pack_run is not None:
                raise StorageError(f"{self._path}: is being packed already")
            self._pack_run = run
        try:
            yield from run.steps()
        finally:
            self._pack_run = None

    def _switch(self, finish: Finish) -> tuple[Generation, Writer]:
        """Go over to the file that `finish` puts in place while nothing is written; return what holds on to the old."""
        with self._write_lock:
            old, writer = self._opened(), self._writer
            if writer is None or old.moved_tid > self._last_tid:
                # a group that two packs have moved: somebody forgot to publish it
                raise StorageError(f"{self._path}: not packed, since there are unpublished transactions")
            try:
                self._go_over(finish(writer.end, max(0, writer.room.end - writer.end)), old, writer)
            except BaseException:
                if not os.path.samestat(os.stat(self._path), os.fstat(old.reader.descriptor.fd)):
                    writer.close(f"{self._path}: closed to writes, since the packed file in its place is not in use")
                raise
            return old, writer

    def _go_over(self, new: Replacement, old: Generation, writer: Writer) -> None:
        generation = Generation(
            new.reader, new.index, new.indexed_end, moved_tid=writer.last_tid, distance=new.distance
        )
        with self._switch_lock:
            generation.scan_to(old.end - new.distance)
            self._generation = generation
        end = writer.end - new.distance
        self._writer = Writer(self._path, new.descriptor, end, writer.last_tid, new.room, writer.syncs)
        if new.fault:
            self._writer.close(new.fault)
        self._index_saver.forget()

    def close(self) -> None:
        """Save the index and let go of the file; waits for a write in progress."""
        with self._write_lock:
            if self._generation is None:
                return
            if self._pack_run is not None:
                self._pack_run.stop("the storage was closed")
            if not self._read_only:
                self._index_saver.save()
            if self._writer is not None:
                self._writer.leave()
            self._generation = self._writer = None
            self._unlock()

    def undo_log(self) -> Iterator[UndoEntry]:
        """Walk the transactions that may be undone, newest first, up to where the file was packed."""
        generation = self._opened()
        return Log(generation.reader, generation.end).undo_entries()

    def start_of_last(self, count: int) -> Tid:
        """Return the tid of the first of the last `count` transactions."""
        generation = self._opened()
        return Log(generation.reader, generation.end).start_of_last(count)

    def first_oid(self, start: Oid) -> Oid | None:
        """Return the lowest oid that is not below `start`, also of a deleted object; None if there is none."""
        return self._opened().index.first_oid(start)

    def _repeated(self, write: ObjectWrite) -> int:
        """Return where the record stands whose data `write` repeats, 0 if its data are others (lesson B30)."""
        if write.data_tid is None:
            return 0
        generation = self._opened()
        reader = generation.reader
        position = reader.find(write.oid, write.data_tid, generation.index.position(write.oid))
        if not position or reader.stored_data(write.oid, position) != whole(write.data):
            return 0
        return reader.source(write.oid, position)  # no chains: a reader is sent back once

    def _check_undone(self, transactions: Sequence[PreparedTransaction]) -> None:
        """Refuse an undo, voted before a pack, of a state that refers to what that pack has collected; UndoError.

        As long as the earlier revision is there, so is all that it refers to. A restored transaction is to be as it
        was, whatever it refers to.
        """
        generation = self._opened()
        if generation.moved_tid == ZERO_TID:
            return  # not packed since it was opened
        for transaction in transactions:
            for write in transaction.writes if transaction.tid is None else ():
                data = None if write.data_tid is None else whole(write.data)
                if data is None or self._repeated(write):
                    continue
                written = {each.oid for each in transaction.writes}
                with suppress(RecordFormatError):  # what no packer can read it keeps
                    for oid in references(self._untransform(data)):
                        if not generation.index.position(oid) and oid not in written:
                            reason = f"it refers to {oid_repr(oid)}, which was packed away since the undo was voted"
                            raise UndoError(reason, write.oid)

    def _before_cut(self, reader: Reader, position: int) -> None:
        """Look at the unfinished transactions at the end of the file before they are cut off."""

    def _place_blobs(self, transactions: Sequence[PreparedTransaction], tids: Sequence[Tid]) -> None:
        """Bring the transactions' blobs to their places; they are written already, but not yet marked finished."""

    def _opened(self) -> Generation:
        generation = self._generation
        if generation is None:
            self._refuse_closed()
        return generation

    def _refuse_closed(self) -> NoReturn:
        raise StorageClosedError(f"{self._path} is closed")

    def _unlock(self) -> None:
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None


def lock(path: str) -> zc.lockfile.LockFile:
    """Lock the Data.fs at `path` for writing until the lock is closed; FileLockedError."""
    try:
        return zc.lockfile.LockFile(path + ".lock")
    except zc.lockfile.LockError:
        raise FileLockedError(path, _holder(path + ".lock")) from None
    except OSError as error:
        raise failure(path + ".lock", error) from error


def _holder(lock_path: str) -> str:
    """Return what the lock file says of the process that holds it."""
    try:
        with open(lock_path, encoding="utf-8", errors="replace") as file:
            content = file.read(100).strip()
    except OSError:
        return ""
    return f"process {content}" if content else ""


def _open(
    path: str, *, create: bool, read_only: bool, before_cut: BeforeCut, stop: Tid | None
) -> tuple[Reader, Contents, Writer | None]:
    if not read_only:
        _make_if_missing(path, create)
    reader = Reader(path, Descriptor(path, os.O_RDONLY))
    contents = read_contents(reader, read_only=read_only, before_cut=before_cut, stop=stop)
    if read_only:
        return reader, contents, None
    # A descriptor of its own: readers' descriptors cannot write, whatever happens.
    return reader, contents, Writer(path, Descriptor(path, os.O_RDWR), contents.end, contents.last_tid)


def _make_if_missing(path: str, create: bool) -> None:
    """Make an empty Data.fs if there is none, or complete one whose making was cut short."""
    if not is_missing(path, create=create):
        return
    descriptor = Descriptor(path, os.O_RDWR | os.O_CREAT)
    os.pwrite(descriptor.fd, MAGIC, 0)
    durable.sync_file(descriptor.fd)
    durable.sync_directory(path)


def is_missing(path: str, *, create: bool) -> bool:
    """Tell whether a new file has to be made at `path`; StorageError if that must not be, or if there must be none."""
    present = _start_of(path)
    if present is not None and not (len(present) < MAGIC_SIZE and MAGIC.startswith(present)):
        if create:
            raise StorageError(f"{path}: exists already, and is not replaced by a new file")
        return False
    remains = [path + suffix for suffix in _REMAINS if os.path.exists(path + suffix)]
    if remains and not create:
        # Lesson B34: an empty database in place of one that a crash or a mistake moved away hides the loss.
        state = "missing" if present is None else "empty"
        raise StorageError(f"{path}: is {state}, yet there is {', '.join(remains)}; not creating a new file")
    return True


def _start_of(path: str) -> bytes | None:
    """Return the first bytes of a file, None if there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(MAGIC_SIZE)
    except FileNotFoundError:
        return None
