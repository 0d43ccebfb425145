"""Events: who is told of what, and what becomes of what they raise."""

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from zeo_client import DB, events
from zeo_client.events import DatabaseClosed, DatabaseEvent, DatabaseOpened
from zeo_core.errors import ConnectionStateError
from zeo_server.storages.mapping import MappingStorage


@pytest.fixture
def heard() -> Iterator[list[DatabaseEvent]]:
    told: list[DatabaseEvent] = []
    events.subscribers.append(told.append)
    yield told
    events.subscribers.remove(told.append)


def test_opening_and_closing_are_told_once(heard: list[DatabaseEvent]) -> None:
    db = DB(MappingStorage())
    assert heard == [DatabaseOpened(db)]
    db.close()
    db.close()
    assert heard == [DatabaseOpened(db), DatabaseClosed(db)]


def test_a_database_can_be_used_when_its_opening_is_told() -> None:
    def fill(event: DatabaseEvent) -> None:
        if isinstance(event, DatabaseOpened):
            with event.database.transaction() as conn:
                conn.root()["filled"] = True

    events.subscribers.append(fill)
    try:
        with DB(MappingStorage()) as db, db.transaction() as conn:
            assert conn.root()["filled"]
    finally:
        events.subscribers.remove(fill)


def test_what_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[DatabaseEvent] = []

    def fail(event: DatabaseEvent) -> None:
        seen.append(event)
        raise RuntimeError("a subscriber's fault")

    events.subscribers.append(fail)
    try:
        with pytest.raises(RuntimeError, match="a subscriber's fault"):
            DB(MappingStorage())
    finally:
        events.subscribers.remove(fail)
    opened, closed = seen
    assert isinstance(opened, DatabaseOpened)
    assert isinstance(closed, DatabaseClosed)
    assert "a subscriber of DatabaseClosed failed" in caplog.text
    with pytest.raises(ConnectionStateError):
        opened.database.open()


def test_who_uses_zope_event_is_told_there(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[DatabaseEvent] = []
    zope_event = ModuleType("zope.event")
    monkeypatch.setattr(zope_event, "notify", heard.append, raising=False)
    monkeypatch.setitem(sys.modules, "zope.event", zope_event)
    db = DB(MappingStorage())
    db.close()
    assert heard == [DatabaseOpened(db), DatabaseClosed(db)]
