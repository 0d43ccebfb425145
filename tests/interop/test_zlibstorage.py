"""zc.zlibstorage around our storages: compressed records under our DB, and for our packer and tools."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import ZODB
from BTrees.Length import Length
from BTrees.OOBTree import OOBTree
from zc.zlibstorage import ZlibStorage

from tests.client.objects import Node, Session
from tests.fixtures_zeod import StartZeod
from tests.server.cli.zeofs.run import zeofs
from zeo_client.blob import Blob
from zeo_client.db import DB
from zeo_client.storage import ClientStorage
from zeo_core.errors import POSKeyError, Unsupported
from zeo_core.ids import MAX_TID, ROOT_OID
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage


def file_storage(directory: Path) -> Any:
    return ZlibStorage(FileStorage(directory / "Data.fs", blob_dir=directory / "blobs"))


@pytest.fixture
def db(tmp_path: Path) -> Iterator[DB]:
    with DB(file_storage(tmp_path)) as db:
        yield db


def raw(db: DB, oid: bytes = ROOT_OID) -> bytes:
    """Return a record as the wrapped storage has it."""
    found: bytes = db.storage.base.load(oid)[0]  # type: ignore[attr-defined]
    return found


def fill(root: Any) -> None:
    root["text"] = "text " * 100
    root["node"] = Node(text="more " * 100, other=Node(text="still more " * 100))
    root["tree"] = OOBTree({f"key {number}": Node(number=number) for number in range(100)})
    root["length"] = Length()


def check(root: Any) -> None:
    assert root["text"] == "text " * 100
    assert root["node"].other.text == "still more " * 100
    assert [node.number for node in root["tree"].values()][:3] == [0, 1, 10]


def test_records_are_compressed_below_and_plain_above(db: DB, tmp_path: Path) -> None:
    with db.transaction() as conn:
        fill(conn.root())
    assert raw(db)[:2] == b".z"
    with db.transaction() as conn:
        conn.cacheMinimize()
        check(conn.root())
    db.close()
    with closing(ZODB.DB(ZlibStorage(FileStorage(tmp_path / "Data.fs")))) as theirs, theirs.transaction() as conn:
        check(conn.root())


def test_plain_records_of_before_are_read_and_may_stay(tmp_path: Path) -> None:
    with DB(FileStorage(tmp_path / "Data.fs")) as plain, plain.transaction() as conn:
        fill(conn.root())
    with DB(file_storage(tmp_path)) as db, db.transaction() as conn:
        check(conn.root())
        assert raw(db)[:2] != b".z"


def test_conflicts_are_resolved(db: DB) -> None:
    ann, bob = Session(db), Session(db)
    ann.root["lengths"] = Length(), "x" * 1000
    ann.commit()
    bob.manager.begin()
    ann.root["lengths"][0].change(2)
    bob.root["lengths"][0].change(3)
    ann.commit()
    bob.commit()
    assert bob.root["lengths"][0]() == 5


def test_blobs(db: DB) -> None:
    with db.transaction() as conn:
        conn.root.blob = Blob(b"data")
    with db.transaction() as conn:
        conn.cacheMinimize()
        with conn.root.blob.open("c") as file:
            assert file.read() == b"data"


def test_a_wrapper_of_a_storage_without_blobs_has_none() -> None:
    with DB(ZlibStorage(MappingStorage())) as db, pytest.raises(Unsupported), db.transaction() as conn:
        conn.root.blob = Blob(b"data")


def test_what_compressed_records_refer_to_is_kept_by_a_pack_and_the_rest_goes(db: DB, tmp_path: Path) -> None:
    with db.transaction() as conn:
        fill(conn.root())
        conn.root.gone = Node(text="gone " * 100)
    with db.transaction() as conn:
        gone = conn.root.gone._p_oid
        del conn.root.gone
    db.storage.pack(time.time())  # type: ignore[attr-defined]
    with db.transaction() as conn:
        conn.cacheMinimize()
        check(conn.root())
        conn.root()["tree"]._check()
    with pytest.raises(POSKeyError):
        db.storage.load_before(gone, MAX_TID)
    db.close()
    assert "no faults" in zeofs(tmp_path, "check", "Data.fs")


def test_around_a_server(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    address = server.url.removeprefix("zeo://").split("/")[0]
    with DB(ZlibStorage(ClientStorage(address))) as db, DB(ZlibStorage(ClientStorage(address))) as other:
        with db.transaction() as conn:
            fill(conn.root())
        assert raw(db)[:2] == b".z"
        other.storage.ping()  # type: ignore[attr-defined]
        with other.transaction() as conn:
            check(conn.root())
