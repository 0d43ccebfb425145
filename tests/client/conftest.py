"""Fixtures of the object layer: a database in memory."""

from collections.abc import Iterator

import pytest
import transaction

from tests.client.objects import Session
from zeo_client.connection import Connection
from zeo_client.db import DB
from zeo_server.storages.mapping import MappingStorage


@pytest.fixture
def storage() -> MappingStorage:
    return MappingStorage()


@pytest.fixture
def db(storage: MappingStorage) -> Iterator[DB]:
    """A database; the thread's own transaction is aborted after the test."""
    with DB(storage) as opened:
        yield opened
        transaction.abort()


@pytest.fixture
def conn(db: DB) -> Connection:
    """A connection in the thread's own transaction."""
    return db.open()


@pytest.fixture
def ann(db: DB) -> Session:
    """A user."""
    return Session(db)


@pytest.fixture
def bob(db: DB) -> Session:
    """Another one."""
    return Session(db)
