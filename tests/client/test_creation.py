"""The creation of a database's root."""

from typing import Any

import pytest
from persistent.mapping import PersistentMapping

from zeo_client.creation import ensure_root
from zeo_client.db import DB
from zeo_core.errors import ConflictError, ReadOnlyError
from zeo_core.ids import ROOT_OID, Oid, Tid
from zeo_server.storages.mapping import MappingStorage


def test_an_empty_storage_gets_a_root(storage: MappingStorage) -> None:
    with DB(storage) as db:
        [made] = storage.transactions()
        assert made.metadata.description == b"initial database creation"
        assert [record.oid for record in made.records] == [ROOT_OID]
        assert db.lastTransaction() == made.tid
        with db.transaction() as conn:
            assert type(conn.root()) is PersistentMapping


def test_a_storage_with_a_root_keeps_it(storage: MappingStorage) -> None:
    first = DB(storage)
    with first.transaction() as conn:
        conn.root.a = 1
    with DB(storage) as second, second.transaction() as conn:
        last = second.lastTransaction()
        ensure_root(second)
        assert conn.root.a == 1
        assert second.lastTransaction() == last
    assert second.storage is storage


class ReadOnly(MappingStorage):
    def read_only(self) -> bool:
        return True


def test_an_empty_read_only_storage_cannot_be_used() -> None:
    databases: dict[str, Any] = {}
    with pytest.raises(ReadOnlyError, match="Mapping Storage is empty and read-only"):
        DB(ReadOnly(), databases=databases)
    assert not databases


class Raced(MappingStorage):
    """Somebody else makes the root just before the first who tries."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def store(self, oid: Oid, serial: Tid | None, data: bytes, version: str, transaction: Any) -> None:
        if oid == ROOT_OID and self.times:
            self.times -= 1
            raise ConflictError(oid=oid)
        super().store(oid, serial, data, version, transaction)


def test_of_two_who_make_the_root_one_tries_again() -> None:
    with DB(Raced(2)) as db, db.transaction() as conn:
        assert len(conn.root()) == 0


def test_a_root_that_can_never_be_made_is_an_error() -> None:
    with pytest.raises(ConflictError):
        DB(Raced(100))
