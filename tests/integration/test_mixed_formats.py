"""A database half of pickles and half of protobuf messages that refer to each other, through all that befalls one."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from persistent import Persistent

from tests.fixtures_zeod import StartZeod
from tests.integration.test_node import Book, Contact, needed_node, run_node
from tests.server.cli.zeofs.run import zeofs
from zeo_client.db import DB
from zeo_client.protobuf import ProtobufPersistent, register
from zeo_client.protobuf.convert import Conversion
from zeo_core.record import format_name
from zeo_server.storages.file import FileStorage

APP = "zeod_tests_mixed_app"
BATCH = 5000

Shape = list[tuple[str, str, int, list[int]]]
"""Of each object in the book: its class, name, a number, and the places in the book of those it refers to."""


class PickledNote(Persistent):
    """A class as it was, with a pickle for its state."""


class Note(ProtobufPersistent, message=Contact):
    """The same class later."""


class Person(ProtobufPersistent, message=Contact):
    """A class with a message from the beginning."""


class AddressBook(ProtobufPersistent, message=Book):
    """What refers to them all."""


for each, name in ((PickledNote, "Note"), (Note, "Note"), (Person, "Person"), (AddressBook, "AddressBook")):
    each.__module__, each.__name__, each.__qualname__ = APP, name, name


@pytest.fixture
def app() -> Iterator[ModuleType]:
    """The application's module, with the class as it was."""
    register()
    module = sys.modules[APP] = ModuleType(APP)
    vars(module).update(Note=PickledNote, Person=Person, AddressBook=AddressBook)
    yield module
    del sys.modules[APP]


def fill(path: Path, count: int) -> None:
    """Make `count` objects, half of each format; each refers to two or three others, of either format."""
    with DB(FileStorage(path)) as db:
        for start in range(0, count, BATCH):
            with db.transaction() as conn:
                if start == 0:
                    conn.root()["book"] = AddressBook()
                here = [_made(number) for number in range(start, min(start + BATCH, count))]
                conn.root()["book"].contacts.extend(here)
                for number, obj in enumerate(here, start):
                    obj.guardians = [here[each] for each in _targets(number - start, len(here))]
                conn.root()["lost"] = [Person(name="lost"), PickledNote()]
        with db.transaction() as conn:
            del conn.root()["lost"]  # garbage of both formats, and old revisions
            contacts = conn.root()["book"].contacts
            for number in range(0, count, 10):
                contacts[number].seen = number + 1


def _made(number: int) -> Any:
    obj: Any = PickledNote() if number % 2 else Person()
    obj.name, obj.seen = f"number {number}", number
    return obj


def _targets(number: int, count: int) -> list[int]:
    return list(dict.fromkeys([(number * 7 + 1) % count, (number * 3 + 2) % count, count - 1 - number]))


def shape(path: Path) -> Shape:
    """Read everything through the object layer."""
    with DB(FileStorage(path, read_only=True), cache_size=100_000) as db, db.transaction() as conn:
        contacts = list(conn.root()["book"].contacts)
        places = {contact._p_oid: place for place, contact in enumerate(contacts)}
        return [
            (type(each).__name__, each.name, each.seen, [places[target._p_oid] for target in each.guardians])
            for each in contacts
        ]


def formats(path: Path) -> dict[str, int]:
    """Count the objects of each format."""
    found: dict[str, int] = {}
    storage = FileStorage(path, read_only=True)
    following = None
    while True:
        _, _, data, following = storage.record_iternext(following)
        found[format_name(data)] = found.get(format_name(data), 0) + 1
        if following is None:
            storage.close()
            return found


def expected(count: int) -> Shape:
    rows: Shape = []
    for number in range(count):
        start = number - number % BATCH
        length = min(BATCH, count - start)
        seen = number + 1 if number % 10 == 0 else number
        targets = [start + each for each in _targets(number - start, length)]
        rows.append(("Note" if number % 2 else "Person", f"number {number}", seen, targets))
    return rows


def is_whole(directory: Path, file: str) -> None:
    assert f"{file}: no faults" in zeofs(directory, "check", file)


def befall(path: Path, app: ModuleType, count: int) -> None:
    """Check, pack, back up, restore and convert, and see each time that everything is what it was."""
    directory = path.parent
    fill(path, count)
    wanted = expected(count)
    assert shape(path) == wanted
    is_whole(directory, path.name)
    zeofs(directory, "pack", path.name)
    assert shape(path) == wanted
    assert formats(path) == {"pickle": count // 2 + 1, "protobuf": count - count // 2 + 1}
    zeofs(directory, "backup", path.name, "backups")
    app.Note = Note  # type: ignore[attr-defined]
    assert shape(path) == wanted  # the present class reads what the one before has pickled
    done = Conversion(FileStorage(path), [f"{APP}.Note"])
    for steps in (done.check(), done.convert()):
        list(steps)
    done.close()
    assert (done.converted, done.fault_count) == (count // 2, 0)
    assert formats(path) == {"pickle": 1, "protobuf": count + 1}
    assert shape(path) == wanted
    zeofs(directory, "backup", path.name, "backups")
    zeofs(directory, "restore", "backups", "Restored.fs")
    assert (directory / "Restored.fs").read_bytes() == path.read_bytes()
    zeofs(directory, "pack", "--no-keep-old", path.name)
    is_whole(directory, path.name)
    assert formats(path) == {"pickle": 1, "protobuf": count + 1}
    assert shape(path) == wanted


def test_a_thousand_objects(tmp_path: Path, app: ModuleType) -> None:
    befall(tmp_path / "Data.fs", app, 1000)


@pytest.mark.slow
def test_fifty_thousand_objects(tmp_path: Path, app: ModuleType) -> None:
    befall(tmp_path / "Data.fs", app, 50_000)


@pytest.mark.node
@pytest.mark.parametrize("count", [1000, 50_000])
def test_node_reads_the_same(tmp_path: Path, app: ModuleType, start_zeod: StartZeod, count: int) -> None:
    node = needed_node()
    fill(tmp_path / "Data.fs", count)
    app.Note = Note  # type: ignore[attr-defined]
    done = Conversion(FileStorage(tmp_path / "Data.fs"), [f"{APP}.Note"])
    for steps in (done.check(), done.convert()):
        list(steps)
    done.close()
    rows = expected(count)
    lines = run_node(node, start_zeod("-f", "Data.fs")).splitlines()
    assert lines == [
        f"{name} ({APP}.{kind}): no address; guardians: {', '.join(rows[target][1] for target in targets)}"
        for kind, name, _, targets in rows
    ]
