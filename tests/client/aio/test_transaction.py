"""Blocks: steps of one transaction in worker threads, between which the loop's code runs."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from transaction.interfaces import DoomedTransaction

import zeo_client.aio
from tests.client.aio.conftest import add, all_closed, value
from zeo_client.connection import Connection
from zeo_core.errors import ConflictError, ConnectionStateError

PATIENCE_S = 30


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A file: what is tested here is between the loop and the threads, and is the same with a server."""
    return str(tmp_path / "Data.fs")


class Held:
    """A step that adds 1, says so, and ends when it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self, conn: Connection) -> int:
        number = add(conn, 1)
        self.wait()
        return number

    def wait(self, _what: object = None) -> None:
        self.begun.set()
        assert self.go.wait(PATIENCE_S)

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, PATIENCE_S)


async def test_a_block_commits_at_its_end(adb: zeo_client.aio.DB) -> None:
    async with adb.transaction("a note", user="ann") as t:
        assert await t.call(add, 1) == 1
        await asyncio.sleep(0)
        assert await t.call(add, 2) == 3
        assert await adb.run(value) == 0
    assert await adb.run(value) == 3
    line = (await adb.call(type(adb.database).undoLog))[0]
    assert (line["description"], line["user_name"]) == ("a note", "ann")
    assert all_closed(adb)


async def test_an_error_in_a_block_aborts(adb: zeo_client.aio.DB) -> None:
    async def between_the_steps() -> None:
        async with adb.transaction() as t:
            await t.call(add, 1)
            raise ValueError("of the program")

    async def in_a_step() -> None:
        async with adb.transaction() as t:
            await t.call(add, 1)
            await t.call(lambda _conn: 1 / 0)

    with pytest.raises(ValueError, match="of the program"):
        await between_the_steps()
    with pytest.raises(ZeroDivisionError):
        await in_a_step()
    assert await adb.run(value) == 0
    assert all_closed(adb)


async def test_a_conflict_comes_out_of_a_block(adb: zeo_client.aio.DB) -> None:
    async def work() -> None:
        async with adb.transaction() as t:
            await t.call(add, 1)
            await adb.run(add, 10)

    with pytest.raises(ConflictError):
        await work()
    assert await adb.run(value) == 10
    assert all_closed(adb)


async def test_blocks_are_tried_again(adb: zeo_client.aio.DB) -> None:
    runs = 0
    async for block in adb.transaction(attempts=5):
        async with block as t:
            runs += 1
            await t.call(add, 1)
            if runs < 4:
                await adb.run(add, 10)
    assert (runs, await adb.run(value)) == (4, 31)
    assert all_closed(adb)


async def test_a_block_that_cannot_run_twice_says_so(adb: zeo_client.aio.DB) -> None:
    with pytest.raises(TypeError, match="cannot run twice"):
        async with adb.transaction(attempts=2):
            pass
    once = adb.transaction()
    async with once:
        pass
    with pytest.raises(TypeError, match="has been used"):
        async with once:
            pass


async def test_calls_take_turns(adb: zeo_client.aio.DB) -> None:
    async with adb.transaction() as t:
        await asyncio.gather(*(t.call(add, 1) for _ in range(20)))
    assert await adb.run(value) == 20


async def test_after_the_block_nothing_can_be_called(adb: zeo_client.aio.DB) -> None:
    async with adb.transaction() as t:
        pass
    with pytest.raises(ConnectionStateError, match="the transaction is over"):
        await t.call(add, 1)


async def test_the_end_waits_for_a_step_of_another_task_and_refuses_the_next(adb: zeo_client.aio.DB) -> None:
    step = Held()
    async with adb.transaction() as t:
        forgotten = asyncio.create_task(t.call(step))
        await step.has_begun()
        late = asyncio.create_task(t.call(add, 100))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(step.go.set)
    assert await forgotten == 1
    with pytest.raises(ConnectionStateError):
        await late
    assert await adb.run(value) == 1


async def test_no_more_blocks_are_open_than_asked_for(adb: zeo_client.aio.DB) -> None:
    open_now = most = 0

    async def use() -> None:
        nonlocal open_now, most
        async with adb.transaction() as t:
            open_now += 1
            most = max(most, open_now)
            await t.call(value)
            open_now -= 1

    await asyncio.gather(*(use() for _ in range(30)))
    assert most == 4
    assert all_closed(adb)


async def test_cancelled_in_a_step_it_waits_for_it_and_aborts(adb: zeo_client.aio.DB) -> None:
    step = Held()

    async def work() -> None:
        async with adb.transaction() as t:
            await t.call(step)

    task = asyncio.create_task(work())
    await step.has_begun()
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    step.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await adb.run(value) == 0
    assert all_closed(adb)


async def test_a_step_that_was_given_up_makes_the_commit_impossible(adb: zeo_client.aio.DB) -> None:
    step = Held()

    async def let_go() -> None:
        await step.has_begun()
        await asyncio.sleep(0.05)
        step.go.set()

    async def work() -> None:
        async with adb.transaction() as t:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(t.call(step), 0.01)
            await t.call(add, 1)

    letting_go = asyncio.create_task(let_go())
    with pytest.raises(DoomedTransaction):
        await work()
    await letting_go
    assert await adb.run(value) == 0
    assert all_closed(adb)


async def test_cancelled_between_steps_it_aborts(adb: zeo_client.aio.DB) -> None:
    between = asyncio.Event()

    async def work() -> None:
        async with adb.transaction() as t:
            await t.call(add, 1)
            between.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await between.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await adb.run(value) == 0
    assert all_closed(adb)


def hold_commit(conn: Connection, step: Held) -> None:
    add(conn, 1)
    conn.transaction_manager.get().addBeforeCommitHook(step.wait)


async def test_cancelled_in_its_commit_the_commit_goes_to_its_end(adb: zeo_client.aio.DB) -> None:
    step = Held()

    async def work() -> None:
        async with adb.transaction() as t:
            await t.call(hold_commit, step)

    task = asyncio.create_task(work())
    await step.has_begun()
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    step.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await adb.run(value) == 1
    assert all_closed(adb)


async def occupy(adb: zeo_client.aio.DB) -> Callable[[], None]:
    """Keep all workers busy until the function that is returned is called."""
    steps = [Held() for _ in range(4)]
    tasks = [asyncio.create_task(adb.call(step.wait)) for step in steps]
    for step in steps:
        await step.has_begun()

    def release() -> None:
        assert tasks
        for step in steps:
            step.go.set()

    return release


async def test_cancelled_before_its_commit_has_a_thread_it_aborts(adb: zeo_client.aio.DB) -> None:
    last = asyncio.Event()

    async def work() -> None:
        async with adb.transaction() as t:
            await t.call(add, 1)
            release.append(await occupy(adb))
            last.set()

    release: list[Callable[[], None]] = []
    task = asyncio.create_task(work())
    await last.wait()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    release[0]()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await adb.run(value) == 0
    assert all_closed(adb)


async def test_cancelled_before_it_has_begun_nothing_is_open(adb: zeo_client.aio.DB) -> None:
    release = await occupy(adb)

    async def work() -> None:
        async with adb.transaction() as t:
            await t.call(add, 1)

    tasks = [asyncio.create_task(work()) for _ in range(6)]  # two of them wait for a place, four for a thread
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in done] == [asyncio.CancelledError] * 6
    release()
    assert all_closed(adb)
    assert await adb.run(value) == 0
    await test_no_more_blocks_are_open_than_asked_for(adb)  # no place was lost


async def test_a_block_that_is_open_when_the_database_is_closed_loses_its_changes(url: str) -> None:
    async with zeo_client.aio.open(url) as db:
        await db.run(lambda conn: setattr(conn.root, "number", 0))
    db = await zeo_client.aio.open(url)

    async def work() -> None:
        async with db.transaction() as t:
            await t.call(add, 1)
            await db.close()

    with pytest.raises(ConnectionStateError):
        await work()
    async with zeo_client.aio.open(url) as db:
        assert await db.run(value) == 0
