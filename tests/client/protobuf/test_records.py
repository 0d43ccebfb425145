"""Records with a message for a state, written and read. The expected bytes are written by hand."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transaction
from persistent.mapping import PersistentMapping
from persistent.wref import WeakRef

from tests.client.objects import Node, Session, state_of, write
from tests.client.protobuf.classes import Adder, PContactWithGetNewArgs, Person
from tests.client.protobuf.schemas import PersonPB
from zeo_client import state_formats
from zeo_client.blob import Blob
from zeo_client.broken import PersistentBroken
from zeo_client.db import DB
from zeo_client.protobuf import BrokenReferenceError, ProtobufPersistent, register
from zeo_client.protobuf.records import ProtobufRecords
from zeo_core.errors import InvalidObjectReference, RecordFormatError, StateLoadError, UnpicklableError
from zeo_core.ids import pack_id
from zeo_core.record import class_name, references
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

CLASS = b"\n\x1dtests.client.protobuf.classes\x12\x06Person"


def record_of(storage: MappingStorage, obj: Any) -> bytes:
    data: bytes = storage.load(obj._p_oid, "")[0]
    return data


def stored(session: Session, **people: Any) -> None:
    session.root.update(people)
    session.commit()


def test_a_record_is_what_the_format_says(session: Session, storage: MappingStorage, bob: Person) -> None:
    assert bob._p_oid == pack_id(1)
    assert record_of(storage, bob) == b"{protobuf}\n\x27" + CLASS + b"\x12\x05\n\x03Bob"


def test_references_are_written_in_full(session: Session, storage: MappingStorage, bob: Person) -> None:
    alice = Person(name="Alice")
    bob.friends = [alice, WeakRef(alice), PersistentMapping(), Adder(3)]
    session.commit()
    mapping = b"\n\x12persistent.mapping\x12\x11PersistentMapping"
    assert record_of(storage, bob) == (
        b"{protobuf}\n\x27"
        + CLASS
        + b"\x12\x15\n\x03Bob"
        + b"r\x02\x08\x01r\x02\x08\x02r\x02\x08\x03r\x02\x08\x04"
        + b"\x1a\x2d\x08\x01\x10\x02\x1a\x27"
        + CLASS
        + b"\x1a\x06\x08\x02\x10\x02\x28\x01"
        + b"\x1a\x2d\x08\x03\x10\x03\x1a\x27"
        + mapping
        + b"\x1a\x04\x08\x04\x10\x04"
    )
    assert references(record_of(storage, bob)) == [pack_id(2), pack_id(3), pack_id(4)]
    assert class_name(record_of(storage, bob)) == "tests.client.protobuf.classes.Person"


def test_ghosts_are_made_without_a_load_where_the_class_is_told(db: DB, session: Session, bob: Person) -> None:
    bob.friends = [Person(name="Alice"), Adder(3)]
    bob.spouse = WeakRef(bob)
    session.commit()
    conn = Session(db).conn
    other = conn.root()["bob"]
    alice, adder = other.friends
    assert state_of(alice) == "ghost"
    assert (type(alice), alice._p_jar, alice._p_oid) == (Person, conn, bob.friends[0]._p_oid)
    assert adder.add(4) == 7
    assert type(other.spouse) is WeakRef
    assert other.spouse() is other
    assert alice.name == "Alice"


def test_pickled_objects_and_these_refer_to_each_other(db: DB, session: Session, bob: Person) -> None:
    bob.spouse = Node(back=bob)
    session.commit()
    other = Session(db).root["bob"]
    assert other.spouse.back is other


@pytest.fixture
def beta(db: DB) -> Iterator[DB]:
    """Another database, open together with the first."""
    with DB(MappingStorage(), database_name="beta", databases=db.databases) as opened:
        yield opened


def test_references_into_other_databases(
    db: DB, beta: DB, session: Session, storage: MappingStorage, bob: Person
) -> None:
    root = session.conn.get_connection("beta").root()
    root["bob"], root["adder"] = Person(name="Other"), Adder(1)
    session.commit()
    bob.friends = [root["bob"], root["adder"]]
    session.commit()
    data = record_of(storage, bob)
    assert data.endswith(
        b"\x1a\x33\x08\x01\x10\x01\x1a\x27" + CLASS + b"\x22\x04beta" + b"\x1a\x0a\x08\x02\x10\x02\x22\x04beta"
    )
    assert references(data) == []
    other = Session(db).root["bob"]
    assert state_of(other.friends[0]) == "ghost"
    assert (other.friends[0].name, other.friends[1].add(1)) == ("Other", 2)
    assert other.friends[0]._p_jar.db() is beta
    bob.friends = [WeakRef(root["bob"])]
    with pytest.raises(UnpicklableError, match="no weak references into other databases"):
        session.commit()


@pytest.mark.parametrize("wrong", [{}, 7, "text", [1]])
def test_a_target_that_is_not_persistent_is_refused_and_an_abort_repairs(
    session: Session, bob: Person, wrong: Any
) -> None:
    bob.friends.append(wrong)
    with pytest.raises(InvalidObjectReference, match="target is not a persistent object") as caught:
        session.commit()
    assert repr(wrong) in str(caught.value)
    assert "Person" in str(caught.value)
    session.manager.abort()
    assert len(bob.friends) == 0
    bob.friends.append(bob)
    session.commit()


def test_a_broken_reference_is_refused_in_the_first_phase(session: Session, bob: Person) -> None:
    bob.protobuf.spouse._p_refid = 7
    with pytest.raises(BrokenReferenceError) as caught:
        session.commit()
    assert any("tests.client.protobuf.classes.Person" in note for note in caught.value.__notes__)
    session.manager.abort()
    assert bob.spouse is None


def test_a_class_with_arguments_for_new_cannot_be_stored(session: Session) -> None:
    contact = PContactWithGetNewArgs()
    contact.name = "Loser"
    session.root["x"] = contact
    with pytest.raises(UnpicklableError, match="cannot have __getnewargs__"):
        session.commit()
    session.manager.abort()


def test_a_class_that_nobody_will_find_cannot_be_stored(session: Session) -> None:
    class Local(ProtobufPersistent, message=PersonPB):
        pass

    session.conn.add(Local())
    with pytest.raises(UnpicklableError, match="is not found under its name"):
        session.commit()
    session.manager.abort()


def test_a_blob_is_known_by_the_name_that_all_know_it_by(session: Session, bob: Person) -> None:
    blob = Blob()
    session.conn._commit.adopt(blob)
    state = Person(spouse=blob).__getstate__()
    data = ProtobufRecords().record(bob, state, lambda obj: (obj._p_oid, type(obj)))
    assert b"\n\x09ZODB.blob\x12\x04Blob" in data


def test_objects_whose_class_is_gone_are_kept_and_stored_again(
    db: DB, session: Session, storage: MappingStorage, bob: Person
) -> None:
    bob.spouse = Person(name="Alice")
    session.commit()
    gone = {bob._p_oid: record_of(storage, bob).replace(b"Person", b"Absent", 1)}
    write(storage, gone)
    session.manager.begin()
    other = Session(db)
    absent = other.conn.get(bob._p_oid)
    assert isinstance(absent, PersistentBroken)
    data, targets = absent.__Broken_state__
    assert data.startswith(b"\n\x03Bob")
    assert targets[1].name == "Alice"
    absent._p_changed = True
    other.commit()
    assert record_of(storage, absent) == gone[bob._p_oid]


def test_savepoints_keep_and_take_back(session: Session, bob: Person) -> None:
    bob.friends.append(Person(name="Alice"))
    savepoint = session.manager.savepoint()
    bob.friends.append(Person(name="Carol"))
    session.conn.cacheMinimize()
    savepoint.rollback()
    assert [each.name for each in bob.friends] == ["Alice"]
    session.commit()
    assert [each.name for each in bob.friends] == ["Alice"]


def test_a_new_object_that_a_rollback_disowns_keeps_its_state(session: Session, bob: Person) -> None:
    savepoint = session.manager.savepoint()
    alice = Person(name="Alice", spouse=Person(name="Carol"))
    bob.spouse = alice
    session.manager.savepoint()
    session.conn.cacheMinimize()
    savepoint.rollback()
    assert alice._p_jar is None
    assert (alice.name, alice.spouse.name) == ("Alice", "Carol")
    bob.spouse = alice
    session.commit()


def test_exports_are_taken_in_with_fresh_oids(db: DB, session: Session, bob: Person) -> None:
    bob.friends = [Person(name="Alice"), WeakRef(bob)]
    bob.spouse = Node(back=bob)
    session.commit()
    with session.conn.exportFile(bob._p_oid) as file:
        file.seek(0)
        copied = session.conn.importFile(file)
    session.root["copy"] = copied
    session.commit()
    other = Session(db).root["copy"]
    assert other._p_oid != bob._p_oid
    assert (other.name, other.friends[0].name, other.friends[1]() is other) == ("Bob", "Alice", True)
    assert other.spouse.back is other
    assert other.friends[0]._p_oid != bob.friends[0]._p_oid


def test_a_reference_into_another_database_stays_in_an_import(db: DB, beta: DB, session: Session, bob: Person) -> None:
    root = session.conn.get_connection("beta").root()
    root["x"] = Person(name="Other")
    session.commit()
    bob.spouse = root["x"]
    session.commit()
    with session.conn.exportFile(bob._p_oid) as file:
        file.seek(0)
        assert session.conn.importFile(file).spouse is root["x"]
    session.manager.abort()


def test_the_past_of_an_object_can_be_read(session: Session, bob: Person) -> None:
    tid = bob._p_serial
    bob.name = "Robert"
    session.commit()
    assert session.conn.oldstate(bob, tid) == (b"\n\x03Bob", {})


def test_changes_of_different_fields_are_merged(tmp_path: Path) -> None:
    with DB(FileStorage(str(tmp_path / "merged.fs"), create=True)) as db:
        one = Session(db)
        stored(one, bob=Person(name="Bob", friends=[Person(name="Alice")]))
        other = Session(db)
        one.root["bob"].name = "Robert"
        other.root["bob"].spouse = other.root["bob"].friends[0]
        one.commit()
        other.commit()
        bob = other.root["bob"]
        assert (bob.name, bob.spouse is bob.friends[0], state_of(bob)) == ("Robert", True, "clean")


def test_registering_again_changes_nothing(session: Session, storage: MappingStorage, bob: Person) -> None:
    register()
    register()
    bob.name = "x"
    session.commit()
    assert record_of(storage, bob).startswith(b"{protobuf}")


def test_where_the_format_is_off_states_are_pickled_and_its_records_refused(
    db: DB, session: Session, storage: MappingStorage, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_formats, "_by_mark", {})
    for state_type in list(state_formats.STATE_FORMATS):
        monkeypatch.delitem(state_formats.STATE_FORMATS, state_type)
    stored(session, alice=Person(name="Alice", spouse=bob))
    data = record_of(storage, session.root["alice"])
    assert not data.startswith(b"{protobuf}")
    assert references(data) == [bob._p_oid]
    other = Session(db).root
    assert other["alice"].name == "Alice"
    with pytest.raises(StateLoadError, match=r"call zeo_client.protobuf.register\(\) first"):
        other["bob"].name  # noqa: B018
    register()
    assert other["bob"].name == "Bob"
    other["alice"].age = 3
    transaction.abort()


def test_without_the_package_the_import_says_what_to_install() -> None:
    program = "import sys; sys.modules['google.protobuf'] = None; import zeo_client; import zeo_client.protobuf"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "ImportError: zeo_client.protobuf needs the package protobuf: pip install zeod[protobuf]" in done.stderr


def test_a_damaged_record_is_an_error() -> None:
    with pytest.raises(RecordFormatError):
        ProtobufRecords().state(b"{protobuf}\n", lambda reference: reference)
