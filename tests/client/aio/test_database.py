"""The asynchronous DB with a real server: functions that are run, many tasks, cancellation anywhere, closing."""

import asyncio
import contextlib
import threading

import pytest

import zeo_client.aio
from tests.client.aio.conftest import add, all_closed, value
from tests.fixtures_zeod import StartZeod
from tests.proxy import Proxy
from zeo_client.connection import Connection
from zeo_client.db import DB
from zeo_core.errors import CommitInDoubtError, ConflictError, ConnectionStateError

PATIENCE_S = 30
TASKS = 100


async def test_run_commits_and_returns_the_result(adb: zeo_client.aio.DB) -> None:
    assert await adb.run(add, 5, note="five", user="ann", extension={"x": 1}) == 5
    assert await adb.run(value) == 5
    line = (await adb.call(DB.undoLog, 0, 1))[0]
    assert (line["description"], line["user_name"], line["x"]) == ("five", "ann", 1)


async def test_run_aborts_on_an_error(adb: zeo_client.aio.DB) -> None:
    def work(conn: Connection) -> None:
        add(conn, 1)
        raise ValueError("of the program")

    with pytest.raises(ValueError, match="of the program"):
        await adb.run(work)
    assert await adb.run(value) == 0
    assert all_closed(adb)


async def test_run_tries_again_up_to_the_last_attempt(adb: zeo_client.aio.DB) -> None:
    runs = 0

    def work(conn: Connection, conflicts: int) -> str:
        nonlocal runs
        runs += 1
        add(conn, 10)
        if runs <= conflicts:
            adb.database.run(lambda other: add(other, 1))
        return "done"

    assert await adb.run(work, 2) == "done"
    assert (runs, await adb.run(value)) == (3, 12)
    runs = 0
    with pytest.raises(ConflictError):
        await adb.run(work, 99, attempts=2)
    assert (runs, await adb.run(value)) == (2, 14)
    assert all_closed(adb)


async def test_a_hundred_tasks_count_exactly(adb: zeo_client.aio.DB) -> None:
    def both(conn: Connection) -> None:
        add(conn, 1)
        conn.root.length.change(1)

    await asyncio.gather(*(adb.run(both, attempts=200) for _ in range(TASKS)))
    assert await adb.run(lambda conn: (conn.root.number, conn.root.length())) == (TASKS, TASKS)
    assert all_closed(adb)


async def test_the_loop_is_free_while_the_server_is_slow(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    assert isinstance(server.address, tuple)
    with Proxy(server.address) as proxy:
        host, port = proxy.address
        async with zeo_client.aio.open(f"zeo://{host}:{port}") as db:
            await db.run(lambda conn: setattr(conn.root, "number", 0))
            held = threading.Event()
            # holds up what it is asked about, and cuts nothing
            proxy.cut_after = lambda data: b"tpc_finish" in data and not held.wait(PATIENCE_S)
            commit = asyncio.create_task(db.run(add, 1))
            ticks = 0
            while ticks < 100:  # the commit stands still meanwhile
                await asyncio.sleep(0.001)
                ticks += 1
            assert not commit.done()
            held.set()
            assert await commit == 1


async def test_a_commit_whose_reply_is_lost_is_not_applied_twice(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    assert isinstance(server.address, tuple)
    with Proxy(server.address) as proxy:
        host, port = proxy.address
        async with zeo_client.aio.open(f"zeo://{host}:{port}") as db:
            await db.run(lambda conn: setattr(conn.root, "number", 0))
            proxy.lose_reply_to = b"tpc_finish"
            with contextlib.suppress(CommitInDoubtError):
                await db.run(add, 1)
            assert await db.run(value) == 1


async def test_cancelled_in_the_function_nothing_is_committed(adb: zeo_client.aio.DB) -> None:
    begun, go = threading.Event(), threading.Event()

    def work(conn: Connection) -> None:
        add(conn, 1)
        begun.set()
        assert go.wait(PATIENCE_S)

    task = asyncio.create_task(adb.run(work))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await adb.run(value) == 0
    assert all_closed(adb)


async def test_cancelled_in_the_pause_between_attempts(adb: zeo_client.aio.DB) -> None:
    runs = 0

    def work(conn: Connection) -> None:
        nonlocal runs
        runs += 1
        add(conn, 1)
        adb.database.run(lambda other: add(other, 10))

    task = asyncio.create_task(adb.run(work, attempts=1_000_000))
    while runs < 3:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    seen = runs
    assert await adb.run(value) == 10 * seen
    assert all_closed(adb)


async def test_cancelled_at_any_time_it_has_ended_when_it_says_so(adb: zeo_client.aio.DB, url: str) -> None:
    committed = 0
    for step in range(60):
        task = asyncio.create_task(adb.run(add, 1))
        await asyncio.sleep(step * 0.0001)
        task.cancel()
        try:
            await task
            committed += 1
        except asyncio.CancelledError:
            now = await adb.run(value)
            assert committed <= now <= committed + 1  # the commit was under way, or it was not
            committed = now
        assert all_closed(adb)
    async with zeo_client.aio.open(url) as other:
        assert await other.run(value) == committed


async def test_closing_waits_for_what_runs_and_refuses_what_comes(url: str) -> None:
    db = await zeo_client.aio.open(url, workers=2)
    await db.run(lambda conn: setattr(conn.root, "number", 0))
    begun, go = threading.Event(), threading.Event()

    def work(conn: Connection) -> int:
        begun.set()
        assert go.wait(PATIENCE_S)
        return add(conn, 1)

    task = asyncio.create_task(db.run(work))
    await asyncio.to_thread(begun.wait)
    closing = asyncio.create_task(db.close())
    await asyncio.sleep(0)
    with pytest.raises(ConnectionStateError):
        db.changes()
    go.set()
    assert await task == 1
    await closing
    with pytest.raises(ConnectionStateError, match="closed"):
        await db.run(value)
    async with zeo_client.aio.open(url) as db:
        assert await db.run(value) == 1


async def test_a_synchronous_database_may_be_given() -> None:
    async with zeo_client.aio.DB(DB(None), workers=1) as db:
        await db.run(lambda conn: setattr(conn.root, "number", 0))
        assert await db.run(add, 1) == 1
    assert db.database.closed
