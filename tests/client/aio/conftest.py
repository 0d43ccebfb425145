"""Fixtures of the asynchronous face: a database on a real server, with a counter in it."""

from collections.abc import AsyncIterator

import pytest
from BTrees.Length import Length

import zeo_client.aio
from tests.fixtures_zeod import StartZeod
from zeo_client.connection import Connection

__all__ = ["adb", "add", "all_closed", "url", "value"]


@pytest.fixture
def url(start_zeod: StartZeod) -> str:
    """The address of a server with an empty database."""
    return start_zeod("-f", "Data.fs").url


@pytest.fixture
async def adb(url: str) -> AsyncIterator[zeo_client.aio.DB]:
    """A database whose root has a plain number and a Length, both 0."""
    async with zeo_client.aio.open(url, workers=4, transactions=4) as db:
        await db.run(_begin)
        yield db


def _begin(conn: Connection) -> None:
    conn.root.number = 0
    conn.root.length = Length()


def add(conn: Connection, number: int) -> int:
    """Add to the plain number, which conflicts with whoever else does."""
    conn.root.number += number
    return int(conn.root.number)


def value(conn: Connection) -> int:
    """Return the plain number."""
    return int(conn.root.number)


def all_closed(db: zeo_client.aio.DB) -> bool:
    """Tell whether every connection is back in the pool."""
    return all(conn.opened is None for conn in db.database.pool.everything())
