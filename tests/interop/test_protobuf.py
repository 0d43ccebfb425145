"""Objects with a message for a state under ZODB's own DB, which pickles them, and with its machinery around ours."""

import pytest
import transaction
import ZODB
from ZODB.POSException import POSError

from tests.client.protobuf.classes import Person
from zeo_client.db import DB
from zeo_client.protobuf import register
from zeo_server.storages.mapping import MappingStorage


@pytest.fixture(autouse=True)
def _registered() -> None:
    register()


def test_zodb_pickles_them_and_reads_them(storage: MappingStorage) -> None:
    db = ZODB.DB(storage)
    with db.transaction() as conn:
        alice = Person(name="Alice")
        conn.root()["bob"] = Person(name="Bob", spouse=alice, friends=[alice])
    with db.transaction() as conn:
        bob = conn.root()["bob"]
        assert (bob.name, bob.spouse.name, bob.friends[0] is bob.spouse) == ("Bob", "Alice", True)
        oid = bob._p_oid
        bob.phone.number = "1"
    data = storage.load(oid, "")[0]
    assert not data.startswith(b"{protobuf}")
    assert b"zeo_client" not in data
    assert len(ZODB.serialize.referencesf(data)) == 1


def test_what_zodb_has_pickled_becomes_a_record_of_ours_when_it_is_changed(storage: MappingStorage) -> None:
    zodb = ZODB.DB(storage)
    with zodb.transaction() as conn:
        conn.root()["bob"] = bob = Person(name="Bob", friends=[Person(name="Alice")])
        conn.add(bob)
        oid = bob._p_oid
    with DB(storage) as db:
        with db.transaction() as conn:
            conn.root()["bob"].age = 7
        with db.transaction() as conn:
            bob = conn.root()["bob"]
            assert (bob.name, bob.age, bob.friends[0].name) == ("Bob", 7, "Alice")
        assert storage.load(oid, "")[0].startswith(b"{protobuf}")


def test_a_target_that_is_refused_is_an_error_of_zodbs_too() -> None:
    with DB(MappingStorage()) as db:
        conn = db.open()
        conn.root()["bob"] = Person(name="Bob", spouse={})
        with pytest.raises(POSError, match="not a persistent object"):
            transaction.commit()
        transaction.abort()


@pytest.fixture
def storage() -> MappingStorage:
    return MappingStorage()
