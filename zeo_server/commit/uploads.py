"""Blobs on their way from clients: a file each, written by threads as the chunks come in.

M5's chunks do not say which blob they belong to: a connection sends one blob at a time, from storeBlobStart to
storeBlobEnd (lesson B18). Nothing of this waits in the server's loop, which only queues chunks; a client that is faster
than the disk is not read from until the queue is short again, so that no blob is ever in memory as a whole.

At the vote the files are handed to the storage's own staging and brought to disk. Whatever becomes of a transaction or
a connection, its files go with it (lesson B17); those of a server that dies are removed when the storage is opened.
"""

import asyncio
import os
import stat
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol, TypeVar

from zeo_core.errors import StorageError, StorageTransactionError
from zeo_core.ids import Oid
from zeo_core.storage import BlobStage, HasBlobs, Loads
from zeo_core.transaction import ObjectWrite
from zeo_server.commit.transaction import BlobSource, ServerTransaction
from zeo_server.limits import DEFAULT_LIMITS, Limits
from zeo_server.storages.faults import failure

__all__ = ["THREADS", "Sender", "SharedFile", "Upload", "Uploads"]

THREADS = 4
"""Threads that work for the blobs of one storage; those for loads are others, so that no load waits for an upload."""

Result = TypeVar("Result")

_PREFIX = "staged-"  # what BlobDirectory removes when it is opened


class Upload:
    """One blob that comes in. `add` is called in the loop, everything else in any thread."""

    def __init__(self, directory: str | None, max_bytes: int, error: StorageError | None = None) -> None:
        """Write to a file in `directory`. With an `error`, nothing is kept, and `complete` raises it."""
        self.writing = False
        """The loop has asked a thread to write, and has not heard of it since."""
        self._directory = directory
        self._max_bytes = max_bytes
        self._error = error
        self._chunks: deque[bytes] = deque()
        self._received = 0  # counted in the loop
        self._written = 0  # counted by whoever holds the lock
        self._lock = threading.Lock()
        self._file: int | None = None
        self._path: str | None = None
        self._discarded = False

    def received_bytes(self) -> int:
        """Return how many bytes have come so far."""
        return self._received

    def queued_bytes(self) -> int:
        """Return how many bytes wait to be written."""
        return self._received - self._written

    def add(self, chunk: bytes) -> None:
        """Queue the next bytes."""
        self._received += len(chunk)
        if self._received > self._max_bytes and self._error is None:
            self._error = StorageError(f"the blob is larger than {self._max_bytes} bytes")
        self._chunks.append(chunk)

    def write(self) -> None:
        """Write what is queued; what goes wrong is kept for `complete` to raise."""
        with self._lock:
            self._write()

    def complete(self) -> str:
        """Write what is left and return the file's path; StorageError if that, or anything before it, failed."""
        with self._lock:
            self._write()
            if self._path is None and self._error is None:
                self._create()  # an empty blob
            self._close()
            if self._error is not None or self._path is None:
                self._remove()
                raise self._error or StorageError("the blob could not be kept")
            return self._path

    def discard(self) -> None:
        """Remove the file if it is still there, and write no more."""
        with self._lock:
            self._discarded = True
            self._write()
            self._close()
            self._remove()

    def _write(self) -> None:
        while self._chunks:
            chunk = self._chunks.popleft()
            if not (self._discarded or self._error):
                self._append(chunk)
            self._written += len(chunk)

    def _append(self, chunk: bytes) -> None:
        try:
            file = self._create() if self._file is None else self._file
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(file, rest) :]
        except OSError as error:
            self._error = failure(self._path or self._directory or "", error)
            self._close()
            self._remove()

    def _create(self) -> int:
        self._file, self._path = tempfile.mkstemp(prefix=_PREFIX, dir=self._directory)
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _remove(self) -> None:
        if self._path is not None:
            with suppress(OSError):  # what cannot be removed now is removed when the storage is opened
                os.unlink(self._path)
            self._path = None


