"""The documented session of keas.pbpersist, step by step, on Python 3. The steps share one state, in their order."""

import sys
import types
from typing import Any

import pytest
import transaction
from persistent.mapping import PersistentMapping
from persistent.wref import WeakRef

from tests.client.objects import state_of
from tests.client.protobuf.classes import Adder, PContact, PContactWithGetNewArgs
from tests.protobuf_schemas import envelope, message_class
from zeo_client.db import DB
from zeo_client.protobuf import register
from zeo_core.errors import InvalidObjectReference, UnpicklableError
from zeo_core.record import references
from zeo_server.storages.mapping import MappingStorage

ObjectRecord = message_class(envelope, "ObjectRecord")
MODULE = "keas.pbpersist.tests"


@pytest.fixture(autouse=True)
def _classes_of_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the classes under the names that the original's records have."""
    for depth in range(1, 4):
        name = ".".join(MODULE.split(".")[:depth])
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    for cls in (PContact, PContactWithGetNewArgs, Adder):
        monkeypatch.setattr(cls, "__module__", MODULE)
        setattr(sys.modules[MODULE], cls.__name__, cls)


class Steps:
    """What the session has at hand."""

    def __init__(self) -> None:
        register()
        register()
        self.storage = MappingStorage()
        self.db = DB(self.storage, database_name="main")
        self.conn1: Any = self.db.open()
        self.bob: Any = PContact()
        self.bob.create_time = 1
        self.bob.name = "Bob"
        self.root["bob"] = self.bob
        transaction.commit()

    @property
    def root(self) -> Any:
        return self.conn1.root()

    def data(self, obj: Any) -> bytes:
        loaded: bytes = self.storage.load(obj._p_oid, "")[0]
        return loaded

    def refer(self, target: Any) -> None:
        self.bob.protobuf_refs.set(self.bob.guardians.add(), target)

    def raw_record(self) -> None:
        data = self.data(self.bob)
        assert data == b"{protobuf}\n \n\x14keas.pbpersist.tests\x12\x08PContact\x12\x07\x08\x01\x12\x03Bob"
        record = ObjectRecord()
        assert record.MergeFromString(data[10:]) == 43
        assert (record.class_meta.module_name, record.class_meta.class_name) == (MODULE, "PContact")
        assert len(record.references) == 0
        message = PContact.protobuf_type()
        assert message.MergeFromString(record.state) == 7
        assert message.name == "Bob"
        conn2 = self.db.open(transaction.TransactionManager())
        assert conn2.root()["bob"].name == "Bob"
        conn2.close()

    def first_reference(self) -> Any:
        alice: Any = PContact()
        alice.name = "Alice"
        self.refer(alice)
        transaction.commit()
        conn2 = self.db.open(transaction.TransactionManager())
        bob2 = conn2.root()["bob"]
        alice2 = bob2.protobuf_refs.get(bob2.guardians[0])
        assert alice2.name == "Alice"
        assert alice is not alice2
        conn3 = self.db.open(transaction.TransactionManager())
        bob3 = conn3[self.bob._p_oid]
        assert state_of(bob3) == "ghost"
        assert bob3.name == "Bob"
        assert state_of(bob3) == "clean"
        conn3.close()
        conn2.close()
        return alice

    def packing(self, alice: Any) -> None:
        assert references(self.data(self.root)) == [self.bob._p_oid]
        assert references(self.data(self.bob)) == [alice._p_oid]
        assert references(self.data(alice)) == []

    def refused_target(self) -> None:
        assert len(self.bob.guardians) == 1
        self.refer(PersistentMapping())
        transaction.commit()
        assert len(self.bob.guardians) == 2
        self.refer({})
        assert len(self.bob.guardians) == 3
        with pytest.raises(InvalidObjectReference, match=r"target is not a [Pp]ersistent object: \{\}"):
            transaction.commit()
        transaction.abort()
        assert len(self.bob.guardians) == 2

    def other_targets(self, beta: DB) -> None:
        self.refer(WeakRef(PersistentMapping()))
        transaction.commit()
        assert len(self.bob.guardians) == 3
        root_beta = self.conn1.get_connection("beta").root()
        root_beta["obj"] = PersistentMapping()
        transaction.commit()
        self.refer(root_beta["obj"])
        transaction.commit()
        self.root["adder"] = Adder(7)
        self.refer(self.root["adder"])
        transaction.commit()
        root_beta["adder"] = Adder(6)
        transaction.commit()
        self.refer(root_beta["adder"])
        transaction.commit()
        assert beta is self.bob.guardians[5]._p_jar.db()

    def all_from_another_connection(self) -> None:
        conn2 = self.db.open(transaction.TransactionManager())
        bob2 = conn2.root()["bob"]
        assert len(bob2.guardians) == 6
        target = [bob2.protobuf_refs.get(bob2.guardians[index]) for index in range(6)]
        assert type(target[0]) is PContact
        assert (type(target[1]), dict(target[1]), target[1]._p_jar is conn2) == (PersistentMapping, {}, True)
        assert (type(target[2]), dict(target[2]())) == (WeakRef, {})
        assert (dict(target[3]), target[3]._p_jar is conn2) == ({}, False)
        assert (type(target[4]), target[4].add(3)) == (Adder, 10)
        assert (type(target[5]), target[5].add(3)) == (Adder, 9)
        conn2.close()

    def refused_class(self) -> None:
        contact: Any = PContactWithGetNewArgs()
        contact.name = "Loser"
        self.root["fail_contact"] = contact
        with pytest.raises(UnpicklableError, match="__getnewargs__"):
            transaction.commit()
        transaction.abort()

    def clean_up(self) -> None:
        transaction.abort()
        self.conn1.close()
        self.db.close()


def test_the_documented_session() -> None:
    steps = Steps()
    steps.raw_record()
    alice = steps.first_reference()
    steps.packing(alice)
    steps.refused_target()
    with DB(MappingStorage(), database_name="beta", databases=steps.db.databases) as beta:
        steps.other_targets(beta)
        steps.all_from_another_connection()
        steps.refused_class()
        steps.clean_up()
