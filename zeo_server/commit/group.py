"""The group writer: one thread that writes every transaction that waits with one write and one sync.

While one group is on its way to the disk the next one gathers; under load the groups grow by themselves and nobody
waits for a timer. When nobody waits, the disk need not either: a transaction that has voted, and will probably be
finished next, is brought to disk beforehand where the storage can do that. Only this thread writes to the storage
(rule 3 of the storage contract), and only the disk is waited for here: publishing, announcing and answering are done
in the server's loop, to which every outcome is posted.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Generic, NamedTuple, TypeVar

from zeo_core.errors import StorageClosedError, StorageError
from zeo_core.storage import Anticipates, Commits, WrittenGroup
from zeo_core.transaction import PreparedTransaction
from zeo_server.limits import DEFAULT_LIMITS, Limits

__all__ = ["ANTICIPATED_MAX_BYTES", "GroupWriter", "Outcome"]

ANTICIPATED_MAX_BYTES = 1024 * 1024
"""Bounds how long a finish waits for the writing of what was anticipated in vain."""

Key = TypeVar("Key")

_EXPECTED = (StorageError, OSError)  # the disk's and the file's troubles; anything else is a bug and gets a traceback

_log = logging.getLogger("ZEO.StorageServer")


class Outcome(NamedTuple, Generic[Key]):
    """What became of some transactions: `group` is on disk and waits to be published, or `error` says why not."""

    keys: Sequence[Key]
    group: WrittenGroup | None
    error: Exception | None
    seconds: float = 0.0  # that the writing took


class _Job(NamedTuple, Generic[Key]):
    key: Key
    transaction: PreparedTransaction
    size_bytes: int


class _Expected(NamedTuple):
    """A transaction that will probably be submitted."""

    transaction: PreparedTransaction


class GroupWriter(Generic[Key]):
    """Writes to one storage. A key is what the caller knows a transaction by.

    `post` is called in the writer's thread, with outcomes in the order in which they were written: it has to hand them
    to the loop.
    """

    def __init__(
        self,
        storage: Commits,
        post: Callable[[Outcome[Key]], None],
        name: str,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._storage = storage
        self._limits = limits
        self._anticipate = storage.anticipate if isinstance(storage, Anticipates) else None
        self._post = post
        self._jobs: SimpleQueue[_Job[Key] | _Expected | None] = SimpleQueue()
        # A daemon thread: `close` ends it in order, and if the process dies of a bug it must not linger on it.
        self._thread = threading.Thread(target=self._run, name=f"zeod writer {name}", daemon=True)
        self._thread.start()

    def submit(self, key: Key, transaction: PreparedTransaction, size_bytes: int) -> None:
        """Have a transaction written; its outcome will be posted."""
        self._jobs.put(_Job(key, transaction, size_bytes))

    def anticipate(self, transaction: PreparedTransaction, size_bytes: int) -> None:
        """Expect that this very transaction will be submitted next; one that never is does no harm."""
        if self._anticipate is not None and size_bytes <= ANTICIPATED_MAX_BYTES:
            self._jobs.put(_Expected(transaction))

    def close(self) -> None:
        """Write what was submitted, post the outcomes and end the thread; harmless when repeated. Blocks."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        job = self._jobs.get()
        while job is not None:
            if isinstance(job, _Expected):
                self._prepare(job.transaction)
                job = self._jobs.get()
                continue
            group, following = self._gather(job)
            self._write(group)
            job = following or self._jobs.get()

    def _prepare(self, transaction: PreparedTransaction) -> None:
        """Do as expected, unless something to be written for certain waits already."""
        if self._anticipate is None or not self._jobs.empty():
            return
        try:
            self._anticipate(transaction)
        except (StorageError, OSError) as error:
            # The write itself will say so to whom it concerns, should there be one.
            _log.info("a transaction was not written beforehand: %s", error)
        except Exception:  # noqa: BLE001 - a bug, but no reason for this thread to end
            _log.error("a transaction was not written beforehand", exc_info=True)

    def _gather(self, first: _Job[Key]) -> tuple[list[_Job[Key]], _Job[Key] | None]:
        """Return `first` with what waits behind it, and the job that no longer fits if there is one."""
        group, size = [first], first.size_bytes
        while len(group) < self._limits.group_max_transactions:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                break
            if job is None:
                self._jobs.put(None)  # the end is for the caller to see, after this group
                break
            if isinstance(job, _Expected):
                continue  # too much is going on for expectations
            size += job.size_bytes
            if size > self._limits.group_max_bytes:
                return group, job
            group.append(job)
        return group, None

    def _write(self, group: list[_Job[Key]]) -> None:
        keys = [job.key for job in group]
        start_s = time.perf_counter()
        try:
            written = self._storage.write_group([job.transaction for job in group])
        except StorageClosedError as error:
            self._post(Outcome(keys, None, error))
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            # The fault may be that of one transaction (too large for the room that is left, say): the others must not
            # suffer from the company they were in.
            if len(group) > 1:
                _log.warning(
                    "a group of %d transactions was not written, trying them one by one: %s", len(group), error
                )
                for job in group:
                    self._write([job])
            else:
                _log.error("a transaction was not written: %s", error, exc_info=not isinstance(error, _EXPECTED))
                self._post(Outcome(keys, None, error))
        else:
            self._post(Outcome(keys, written, None, time.perf_counter() - start_s))
