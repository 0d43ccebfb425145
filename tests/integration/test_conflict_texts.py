"""Conflicts as a program meets them, on a storage in memory, on a file, and over our server and ZEO's.

Whoever reads the log of an application has only the error's text: it names the object, its class and both serials.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from BTrees.Length import Length

from tests.client.objects import Node, Session, state_of
from tests.fixtures_runzeo import StartRunZEO
from tests.fixtures_zeod import StartZeod
from zeo_client.db import DB
from zeo_client.storage import ClientStorage
from zeo_core.errors import ConflictError, ReadConflictError
from zeo_core.ids import oid_repr, tid_repr
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

KINDS = ["memory", "file", "zeod", "runzeo"]

Databases = Callable[[], DB]
"""Gives another client's DB; where there are no clients, the one there is."""


@pytest.fixture(params=KINDS)
def databases(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Databases]:
    opened: list[DB] = []

    def keep(storage: Any) -> DB:
        opened.append(DB(storage))
        return opened[-1]

    if request.param == "memory":
        keep(MappingStorage())
        give = lambda: opened[0]  # noqa: E731
    elif request.param == "file":
        keep(FileStorage(str(tmp_path / "Data.fs")))
        give = lambda: opened[0]  # noqa: E731
    else:
        address = _serve(request, tmp_path)
        give = lambda: keep(ClientStorage(address))  # noqa: E731
    yield give
    for db in opened:
        db.close()


def _serve(request: pytest.FixtureRequest, directory: Path) -> Any:
    if request.param == "zeod":
        start_zeod: StartZeod = request.getfixturevalue("start_zeod")
        return start_zeod("-f", "Data.fs").address
    start_runzeo: StartRunZEO = request.getfixturevalue("start_runzeo")
    return start_runzeo(directory / "Data.fs").address


@pytest.fixture
def ann(databases: Databases) -> Session:
    return Session(databases())


@pytest.fixture
def bob(databases: Databases, ann: Session) -> Session:
    return Session(databases())


def follow(session: Session, name: str, serial: bytes) -> Any:
    """Begin transactions until the object of that name is of `serial`, which another client committed."""
    while True:
        session.conn.sync()
        obj = session.root.get(name)
        if obj is not None:
            obj._p_activate()
            if obj._p_serial == serial:
                return obj


def test_a_conflict_says_what_it_is_about(ann: Session, bob: Session) -> None:
    ann.root["a"] = Node(x=0)
    ann.commit()
    theirs = ann.root["a"]
    first = theirs._p_serial
    mine = follow(bob, "a", first)
    mine.x = 2
    theirs.x = 1
    ann.commit()
    with pytest.raises(ConflictError) as info:
        bob.commit()
    bob.manager.abort()
    text = str(info.value)
    assert f"oid {oid_repr(mine._p_oid)}" in text
    assert "class tests.client.objects.Node" in text
    assert f"serial this txn started with {tid_repr(first)}" in text
    assert f"serial currently committed {tid_repr(theirs._p_serial)}" in text
    assert follow(bob, "a", theirs._p_serial).x == 1


def test_a_read_conflict_says_what_it_is_about(ann: Session, bob: Session) -> None:
    ann.root["limit"], ann.root["a"] = Node(x=0), Node(x=0)
    ann.commit()
    theirs = ann.root["limit"]
    first = theirs._p_serial
    mine = follow(bob, "limit", first)
    bob.conn.readCurrent(mine)
    bob.root["a"].x = 2
    theirs.x = 1
    ann.commit()
    with pytest.raises(ReadConflictError) as info:
        bob.commit()
    assert state_of(mine) == "ghost"
    bob.manager.abort()
    text = str(info.value)
    assert f"oid {oid_repr(mine._p_oid)}" in text
    assert "class tests.client.objects.Node" in text
    assert f"serial this txn started with {tid_repr(first)}" in text
    assert f"serial currently committed {tid_repr(theirs._p_serial)}" in text


def test_what_was_resolved_is_loaded_again(ann: Session, bob: Session) -> None:
    ann.root["length"] = Length(0)
    ann.commit()
    mine = follow(bob, "length", ann.root["length"]._p_serial)
    mine.change(10)
    bob.manager.savepoint()
    ann.root["length"].change(1)
    ann.commit()
    bob.commit()
    assert mine() == 11
    assert follow(ann, "length", mine._p_serial)() == 11
