"""Converting pickled objects to ones with a message: what comes out is what was there, and nothing is half done."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import transaction
from persistent import Persistent
from persistent.list import PersistentList
from persistent.mapping import PersistentMapping
from persistent.wref import WeakRef

from tests.proto_compiler import messages
from zeo_client.db import DB
from zeo_client.protobuf import ProtobufPersistent, register
from zeo_client.protobuf.convert import Conversion
from zeo_core.errors import ReadOnlyError
from zeo_core.record import format_name
from zeo_core.storage import Progress
from zeo_server.storages.file import FileStorage

SCHEMA = Path(__file__).parent.parent.parent.parent / "examples" / "node" / "contacts.proto"
ContactPB: Any = messages(SCHEMA)["contacts.ContactPB"]
APP = "zeod_tests_convert_app"
NAME = f"{APP}.Contact"


class Pickled(Persistent):
    """The class as it was."""

    __module__ = APP
    __qualname__ = __name__ = "Contact"


class WithMessage(ProtobufPersistent, message=ContactPB):
    """The class as it is now; what was called `town` is in the address now."""

    __module__ = APP
    __qualname__ = __name__ = "Contact"

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict) and "town" in state:
            state = {**state, "address": {"city": state["town"]}}
            del state["town"]
        super().__setstate__(state)


Pickled.__name__ = WithMessage.__name__ = "Contact"


@pytest.fixture
def app() -> Iterator[ModuleType]:
    """The application's module, with the class as it was."""
    register()
    module = sys.modules[APP] = ModuleType(APP)
    module.Contact = Pickled  # type: ignore[attr-defined]
    yield module
    del sys.modules[APP]


@pytest.fixture
def path(tmp_path: Path, app: ModuleType) -> Path:
    """A database of before; the application's class has a message now."""
    path = tmp_path / "Data.fs"
    with DB(FileStorage(path)) as db, db.transaction() as conn:
        root = conn.root()
        root["contacts"] = contacts = PersistentList()
        for number in range(25):
            contact: Any = Pickled()
            contact.name, contact.seen = f"contact {number}", number
            if number % 2:
                contact.guardians = PersistentList([contacts[number - 1], contacts[0], WeakRef(contacts[number - 1])])
            elif number:
                contact.town = "Xanten"
                contact.guardians = [root["contacts"]]  # of a class that stays pickled
            contacts.append(contact)
    app.Contact = WithMessage  # type: ignore[attr-defined]
    return path


def run(steps: Iterator[Progress]) -> list[Progress]:
    return list(steps)


