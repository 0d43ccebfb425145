"""Records that wait in a file: what was added is what is read, whatever is written when; and what goes wrong."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.fixtures_small_disk import SmallDisk
from zeo_core.errors import StorageError, StorageFullError
from zeo_server.commit.spool import BLOCK_BYTES, Run, Spool, Spooling
from zeo_server.limits import Limits
from zeo_server.storages.demo import DemoStorage
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

KB, MB = 1 << 10, 1 << 20


class Sender:
    """A connection; `held` says whether it is read from."""

    def __init__(self) -> None:
        self.held = False
        self.holds = 0

    def hold(self) -> None:
        self.held = True
        self.holds += 1

    def release(self) -> None:
        self.held = False


def in_threads() -> Run:
    """What has threads of the running loop call functions."""
    loop = asyncio.get_running_loop()
    return lambda function: loop.run_in_executor(None, function)


def spool_in(path: Path, sender: Sender | None = None, queue_max_bytes: int = 4 * MB) -> Spool:
    return Spool(str(path), in_threads(), sender or Sender(), queue_max_bytes)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def settled(spool: Spool) -> None:
    """Wait until no thread works for the spool any more."""
    await until(lambda: not spool._writing)


async def discarded(spool: Spool) -> None:
    spool.discard()
    await until(lambda: spool._file is None and not spool._writing)


@pytest.mark.asyncio
async def test_what_was_added_is_what_is_read_in_any_order(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    data = [os.urandom(size) for size in (1, BLOCK_BYTES, 7, 3 * BLOCK_BYTES, 100, 100)]
    records = [spool.add(each) for each in data]
    assert [len(record) for record in records] == [len(each) for each in data]
    assert [record.read() for record in reversed(records)] == data[::-1]  # also what is not written yet
    spool.complete()
    assert [record.read() for record in records] == data
    assert spool.size_bytes == sum(map(len, data))
    await settled(spool)
    await discarded(spool)


@pytest.mark.asyncio
async def test_the_file_has_no_name(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.add(b"x" * BLOCK_BYTES)
    spool.complete()
    assert list(tmp_path.iterdir()) == []
    await settled(spool)
    await discarded(spool)


@pytest.mark.asyncio
async def test_small_records_are_written_together_and_only_then(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    for _ in range(BLOCK_BYTES // KB - 1):
        spool.add(b"x" * KB)
    await until(lambda: not spool._writing)
    assert spool._queued_bytes() == BLOCK_BYTES - KB
    spool.add(b"x" * KB)
    await until(lambda: spool._queued_bytes() == 0)
    await settled(spool)
    await discarded(spool)


@pytest.mark.asyncio
async def test_a_client_that_is_faster_than_the_disk_is_held_and_released(tmp_path: Path) -> None:
    sender = Sender()
    spool = spool_in(tmp_path, sender, queue_max_bytes=MB)
    with spool._lock:  # no thread gets on
        for _ in range(8):
            spool.add(b"x" * (MB // 2))
        assert sender.held
    await until(lambda: not sender.held)
    assert sender.holds
    await settled(spool)
    assert spool._queued_bytes() == 0
    await discarded(spool)


@pytest.mark.asyncio
async def test_nothing_is_read_after_the_end(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    record = spool.add(b"x" * BLOCK_BYTES)
    await discarded(spool)
    with pytest.raises(StorageError, match="after its end"):
        record.read()
    spool.complete()  # of a vote that comes too late: no harm


@pytest.mark.asyncio
async def test_a_full_disk_is_told_and_takes_no_memory(small_disk: Callable[[int], SmallDisk]) -> None:
    disk, sender = small_disk(4), Sender()
    spool = spool_in(disk.path, sender, queue_max_bytes=MB)
    records = [spool.add(b"x" * MB) for _ in range(8)]
    await settled(spool)
    assert (spool._queued_bytes(), sender.held) == (0, False)
    with pytest.raises(StorageFullError, match="No space left"):
        spool.complete()
    with pytest.raises(StorageFullError):
        records[0].read()
    spool.add(b"more")
    with pytest.raises(StorageFullError):
        spool.complete()
    assert disk.room() > 3 * MB  # what was written is gone already
    await discarded(spool)


@pytest.mark.asyncio
async def test_a_directory_that_is_gone_is_an_error_for_the_vote(tmp_path: Path) -> None:
    spool = spool_in(tmp_path / "gone")
    spool.add(b"x")
    with pytest.raises(StorageError, match="gone: No such file"):
        spool.complete()
    await discarded(spool)


def test_what_is_wanted_in_a_file(tmp_path: Path) -> None:
    limits = Limits(transaction_spool_bytes=1000, staged_memory_max_bytes=5000)
    with ThreadPoolExecutor() as threads, closing(FileStorage(tmp_path / "Data.fs")) as storage:
        run: Run = lambda function: asyncio.wrap_future(threads.submit(function))  # noqa: E731
        spooling = Spooling(storage, run, limits)
        assert spooling.grant(0, 1001) == 0
        assert spooling.grant(0, 100) == 200
        assert spooling.grant(200, 600) == 1000  # not more than one transaction may have
        assert spooling.memory_bytes == 1000
        spooling.memory_bytes = 4900
        assert spooling.grant(0, 101) == 0
        assert spooling.grant(0, 60) == 100  # all that is left
        assert spooling.memory_bytes == 5000
        assert spooling.grant(100, 200) == 0
        spooling.limits, spooling.memory_bytes = Limits(transaction_spool_bytes=0), 0
        assert spooling.grant(0, 1) == 0
        assert Spooling(MappingStorage(), run, spooling.limits, str(tmp_path)).grant(0, 1) > 1 << 40


def test_where_the_files_are(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with closing(FileStorage(tmp_path / "Data.fs")) as storage:
        assert storage.spool_directory() == str(tmp_path)
        assert DemoStorage(changes=storage).spool_directory() == str(tmp_path)
        assert DemoStorage().spool_directory() is None
