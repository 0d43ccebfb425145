"""The ways to a database: either DB, over either client or embedded; and what is done to a database in the same words.

The DBs have the same names for the same things, so that one function writes, checks, changes, undoes and packs through
any of them. Each way has two databases, main and other, with references between them.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ZEO.ClientStorage
import ZODB
import ZODB.blob
import ZODB.FileStorage
from BTrees.IOBTree import IOBTree
from BTrees.Length import Length
from BTrees.OOBTree import OOBTree
from persistent.list import PersistentList
from persistent.mapping import PersistentMapping
from persistent.wref import WeakRef
from transaction import TransactionManager

import zeo_client
from tests.client.objects import Node, Slotted
from tests.fixtures_zeod import StartZeod, Zeod
from zeo_server.storages.file import FileStorage

__all__ = ["WAYS", "Databases", "House", "Way", "change", "check", "pack", "undo", "write"]

_CONF = """
<zeo>
  address 127.0.0.1:0
</zeo>
<filestorage main>
  path {directory}/main.fs
  blob-dir {directory}/main.blobs
</filestorage>
<filestorage other>
  path {directory}/other.fs
  blob-dir {directory}/other.blobs
</filestorage>
"""

BEFORE, AFTER = b"the blob as it was written", b"the blob as it was changed"


@dataclass(frozen=True)
class Way:
    """Whose DB, and whose storage."""

    layer: str
    storage: str

    @property
    def served(self) -> bool:
        return self.storage != "embedded"

    def __str__(self) -> str:
        return f"{self.layer} DB, {self.storage}"


WAYS = [
    Way(layer, storage)
    for layer, storage in itertools.product(("ZODB's", "our"), ("ZEO's client", "our client", "embedded"))
]


class Databases:
    """The two databases as they were opened one way."""

    def __init__(self, layer: str, main: Any, other: Any) -> None:
        self.main, self.other = main, other
        self.new_blob: Callable[[bytes], Any] = ZODB.blob.Blob if layer == "ZODB's" else zeo_client.Blob

    @contextmanager
    def transaction(self, note: str = "") -> Iterator[Any]:
        """Give a connection to the main database, from which the other's is reached; commit at the end."""
        manager = TransactionManager()
        connection = self.main.open(manager)
        try:
            with manager as transaction:
                transaction.note(note)
                yield connection
        finally:
            connection.close()


class House:
    """Where the databases are, and the server, which runs when somebody wants it."""

    def __init__(self, directory: Path, start_zeod: StartZeod) -> None:
        self._directory = directory
        self._start_zeod = start_zeod
        self._server: Zeod | None = None
        self._caches = itertools.count()
        (directory / "zeo.conf").write_text(_CONF.format(directory=directory))

    @contextmanager
    def open(self, way: Way) -> Iterator[Databases]:
        """Open both databases; closed at the end."""
        if way.served:
            self._server = self._server or self._start_zeod("-C", str(self._directory / "zeo.conf"))
        elif self._server is not None:
            self._server.stop()
            self._server = None
        with ExitStack() as stack:
            make = ZODB.DB if way.layer == "ZODB's" else zeo_client.DB
            databases: dict[str, Any] = {}
            for name in ("main", "other"):
                db = make(self._storage(way, name), databases=databases, database_name=name)
                stack.callback(db.close)
            yield Databases(way.layer, databases["main"], databases["other"])

    def _storage(self, way: Way, name: str) -> Any:
        path, blobs = str(self._directory / f"{name}.fs"), str(self._directory / f"{name}.blobs")
        if way.storage == "embedded":
            return (ZODB.FileStorage.FileStorage if way.layer == "ZODB's" else FileStorage)(path, blob_dir=blobs)
        assert self._server is not None
        cache = str(self._directory / f"cache-{next(self._caches)}")
        make = ZEO.ClientStorage.ClientStorage if way.storage == "ZEO's client" else zeo_client.ClientStorage
        return make(self._server.address, storage=name, blob_dir=cache, wait_timeout=20)


def _node(number: int) -> Node:
    return Node(number=number)


def write(databases: Databases) -> None:
    """Make the databases."""
    with databases.transaction("write") as conn:
        root = conn.root()
        root["tree"] = OOBTree({f"key {number:03}": _node(number) for number in range(200)})
        root["numbers"] = IOBTree({number: str(number) for number in range(300)})
        root["length"] = Length(7)
        root["shared"] = Node(value="as written")
        root["doomed"] = Node(value="doomed")
        root["weak"] = [WeakRef(root["shared"]), WeakRef(root["doomed"])]
        root["more"] = PersistentMapping(shared=root["shared"], list=PersistentList([1, root["shared"]]))
        root["slots"] = Slotted(root["shared"], {"left": 1})
        root["blob"] = databases.new_blob(BEFORE)
        root["kept blob"] = databases.new_blob(BEFORE)
        there, abroad = conn.get_connection("other"), Node(value="abroad")
        there.add(abroad)
        there.root()["node"] = abroad
        root["abroad"] = PersistentMapping(strong=abroad, weak=WeakRef(abroad))


def check(databases: Databases, *, changed: bool) -> None:
    """Look at all of it."""
    with databases.transaction() as conn:
        root = conn.root()
        assert root["shared"].value == ("as changed" if changed else "as written")
        expected = [number for number in range(200) if not (changed and number % 7 == 0)]
        assert [node.number for node in root["tree"].values()] == expected
        root["tree"]._check()
        assert list(root["numbers"].items()) == [(number, str(number)) for number in range(300)]
        assert root["length"]() == (10 if changed else 7)
        assert root["weak"][0]() is root["shared"]
        assert root["more"]["shared"] is root["more"]["list"][1] is root["slots"].left is root["shared"]
        assert list(root["more"]["list"][2:]) == (["changed"] if changed else [])
        for name, text in {"blob": AFTER if changed else BEFORE, "kept blob": BEFORE}.items():
            with root[name].open("r") as file:
                assert file.read() == text
        there = conn.get_connection("other").root()["node"]
        assert root["abroad"]["strong"] is root["abroad"]["weak"]() is there
        assert there.value == "abroad"


def change(databases: Databases) -> None:
    """Change some of each kind of object in the main database, in one transaction."""
    with databases.transaction("change") as conn:
        root = conn.root()
        root["shared"].value = "as changed"
        for number in range(0, 200, 7):
            del root["tree"][f"key {number:03}"]
        root["length"].change(3)
        root["more"]["list"].append("changed")
        with root["blob"].open("w") as file:
            file.write(AFTER)


def undo(databases: Databases) -> None:
    """Take the last change back."""
    lines = databases.main.undoLog(0, 20)
    wanted = next(line for line in lines if line["description"] in ("change", b"change"))
    manager = TransactionManager()
    with manager as transaction:
        databases.main.undo(wanted["id"], transaction)


def pack(databases: Databases) -> None:
    """Drop an object, and pack it and all that was replaced away."""
    with databases.transaction() as conn:
        oid = conn.root().pop("doomed")._p_oid
    databases.main.pack()
    databases.other.pack()
    with databases.transaction() as conn:
        conn.cacheMinimize()
        with pytest.raises(KeyError):
            conn.get(oid)._p_activate()
        assert [line["description"] for line in databases.main.undoLog(0, 20)] == []
