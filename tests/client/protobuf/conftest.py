"""Fixtures for objects with a message for a state: the format switched on, two connections."""

from collections.abc import Iterator

import pytest

from tests.client.objects import Session
from tests.client.protobuf.classes import Person
from zeo_client.db import DB
from zeo_client.protobuf import register


@pytest.fixture(autouse=True)
def _registered() -> None:
    register()


@pytest.fixture
def session(db: DB) -> Iterator[Session]:
    """A user with a transaction manager of its own."""
    opened = Session(db)
    yield opened
    opened.manager.abort()


@pytest.fixture
def bob(session: Session) -> Person:
    """A stored person, unchanged."""
    person = Person(name="Bob")
    session.root["bob"] = person
    session.commit()
    return person
