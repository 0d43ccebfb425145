"""A program and two zeods: a reader's server is used while the writer's is away, and no longer than that."""

import threading
import time
from pathlib import Path

import pytest
from persistent.mapping import PersistentMapping
from transaction import TransactionManager

import zeo_client
from tests.client.peer import Background, until
from tests.fixtures_zeod import StartZeod, Zeod
from zeo_client import ClientDisconnected, ConflictError
from zeo_client.storage import ClientStorage
from zeo_core.errors import ReadOnlyError

_READERS = """
<zeo>
  address ./readers.sock
</zeo>
<filestorage 1>
  path Data.fs
  read-only true
</filestorage>
"""


class Site:
    """The writer's server and the reader's, on one file, one of which is always there."""

    def __init__(self, start: StartZeod, directory: Path) -> None:
        self._start = start
        self._directory = directory
        (directory / "readers.conf").write_text(_READERS)
        self.addresses = [str(directory / "readers.sock"), str(directory / "writers.sock")]
        self.writers = self._start_writers()
        self._readers: Zeod | None = None

    def fail(self) -> None:
        """The writer's server dies, and there is a reader's server with all that it has committed."""
        self.writers.kill()
        Path(self.addresses[1]).unlink(missing_ok=True)
        self._readers = self._start("-C", "readers.conf")

    def repair(self) -> None:
        """The writer's server is there again; the reader's knows nothing of what is committed from now on."""
        self.writers = self._start_writers()

    def retire(self) -> None:
        """The reader's server goes; a new one will know all."""
        assert self._readers is not None
        self._readers.stop()

    def _start_writers(self) -> Zeod:
        return self._start("-f", "Data.fs", "-a", "./writers.sock")


def connected(storage: ClientStorage, *, read_only: bool) -> bool:
    return storage.is_connected() and storage.read_only() is read_only


def test_a_program_reads_on_and_writes_again(start_zeod: StartZeod, tmp_path: Path) -> None:
    site = Site(start_zeod, tmp_path)
    polls = {"min_disconnect_poll": 0.02, "max_disconnect_poll": 0.1}
    storage = ClientStorage(list(site.addresses), read_only_fallback=True, reconnect_timeout=20, **polls)  # type: ignore[arg-type]
    with zeo_client.DB(storage) as db:
        for number in range(2):
            with db.transaction() as conn:
                conn.root()["number"] = number
            site.fail()
            until(lambda: connected(storage, read_only=True))
            with db.transaction() as conn:
                assert conn.root()["number"] == number
            manager = TransactionManager()
            conn = db.open(manager)
            conn.root()["number"] = -1
            with pytest.raises(ReadOnlyError):
                manager.commit()
            manager.abort()
            conn.close()
            site.repair()
            until(lambda: connected(storage, read_only=False))
            site.retire()


def test_threads_that_work_through_it_see_no_step_back(start_zeod: StartZeod, tmp_path: Path) -> None:
    """Two counters that are always changed together are never read apart, and never read smaller than before."""
    site = Site(start_zeod, tmp_path)
    polls = {"min_disconnect_poll": 0.02, "max_disconnect_poll": 0.1}
    storage = ClientStorage(list(site.addresses), read_only_fallback=True, reconnect_timeout=30, **polls)  # type: ignore[arg-type]
    over = threading.Event()
    with zeo_client.DB(storage) as db:
        with db.transaction() as conn:
            conn.root()["one"], conn.root()["two"] = (PersistentMapping(value=0), PersistentMapping(value=0))

        def write() -> int:
            done = 0
            while not over.is_set():
                try:
                    with db.transaction() as conn:
                        for name in ("one", "two"):
                            conn.root()[name]["value"] += 1
                    done += 1
                except ReadOnlyError:
                    time.sleep(0.01)  # until there is a writer's server; not too much of the processor meanwhile
                except (ClientDisconnected, ConflictError):
                    pass
            return done

        def read() -> int:
            seen = -1
            while not over.is_set():
                try:
                    with db.transaction() as conn:
                        conn.cacheMinimize()
                        one, two = (conn.root()[name]["value"] for name in ("one", "two"))
                except (ClientDisconnected, ConflictError):
                    continue
                assert one == two >= seen
                seen = one
                time.sleep(0.001)  # the processor is the writer's
            return seen

        workers = [Background(target) for target in (write, read, read)]
        for _ in range(2):
            before = number_of(db)
            until(lambda before=before: number_of(db) > before or ended(workers))  # type: ignore[misc]
            site.fail()
            until(lambda: connected(storage, read_only=True))
            site.repair()
            until(lambda: connected(storage, read_only=False))
            site.retire()
        over.set()
        assert all(worker.result() for worker in workers)


def ended(workers: list[Background]) -> bool:
    """Raise what ended a worker too early; false if they are all at work."""
    for worker in workers:
        if worker.done():
            worker.result()
    return False


def number_of(db: zeo_client.DB) -> int:
    """Return the first counter's value; the server may be away for a moment."""
    while True:
        try:
            with db.transaction() as conn:
                return int(conn.root()["one"]["value"])
        except (ClientDisconnected, ConflictError):
            continue