class SharedFile:
    """A blob that a client has put into the directory it shares with the server.

    A client must not be able to make the server take any other file: the name is one of a temporary file, as ZEO's
    clients make them, in the very directory of the object, which is where it seems to be and no link.
    """

    def __init__(self, base: str, directory: str, name: str) -> None:
        """Stand for the file `name` in the object's `directory`, below the blob directory `base`.

        StorageError for a name that no client should send.
        """
        if os.sep in name or "\0" in name or not (name.endswith(".tmp") or name[:-1].endswith(".tmp")):
            raise StorageError(f"{name!r:.100} is no name of a temporary file for a blob")
        self._base = base
        self._directory = directory
        self._name = name

    def received_bytes(self) -> int:
        """Return that nothing came over the connection: the client took the disk's room by itself."""
        return 0

    def complete(self) -> str:
        """Return the file's path; StorageError if there is no such file, or it is somewhere else."""
        path = os.path.join(self._directory, self._name)
        in_base = os.path.relpath(self._directory, self._base)
        try:
            mode = os.lstat(path).st_mode
        except OSError as error:
            raise failure(path, error) from error
        if not stat.S_ISREG(mode) or os.path.realpath(self._directory) != os.path.join(
            os.path.realpath(self._base), in_base
        ):
            raise StorageError(f"{path}: not a file of the shared blob directory")
        return path

    def discard(self) -> None:
        """Remove the file, if it is one that `complete` would return."""
        with suppress(StorageError, OSError):
            os.unlink(self.complete())


class Sender(Hashable, Protocol):
    """A connection on which blobs come in."""

    def hold(self) -> None:
        """Read no more from the client for the time being."""

    def release(self) -> None:
        """Read from the client again; harmless when nothing was held."""


