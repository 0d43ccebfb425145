"""The asynchronous iterator of what was committed."""

import asyncio

import pytest

import zeo_client.aio
from tests.client.aio.conftest import add, value
from zeo_client.aio.changes import Changes
from zeo_client.connection import Connection
from zeo_client.snapshot import MAX_PENDING, InvalidationHub
from zeo_core.ids import pack_id

TID_1, TID_2, TID_3 = (pack_id(number) for number in (1, 2, 3))
A, B = pack_id(17), pack_id(18)
PATIENCE_S = 30


async def test_commits_of_this_and_of_other_clients_are_told(adb: zeo_client.aio.DB, url: str) -> None:
    changes = adb.changes()
    root = await adb.run(oid_of_root)
    await adb.run(add, 1)
    own = await asyncio.wait_for(anext(changes), PATIENCE_S)
    assert own.oids == frozenset({root})
    async with zeo_client.aio.open(url) as other:
        await other.run(add, 5)
    foreign = await asyncio.wait_for(anext(changes), PATIENCE_S)
    assert foreign.oids == frozenset({root})
    assert foreign.tid > own.tid
    assert await adb.run(value) == 6  # a transaction that is begun after the news sees it


def oid_of_root(conn: Connection) -> bytes:
    return bytes(conn.root()._p_oid)


async def test_what_comes_together_is_told_together() -> None:
    hub = InvalidationHub()
    changes = Changes(hub)
    hub.invalidate(TID_1, [A])
    hub.invalidate(TID_2, [B])
    assert await anext(changes) == (TID_2, frozenset({A, B}))
    hub.invalidate(TID_3, [])
    assert await anext(changes) == (TID_3, frozenset())


async def test_after_a_time_without_the_server_anything_may_have_changed() -> None:
    hub = InvalidationHub()
    changes = Changes(hub)
    hub.invalidate(TID_1, [A])
    hub.invalidateCache()
    assert await anext(changes) == (TID_1, None)
    hub.invalidate(TID_2, [B])
    assert await anext(changes) == (TID_2, frozenset({B}))


async def test_very_many_changes_are_any() -> None:
    hub = InvalidationHub()
    changes = Changes(hub)
    hub.invalidate(TID_1, [pack_id(number) for number in range(MAX_PENDING + 1)])
    assert await anext(changes) == (TID_1, None)


async def test_news_from_a_thread_wake_the_reader() -> None:
    hub = InvalidationHub()
    changes = Changes(hub)
    reader = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    await asyncio.to_thread(hub.invalidate, TID_1, [A])
    assert await asyncio.wait_for(reader, PATIENCE_S) == (TID_1, frozenset({A}))


async def test_closing_ends_the_iteration() -> None:
    hub = InvalidationHub()
    changes = Changes(hub)
    reader = asyncio.ensure_future(_all(changes))
    await asyncio.sleep(0)
    changes.close()
    assert await asyncio.wait_for(reader, PATIENCE_S) == 0
    hub.invalidate(TID_1, [A])
    with pytest.raises(StopAsyncIteration):
        await anext(changes)


async def _all(changes: Changes) -> int:
    return len([change async for change in changes])


async def test_closing_the_database_ends_the_iteration(url: str) -> None:
    async with zeo_client.aio.open(url) as db:
        reader = asyncio.create_task(_all(db.changes()))
        await asyncio.sleep(0)
    assert await asyncio.wait_for(reader, PATIENCE_S) == 0


def test_news_for_a_loop_that_has_ended_harm_nobody() -> None:
    hub = InvalidationHub()

    async def make() -> Changes:
        return Changes(hub)

    changes = asyncio.run(make())
    hub.invalidate(TID_1, [A])
    assert changes is not None
