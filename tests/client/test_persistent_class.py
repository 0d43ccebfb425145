"""Classes in the database: stored, loaded, changed and forgotten as objects are."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import ZODB
import ZODB.persistentclass
from persistent import Persistent

from tests.client.objects import Session
from zeo_client.db import DB
from zeo_client.persistent_class import PersistentMetaClass
from zeo_core.record import class_name
from zeo_server.storages.mapping import MappingStorage


def make(name: str = "Invoice", base: Any = Persistent, metaclass: Any = PersistentMetaClass, **attributes: Any) -> Any:
    """Make a class whose instances refer to it, since it is in no module."""
    return metaclass(name, (base,), {"__module__": "", **attributes})


@pytest.fixture
def other(db: DB) -> Iterator[Session]:
    """A connection that has nothing in its cache yet."""
    with DB(db.storage) as again:
        yield Session(again)


def test_a_class_and_its_instances(ann: Session, other: Session) -> None:
    cls = make(color="green")
    ann.root["class"] = cls
    ann.root["instance"] = cls()
    ann.root["instance"].number = 1
    ann.commit()
    assert (cls._p_oid is not None, cls._p_jar, cls._p_changed) == (True, ann.conn, False)
    other.manager.begin()
    loaded = other.root["class"]
    assert loaded is not cls
    assert (loaded.__name__, loaded.__bases__, loaded.color) == ("Invoice", (Persistent,), "green")
    assert type(other.root["instance"]) is loaded
    assert other.root["instance"].number == 1
    assert loaded._p_oid == cls._p_oid


def test_a_change_is_stored_and_seen_by_others_and_an_abort_undoes_it(ann: Session, bob: Session) -> None:
    ann.root["class"] = cls = make(color="green", size=1)
    ann.commit()
    bob.manager.begin()
    seen = bob.root["class"]
    cls.color = "blue"
    del cls.size
    cls._v_note = "of no transaction"
    assert cls._p_changed is True
    ann.commit()
    assert seen.color == "green"
    bob.manager.begin()
    assert seen.color == "blue"
    assert not hasattr(seen, "size")
    assert not hasattr(seen, "_v_note")
    cls.color, cls.more = "red", 1
    ann.manager.abort()
    assert (cls.color, hasattr(cls, "more"), cls._p_changed) == ("blue", False, False)
    bob.conn.cacheMinimize()
    assert (seen.color, seen._p_changed) == ("blue", False)


def test_a_class_may_refer_to_itself_and_to_others(ann: Session, other: Session) -> None:
    cls = make()
    cls.me, cls.derived = cls, make("Special", cls)
    ann.root["class"] = cls
    ann.commit()
    other.manager.begin()
    loaded = other.root["class"]
    assert loaded.me is loaded
    assert issubclass(loaded.derived, loaded)


def test_a_new_class_goes_with_an_abort(ann: Session) -> None:
    ann.root["class"] = cls = make()
    ann.manager.savepoint()
    assert cls._p_oid is not None
    ann.manager.abort()
    assert (cls._p_oid, cls._p_jar) == (None, None)
    ann.root["class"] = cls
    ann.commit()
    assert cls._p_jar is ann.conn


def test_bases_may_change(ann: Session, bob: Session) -> None:
    first, second = make("First"), make("Second", size=1)
    ann.root["classes"] = [first, second]
    ann.root["class"] = cls = make("Child", first)
    ann.commit()
    bob.manager.begin()
    seen = bob.root["class"]
    type.__setattr__(cls, "__bases__", (second,))
    cls._p_changed = True
    ann.conn.register(cls)
    ann.commit()
    bob.manager.begin()
    assert seen.size == 1


def test_what_belongs_to_the_class_cannot_be_assigned() -> None:
    cls = make()
    for name in ("__getstate__", "__setstate__", "__getnewargs__", "_p_activate", "_p_invalidate", "_p_deactivate"):
        with pytest.raises(AttributeError, match="of a persistent class cannot be changed"):
            setattr(cls, name, None)
        with pytest.raises(AttributeError, match="of a persistent class cannot be changed"):
            delattr(cls, name)


def test_a_class_that_lives_in_a_module_is_no_object_of_the_database() -> None:
    cls = make(__global_persistent_class_not_stored_in_DB__=True)
    assert not hasattr(cls, "_p_oid")
    assert hasattr(make(), "_p_oid")


def test_zodb_reads_ours_and_we_read_zodbs_in_the_same_records() -> None:
    records = []
    for make_db, metaclass in ((DB, PersistentMetaClass), (ZODB.DB, ZODB.persistentclass.PersistentMetaClass)):
        storage = MappingStorage()
        with make_db(storage).transaction() as conn:
            conn.root()["class"] = cls = make(metaclass=metaclass, color="green", me=None)
            cls.me = cls
            conn.root()["instance"] = cls()
        records.append({each.oid: each.data for one in storage.transactions() for each in one.records})
        for reader in (DB, ZODB.DB):
            with reader(storage).transaction() as conn:
                loaded = conn.root()["class"]
                assert (loaded.color, loaded.me) == ("green", loaded)
                assert type(conn.root()["instance"]) is loaded
                loaded.color = "green"
                assert loaded._p_changed
    assert records[0] == records[1]
    assert "ZODB.persistentclass.PersistentMetaClass" in map(class_name, filter(None, records[0].values()))


def test_zodb_need_not_be_there() -> None:
    code = (
        "import sys; from zeo_client import DB; from zeo_server.storages.mapping import MappingStorage\n"
        "from zeo_client.persistent_class import PersistentMetaClass\n"
        "db = DB(MappingStorage())\n"
        "with db.transaction() as conn: conn.root.C = PersistentMetaClass('C', (object,), {'x': 1})\n"
        "with DB(db.storage).transaction() as conn: assert conn.root.C.x == 1\n"
        "assert 'ZODB' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
