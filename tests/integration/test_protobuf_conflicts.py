"""Two who change one object whose state is a protobuf message: by our client, by zeod, and embedded."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from transaction import TransactionManager

import zeo_client
from tests.fixtures_zeod import StartZeod
from tests.integration.contacts_app import SCHEMA, Contact, Private
from tests.proto_compiler import described
from zeo_client.db import DB
from zeo_client.protobuf import register
from zeo_core.errors import ConflictError
from zeo_server.storages.file import FileStorage

CONFIGURATION = """
    <zeo>
      address 127.0.0.1:0
      <protobuf>
        descriptor-set contacts.desc
        message tests.integration.contacts_app.Contact contacts.ContactPB guardians
      </protobuf>
    </zeo>
    <filestorage 1>
      path Data.fs
    </filestorage>
"""


class User:
    """A connection with a transaction manager of its own."""

    def __init__(self, db: Any) -> None:
        self.manager = TransactionManager(explicit=False)
        self.conn = db.open(self.manager)
        self.root = self.conn.root()

    def commit(self) -> None:
        self.manager.commit()

    def abort(self) -> None:
        self.manager.abort()


@pytest.fixture(params=["the client", "zeod", "embedded"])
def users(request: pytest.FixtureRequest, tmp_path: Path, start_zeod: StartZeod) -> Iterator[tuple[User, User]]:
    """Two users; conflicts are resolved by one or another."""
    register()
    with ExitStack() as opened:
        if request.param == "embedded":
            db = opened.enter_context(DB(FileStorage(tmp_path / "Data.fs")))
            dbs = [db, db]
        else:
            (tmp_path / "contacts.desc").write_bytes(described(SCHEMA))
            (tmp_path / "zeo.conf").write_text(CONFIGURATION)
            arguments = ("-C", "zeo.conf") if request.param == "zeod" else ("-f", "Data.fs")
            url = start_zeod(*arguments).url
            dbs = [opened.enter_context(zeo_client.open(url)) for _ in range(2)]
        ann = User(dbs[0])
        ann.root["ann"], ann.root["bob"] = Contact(name="Ann"), Contact(name="Bob", seen=1)
        ann.root["eve"] = Private(name="Eve")
        ann.root["bob"].guardians.append(ann.root["ann"])
        ann.commit()
        ben = User(dbs[1])
        ben.conn.sync()
        yield ann, ben
        for user in (ann, ben):
            user.abort()
            user.conn.close()


def test_changes_of_both_are_kept(users: tuple[User, User]) -> None:
    """To different fields, and to a set: there both give the same number to what they add."""
    ann, ben = users
    ann.root["bob"].name = "Robert"
    ann.root["bob"].guardians.append(ann.root["eve"])
    ben.root["bob"].address = {"city": "Ypres"}
    ben.root["bob"].guardians.append(Contact(name="new"))
    ben.root["bob"].guardians.remove(ben.root["ann"])
    ann.commit()
    ben.commit()
    ann.conn.sync()
    for user in users:
        bob = user.root["bob"]
        assert (bob.name, bob.address.city, bob.seen) == ("Robert", "Ypres", 1)
        assert [guardian.name for guardian in bob.guardians] == ["Eve", "new"]
        assert bob.guardians[0] is user.root["eve"]


def test_the_same_field_is_a_conflict_and_so_is_a_list_that_is_no_set(users: tuple[User, User]) -> None:
    ann, ben = users
    ann.root["bob"].seen = 2
    ben.root["bob"].seen = 3
    ann.commit()
    with pytest.raises(ConflictError, match=r"contacts_app\.Contact"):
        ben.commit()
    ben.abort()
    assert ben.root["bob"].seen == 2
    ann.root["eve"].guardians.append(ann.root["ann"])
    ben.root["eve"].guardians.append(ben.root["bob"])
    ann.commit()
    with pytest.raises(ConflictError, match=r"contacts_app\.Private"):
        ben.commit()
    ben.abort()
