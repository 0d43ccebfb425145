"""Where the records of a large transaction wait: in a file, so that the memory of the server stays bounded.

What a transaction stages beyond a size, and whatever is staged while all transactions together have taken their share
of memory, goes to an unnamed file that is gone when the transaction ends, and when the server dies. Nothing of this
waits in the server's loop: threads write, as they do for blobs, and a client that is faster than the disk is not read
from until it has caught up. What stays in memory is what the commit needs of each object: its oid and serial.

What goes wrong is kept for the vote to report: a full disk is a refused vote.
"""

import asyncio
import os
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Protocol

from zeo_core.errors import StorageError
from zeo_core.storage import Spools
from zeo_server.limits import DEFAULT_LIMITS, Limits
from zeo_server.storages.faults import failure

__all__ = ["BLOCK_BYTES", "Run", "Spool", "SpooledRecord", "Spooling", "Writes"]

BLOCK_BYTES = 256 * 1024
"""Written at once: a thread for each small record would cost more than the writing."""

Run = Callable[[Callable[[], None]], "asyncio.Future[None]"]
"""Has a thread call a function."""


class Writes(Protocol):
    """Who sends records: the connection of a client."""

    def hold(self) -> None:
        """Read no more from the client for the time being."""

    def release(self) -> None:
        """Read from the client again; harmless when nothing was held."""


class Spooling:
    """What the transactions of one storage share: the directory of their files, and what they may keep in memory."""

    def __init__(
        self, storage: object, run: Run, limits: Limits = DEFAULT_LIMITS, directory: str | None = None
    ) -> None:
        """Have `run` call what waits for the disk; a storage that has none spools nothing.

        The files are in `directory`, by default the storage's.
        """
        self.limits = limits
        self.memory_bytes = 0
        """Data that open transactions may keep in memory."""
        self._run = run
        self._directory = None
        if isinstance(storage, Spools) and (own := storage.spool_directory()) is not None:
            self._directory = directory or own

    def grant(self, granted_bytes: int, wanted_bytes: int) -> int:
        """Return how much a transaction may keep in memory that wants more than it was granted; 0 if no more.

        That is up to twice what it wants, so that it has to ask a few times only.
        """
        limits = self.limits
        most = limits.transaction_spool_bytes, granted_bytes + limits.staged_memory_max_bytes - self.memory_bytes
        room = min(2 * wanted_bytes, *most) if self._directory is not None else sys.maxsize
        if room < wanted_bytes:
            return 0
        self.memory_bytes += room - granted_bytes
        return room

    def open(self, sender: Writes) -> "Spool":
        """Return what keeps the records of one transaction, which `sender` sends."""
        return Spool(self._directory or "", self._run, sender, self.limits.blob_queue_max_bytes)


class Spool:
    """The spooled records of one transaction. `add` and `discard` are called in the loop, all else in any thread."""

    def __init__(self, directory: str, run: Run, sender: Writes, queue_max_bytes: int) -> None:
        self.size_bytes = 0
        """What was added so far."""
        self._directory = directory
        self._run = run
        self._sender = sender
        self._queue_max_bytes = queue_max_bytes
        self._chunks: deque[bytes] = deque()
        self._writing = False  # a thread was asked to, and the loop has not heard of it since
        self._lock = threading.Lock()  # for all below
        self._written = 0
        self._file: IO[bytes] | None = None
        self._error: StorageError | None = None
        self._discarded = False

    def add(self, data: bytes) -> "SpooledRecord":
        """Take a record; return what stands for it."""
        record = SpooledRecord(self, self.size_bytes, len(data))
        self.size_bytes += len(data)
        self._chunks.append(data)
        if not self._writing:
            if self._queued_bytes() >= BLOCK_BYTES:
                self._start()
        elif self._queued_bytes() > self._queue_max_bytes:
            self._sender.hold()
        return record

    def complete(self) -> None:
        """Write what is left; StorageError for that, or for what went wrong before."""
        with self._lock:
            self._write()
            self._check()

    def read(self, start: int, size: int) -> bytes:
        """Return `size` bytes from `start` on; StorageError if they cannot be had."""
        with self._lock:
            self._write()
            self._check()
            if self._file is None:
                raise StorageError("a transaction's records are read after its end")
            try:
                data = os.pread(self._file.fileno(), size, start)
            except OSError as error:
                raise failure(self._directory, error) from error
        if len(data) != size:
            raise StorageError(f"{self._directory}: a spooled record is cut short")
        return data

    def discard(self) -> None:
        """Let go of the file, and write no more."""
        self._run(self._discard)  # to free the blocks of a large file takes the system its time

    def _queued_bytes(self) -> int:
        return self.size_bytes - self._written

    def _start(self) -> None:
        self._writing = True
        self._run(self._write_queued).add_done_callback(self._wrote)

    def _wrote(self, _future: object) -> None:
        self._writing = False
        if self._queued_bytes() <= self._queue_max_bytes:
            self._sender.release()
        if self._queued_bytes() >= BLOCK_BYTES:
            self._start()

    def _write_queued(self) -> None:
        with self._lock:
            self._write()

    def _write(self) -> None:
        while self._chunks:
            block = self._next_block()
            if not (self._discarded or self._error):
                self._append(block)
            self._written += len(block)

    def _next_block(self) -> bytes:
        chunks = [self._chunks.popleft()]
        size = len(chunks[0])
        while self._chunks and size < BLOCK_BYTES:
            chunks.append(self._chunks.popleft())
            size += len(chunks[-1])
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _append(self, block: bytes) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115
            rest = memoryview(block)
            while rest:
                rest = rest[os.write(self._file.fileno(), rest) :]
        except OSError as error:
            self._error = failure(self._directory, error)
            self._close()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _discard(self) -> None:
        with self._lock:
            self._discarded = True
            self._write()
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # nothing of it is needed any more
                self._file.close()
            self._file = None


class SpooledRecord:
    """Stands for the data of one object: see zeo_core.transaction.SpooledData."""

    __slots__ = ("_size", "_spool", "_start")

    def __init__(self, spool: Spool, start: int, size: int) -> None:
        self._spool = spool
        self._start = start
        self._size = size

    def __len__(self) -> int:
        """Return how many bytes they are."""
        return self._size

    def read(self) -> bytes:
        """Return them; StorageError if they cannot be had. May wait for the disk."""
        return self._spool.read(self._start, self._size)
