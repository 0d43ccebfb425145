"""Exports between ZODB's databases and ours: the same bytes, and either imports the other's."""

import io
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import ZODB
import ZODB.blob
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping

from tests.client.objects import Node, WithNewArgs
from tests.fixtures_zeod import StartZeod
from zeo_client.blob import Blob
from zeo_client.db import DB
from zeo_client.storage import ClientStorage
from zeo_server.storages.file import FileStorage

Make = Callable[[Any], Any]
BLOBS: dict[Make, Any] = {DB: Blob, ZODB.DB: ZODB.blob.Blob}


def fill(root: Any, blob_class: Any = None) -> None:
    root["site"] = site = Node(title="site", keyed=WithNewArgs("key"))
    site.mapping = PersistentMapping(back=site)
    site.tree = OOBTree({f"key {number:03}": Node(number=number) for number in range(100)})
    site.picture = None if blob_class is None else blob_class(b"picture " * 1000)


def check(site: Any) -> None:
    assert (site.title, site.keyed.__getnewargs__()) == ("site", ("key",))
    assert site.mapping["back"] is site
    assert [node.number for node in site.tree.values()] == list(range(100))
    if site.picture is not None:
        with site.picture.open() as file:
            assert file.read() == b"picture " * 1000


def storage(directory: Path, name: str) -> Any:
    return FileStorage(directory / f"{name}.fs", blob_dir=directory / f"{name}.blobs")


@pytest.mark.parametrize(("source", "target"), [(DB, ZODB.DB), (ZODB.DB, DB)], ids=["ours to ZODB", "ZODB to ours"])
def test_one_imports_what_the_other_exported(tmp_path: Path, source: Make, target: Make) -> None:
    path = str(tmp_path / "site.zexp")
    with closing(source(storage(tmp_path, "source"))) as db:
        with db.transaction() as conn:
            fill(conn.root(), BLOBS[source])
        with db.transaction() as conn:
            conn.exportFile(conn.root()["site"]._p_oid, path).close()
    with closing(target(storage(tmp_path, "target"))) as db:
        with db.transaction() as conn:
            conn.root()["first"] = Node()  # so that oids differ
            conn.root()["site"] = conn.importFile(path)
            check(conn.root()["site"])
        with db.transaction() as conn:
            conn.cacheMinimize()
            check(conn.root()["site"])


def test_both_write_the_same_bytes(tmp_path: Path) -> None:
    exports = []
    with closing(DB(storage(tmp_path, "data"))) as db, db.transaction() as conn:
        fill(conn.root(), Blob)
    for make in (DB, ZODB.DB):
        with closing(make(storage(tmp_path, "data"))) as db, db.transaction() as conn:
            file = io.BytesIO()
            conn.exportFile(conn.root()["site"]._p_oid, file)
            exports.append(file.getvalue())
    assert exports[0] == exports[1]


def test_from_a_file_to_a_server_and_back(tmp_path: Path, start_zeod: StartZeod) -> None:
    address = start_zeod("-f", "Data.fs").url.removeprefix("zeo://").split("/")[0]
    with DB(storage(tmp_path, "data")) as ours, DB(ClientStorage(address)) as served:
        with ours.transaction() as conn:
            fill(conn.root())
        with ours.transaction() as conn, served.transaction() as there:
            file = conn.exportFile(conn.root()["site"]._p_oid)
            file.seek(0)
            there.root()["site"] = there.importFile(file)
            file.close()
        with ours.transaction() as conn, served.transaction() as there:
            check(there.root()["site"])
            file = there.exportFile(there.root()["site"]._p_oid)
            file.seek(0)
            conn.root()["back"] = conn.importFile(file)
            file.close()
            check(conn.root()["back"])
