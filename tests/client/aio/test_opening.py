"""Opening and closing."""

import asyncio
import threading
from pathlib import Path

import pytest

import zeo_client.aio
from tests.client.aio.conftest import value
from tests.fixtures_zeod import StartZeod
from zeo_client.connection import Connection
from zeo_core.errors import ClientDisconnected, ConfigurationError


def begin(conn: Connection) -> None:
    conn.root.number = 7


async def test_a_block_opens_and_closes(tmp_path: Path) -> None:
    async with zeo_client.aio.open(tmp_path / "Data.fs") as db:
        await db.run(begin)
    assert db.database.closed
    async with zeo_client.aio.open(str(tmp_path / "Data.fs"), storage_options={"read_only": True}) as db:
        assert await db.run(value) == 7
        assert repr(db).startswith("<zeo_client.aio.DB 'unnamed' on ")


async def test_it_may_be_awaited_and_closed_later() -> None:
    db = await zeo_client.aio.open("memory://")
    await db.run(begin)
    await db.close()
    await db.close()
    assert db.database.closed


async def test_there_are_as_many_connections_as_may_be_in_use() -> None:
    async with zeo_client.aio.open("memory://", workers=3, transactions=4) as db:
        assert db.database.getPoolSize() == 7
    async with zeo_client.aio.open("memory://", pool_size=2) as db:
        assert db.database.getPoolSize() == 2


async def test_a_place_that_cannot_be_opened() -> None:
    with pytest.raises(ConfigurationError):
        await zeo_client.aio.open("nothing://")
    with pytest.raises(ClientDisconnected):
        async with zeo_client.aio.open("zeo://127.0.0.1:1", wait_timeout=0.1):
            raise AssertionError("opened")
    with pytest.raises(ValueError, match="transactions must be at least 1"):
        await zeo_client.aio.open("memory://", transactions=0)


async def test_no_thread_is_left(tmp_path: Path, start_zeod: StartZeod) -> None:
    url = start_zeod("-f", "Data.fs").url
    async with zeo_client.aio.open(url) as db:
        await asyncio.gather(*(db.run(begin, attempts=20) for _ in range(10)))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("zeo_client.aio", "zeod"))]


async def test_cancelled_while_it_waits_for_a_server() -> None:
    async def use() -> None:
        async with zeo_client.aio.open("zeo://127.0.0.1:1", wait_timeout=0.3):
            raise AssertionError("opened")

    task = asyncio.create_task(use())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_while_it_opens_it_is_closed_again(tmp_path: Path) -> None:
    task = asyncio.ensure_future(zeo_client.aio.open(tmp_path / "Data.fs")._open())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with zeo_client.aio.open(tmp_path / "Data.fs") as db:  # its lock is free
        await db.run(begin)