def formats(path: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    storage = FileStorage(path, read_only=True)
    following = None
    while True:
        _, _, data, following = storage.record_iternext(following)
        found[format_name(data)] = found.get(format_name(data), 0) + 1
        if following is None:
            storage.close()
            return found


def check(path: Path) -> None:
    """See that the contacts are what they were."""
    with DB(FileStorage(path, read_only=True)) as db, db.transaction() as conn:
        contacts = conn.root()["contacts"]
        for number, contact in enumerate(contacts):
            assert type(contact) is WithMessage
            assert (contact.name, contact.seen) == (f"contact {number}", number)
            if number % 2:
                before, first, weak = contact.guardians
                assert before is contacts[number - 1]
                assert first is contacts[0]
                assert weak() is before
            elif number:
                assert contact.address.city == "Xanten"
                assert list(contact.guardians) == [contacts]


def test_pickled_objects_get_messages_and_keep_what_they_refer_to(path: Path) -> None:
    done = Conversion(FileStorage(path), [NAME], batch=10)
    run(done.check())
    assert (done.found, done.already, done.fault_count, done.converted) == (25, 0, 0, 0)
    assert 0 < done.message_bytes < done.pickled_bytes
    run(done.convert())
    assert done.converted == 25
    done.close()
    assert formats(path)["protobuf"] == 25
    check(path)
    with DB(FileStorage(path)) as db:
        assert [entry["description"] for entry in db.undoLog(0, 3)] == [
            "5 objects converted to protobuf",
            "10 objects converted to protobuf",
            "10 objects converted to protobuf",
        ]


def test_a_check_writes_nothing_and_needs_no_more_than_to_read(path: Path) -> None:
    before = path.read_bytes()
    done = Conversion(FileStorage(path, read_only=True), [NAME])
    run(done.check())
    assert done.found == 25
    with pytest.raises(ReadOnlyError):
        run(done.convert())
    done.close()
    assert path.read_bytes() == before


def test_an_interrupted_conversion_is_gone_on_with(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(self: Any, state: Any) -> None:
        loaded.append(self)
        if len(loaded) == 15:
            raise KeyboardInterrupt
        set_state(self, state)

    done = Conversion(FileStorage(path), [NAME], batch=10)
    run(done.check())
    set_state = WithMessage.__setstate__
    monkeypatch.setattr(WithMessage, "__setstate__", load)
    with pytest.raises(KeyboardInterrupt):
        run(done.convert())
    done.close()
    monkeypatch.undo()
    assert (done.converted, formats(path)["protobuf"]) == (10, 10)
    check(path)  # some of each read as well
    again = Conversion(FileStorage(path), [NAME])
    run(again.check())
    assert (again.found, again.already) == (15, 10)
    run(again.convert())
    assert again.converted == 15
    run(again.check())
    assert (again.found, again.already) == (0, 25)
    again.close()
    check(path)


def test_what_cannot_be_converted_is_told_and_left(path: Path, app: ModuleType) -> None:
    app.Contact = Pickled  # type: ignore[attr-defined]
    with DB(FileStorage(path)) as db, db.transaction() as conn:
        contacts = conn.root()["contacts"]
        contacts[3].shoe_size = 42
        contacts[4].seen = "often"
        contacts[5].guardians = ["no object"]
    app.Contact = WithMessage  # type: ignore[attr-defined]
    done = Conversion(FileStorage(path), [NAME])
    run(done.check())
    assert (done.found, done.fault_count) == (25, 3)
    reasons = sorted(fault.reason for fault in done.faults)
    assert "contacts.ContactPB has no field 'shoe_size'" in "".join(reasons)
    assert {fault.class_name for fault in done.faults} == {NAME}
    run(done.convert())
    assert done.converted == 22
    done.close()
    assert formats(path)["protobuf"] == 22


def test_a_class_without_a_message_is_told(path: Path, app: ModuleType) -> None:
    app.Contact = Pickled  # type: ignore[attr-defined]
    done = Conversion(FileStorage(path, read_only=True), [NAME])
    run(done.check())
    assert done.fault_count == 25
    assert done.faults[0].reason == f"TypeError: {NAME} has no protobuf message for a state"
    del app.Contact
    run(done.check())
    assert done.fault_count == 25
    done.close()


def test_only_the_named_classes_are_touched(path: Path) -> None:
    done = Conversion(FileStorage(path), ["persistent.list.PersistentList", f"{APP}.Other"])
    run(done.check())
    assert (done.found, done.fault_count) == (13, 13)
    run(done.convert())
    assert done.converted == 0
    done.close()


def test_progress_is_told(tmp_path: Path, app: ModuleType) -> None:
    path = tmp_path / "Data.fs"
    with DB(FileStorage(path)) as db, db.transaction() as conn:
        conn.root()["many"] = PersistentMapping({number: PersistentMapping() for number in range(2500)})
    done = Conversion(FileStorage(path), [NAME])
    assert [step[:2] for step in run(done.check())] == [("checking", 1000), ("checking", 2000)]
    assert [step.phase for step in run(done.convert())] == ["converting", "converting"]
    done.close()


def test_the_transactions_of_the_thread_are_left_alone(path: Path) -> None:
    before = transaction.get()
    done = Conversion(FileStorage(path), [NAME])
    run(done.check())
    run(done.convert())
    done.close()
    assert transaction.get() is before