class Uploads:
    """The blobs on their way to one storage. All methods are called in the server's loop."""

    def __init__(
        self, storage: Loads, loop: asyncio.AbstractEventLoop, name: str, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self.limits = limits
        self._storage = storage
        self._loop = loop
        self._name = name
        self._threads = ThreadPoolExecutor(THREADS, f"zeod blobs {name}")
        self._closed = False
        self._coming: dict[Hashable, Upload] = {}

    def __len__(self) -> int:
        """Return how many blobs are coming in."""
        return len(self._coming)

    def run(self, function: Callable[[], Result]) -> "asyncio.Future[Result]":
        """Have a thread for blobs call `function`; or call it at once when the server stops and they have ended."""
        if not self._closed:
            return self._loop.run_in_executor(self._threads, function)
        done: asyncio.Future[Result] = self._loop.create_future()
        try:
            done.set_result(function())
        except Exception as error:  # noqa: BLE001 - as from a thread
            done.set_exception(error)
        return done

    def start(self, sender: Hashable) -> None:
        """Begin a blob; StorageError if one of this connection has not ended."""
        if sender in self._coming:
            raise StorageError("a blob begins before the last one has ended")
        storage = self._storage
        if isinstance(storage, HasBlobs):
            self._coming[sender] = Upload(storage.temporaryDirectory(), self.limits.blob_max_bytes)
        else:
            # nobody waits for a reply to this call: the vote will say it
            self._coming[sender] = Upload(None, 0, StorageError(f"storage {self._name} has no directory for blobs"))

    def add(self, sender: Sender, chunk: bytes) -> None:
        """Take the next bytes of the blob that this connection has begun; StorageError if there is none."""
        upload = self._of(sender)
        upload.add(chunk)
        if not upload.writing:
            self._write(sender, upload)
        elif upload.queued_bytes() > self.limits.blob_queue_max_bytes:
            sender.hold()

    def end(self, sender: Hashable) -> Upload:
        """Return the blob that this connection has begun, now that all its bytes are there; StorageError if none."""
        upload = self._of(sender)
        del self._coming[sender]
        return upload

    def shared(self, oid: Oid, name: str) -> BlobSource:
        """Return the file `name` of the shared directory; StorageError if that cannot be."""
        directory = getattr(self._storage, "fshelper", None)  # ZODB's name
        if directory is None:
            return Upload(None, 0, StorageError(f"storage {self._name} shares no directory for blobs"))
        return SharedFile(directory.base_dir, directory.getPathForOID(oid), name)

    def give(
        self,
        source: BlobSource,
        oid: Oid,
        find: Callable[[], ServerTransaction],
        stage: Callable[[ServerTransaction], None],
    ) -> None:
        """Give a blob to the object that `stage` stages in the transaction that `find` finds; what is of no use goes.

        StorageTransactionError if there is none, or it takes no more.
        """
        try:
            transaction = find()
            stage(transaction)
        except StorageTransactionError:
            self.discard(source)
            raise
        needless = transaction.add_blob(oid, source)
        if needless is not None:
            self.discard(needless)

    def leave(self, sender: Hashable) -> None:
        """Forget the blob that a lost connection had begun."""
        upload = self._coming.pop(sender, None)
        if upload is not None:
            self.discard(upload)

    def discard(self, source: BlobSource | BlobStage) -> None:
        """Remove files that are of no more use."""
        self.run(source.discard)

    def end_of(self, transaction: ServerTransaction) -> None:
        """Remove what is left of a transaction's blobs."""
        blobs, transaction.blobs = transaction.blobs, {}
        stage, transaction.stage = transaction.stage, None
        left: list[BlobSource | BlobStage] = [*blobs.values(), *([] if stage is None else [stage])]
        if left:
            self.run(lambda: [each.discard() for each in left])

    def stage(self, transaction: ServerTransaction, then: Callable[[], None]) -> None:
        """Bring a transaction's blobs to disk and tell its writes where; `then` is called when it is done.

        If it fails, the transaction is doomed. If it was aborted meanwhile, nothing is left and nothing is called.
        """
        storage, sources, writes = self._storage, dict(transaction.blobs), transaction.writes
        if not isinstance(storage, HasBlobs):
            transaction.doom(StorageError(f"storage {self._name} has no directory for blobs"))
            then()
            return

        def staged(future: "asyncio.Future[tuple[BlobStage, dict[Oid, str]]]") -> None:
            error = future.exception()
            if error is not None:
                transaction.doom(error if isinstance(error, StorageError) else StorageError(str(error)))
            else:
                transaction.stage, paths = future.result()
                for oid, path in paths.items():
                    writes[oid] = writes[oid]._replace(blob=path)
            then()

        self.run(lambda: _stage(storage, sources, writes)).add_done_callback(staged)

    async def close(self) -> None:
        """End the threads when what was asked of them is done. What still has to be removed is removed in the loop."""
        self._closed = True
        await self._loop.run_in_executor(None, self._threads.shutdown)

    def _of(self, sender: Hashable) -> Upload:
        upload = self._coming.get(sender)
        if upload is None:
            raise StorageError("a part of a blob where none has begun")
        return upload

    def _write(self, sender: Sender, upload: Upload) -> None:
        upload.writing = True

        def written(_future: object) -> None:
            upload.writing = False
            if upload.queued_bytes() <= self.limits.blob_queue_max_bytes:
                sender.release()
            if upload.queued_bytes():
                self._write(sender, upload)

        self.run(upload.write).add_done_callback(written)


def _stage(
    storage: HasBlobs, sources: Mapping[Oid, BlobSource], writes: Mapping[Oid, ObjectWrite]
) -> tuple[BlobStage, dict[Oid, str]]:
    """Hand files over to the storage's staging and sync them; return it with the paths. StorageError, then all go."""
    stage = storage.stage_blobs()
    try:
        paths = {oid: stage.take(source.complete()) for oid, source in sources.items() if _has_data(writes.get(oid))}
        stage.sync()
    except BaseException:
        stage.discard()
        raise
    return stage, paths


def _has_data(write: ObjectWrite | None) -> bool:
    return write is not None and write.data is not None  # a later call of the transaction may have deleted it
