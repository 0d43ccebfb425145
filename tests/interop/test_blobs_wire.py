"""Blobs between zeod, ZEO's server, our client and ZEO's: streamed and in shared directories, and what is left."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZEO.ClientStorage
import ZODB
import ZODB.FileStorage
import ZODB.POSException
from ZODB.blob import Blob

import zeo_client
from tests.client.peer import until
from tests.fixtures_runzeo import StartRunZEO
from tests.fixtures_zeod import StartZeod

PAIRS = ["ZEO to zeod", "ours to zeod", "ours to runzeo"]
LARGE = os.urandom(3_000_000)

_CONF = """
<zeo>
  address 127.0.0.1:0
</zeo>
<filestorage>
  path Data.fs
  blob-dir blobs
</filestorage>
"""

OpenStorage = Callable[..., Any]


@pytest.fixture(params=PAIRS)
def open_storage(
    request: pytest.FixtureRequest, start_zeod: StartZeod, start_runzeo: StartRunZEO, tmp_path: Path
) -> OpenStorage:
    """A function that opens one more client of one server, with a blob directory: each pair of client and server."""
    pair: str = request.param
    if "runzeo" in pair:
        address = start_runzeo(tmp_path / "Data.fs", tmp_path / "blobs").address
    else:
        (tmp_path / "zeo.conf").write_text(_CONF)
        address = start_zeod("-C", "zeo.conf").address  # type: ignore[assignment]
    client = ZEO.ClientStorage.ClientStorage if pair.startswith("ZEO") else zeo_client.ClientStorage
    return lambda directory, **options: client(address, blob_dir=str(tmp_path / directory), wait_timeout=20, **options)


@pytest.fixture(params=["streamed", "shared"])
def open_db(request: pytest.FixtureRequest, open_storage: OpenStorage) -> Iterator[Callable[[str], Any]]:
    """A function that opens one more DB, with a cache by that name or all in the server's directory."""
    opened: list[Any] = []

    def open_one(name: str) -> Any:
        shared = request.param == "shared"
        db = ZODB.DB(open_storage("blobs" if shared else name, shared_blob_dir=shared))
        opened.append(db)
        return db

    yield open_one
    for db in opened:
        db.close()


def read(blob: Any) -> bytes:
    with blob.open("r") as file:
        data: bytes = file.read()
        return data


def test_blobs_of_one_client_are_read_by_another(open_db: Callable[[str], Any], tmp_path: Path) -> None:
    first, second = open_db("first"), open_db("second")
    with first.transaction() as connection:
        connection.root()["large"], connection.root()["empty"] = Blob(LARGE), Blob(b"")
    second.storage.ping()
    with second.transaction() as connection:
        root = connection.root()
        assert (read(root["large"]), read(root["empty"])) == (LARGE, b"")
        with root["empty"].open("a") as file:
            file.write(b"not any more")
    first.storage.ping()
    with first.transaction() as connection:
        assert read(connection.root()["empty"]) == b"not any more"
    until(lambda: len(list((tmp_path / "blobs").rglob("*.blob"))) == 3)
    until(lambda: not [path for path in (tmp_path / "blobs").rglob("*") if path.is_file() and ".tmp" in path.name])


def test_conflicts_and_aborts_leave_nothing(open_db: Callable[[str], Any], tmp_path: Path) -> None:
    first, second = open_db("first"), open_db("second")
    with first.transaction() as connection:
        connection.root()["blob"] = Blob(b"one")
    second.storage.ping()
    managers = [transaction.TransactionManager() for _ in range(2)]
    for db, manager in zip((first, second), managers, strict=True):
        manager.begin()
        blob = db.open(manager).root()["blob"]
        with blob.open("w") as file:
            file.write(b"by " + db.storage.blob_dir.encode() + LARGE)
    managers[0].commit()
    with pytest.raises(ZODB.POSException.ConflictError):
        managers[1].commit()
    managers[1].abort()
    served = tmp_path / "blobs"
    until(lambda: len([path for path in served.rglob("*") if path.is_file() and path.name[0] == "0"]) == 2)


def test_a_blob_that_is_not_there(open_storage: OpenStorage) -> None:
    with closing(open_storage("cache")) as storage, pytest.raises(ZODB.POSException.POSKeyError):
        storage.loadBlob(b"\0" * 7 + b"\1", b"\0" * 7 + b"\2")


def test_many_clients_of_one_cache(open_storage: OpenStorage) -> None:
    databases = [ZODB.DB(open_storage("cache")) for _ in range(3)]
    with databases[0].transaction() as connection:
        for number in range(20):
            connection.root()[number] = Blob(bytes([number]) * 100_000)
    found: list[bytes] = []

    def work(db: Any) -> None:
        db.storage.ping()
        with closing(db.open(transaction.TransactionManager())) as connection:
            found.extend(read(connection.root()[number]) for number in range(20))

    threads = [threading.Thread(target=work, args=(db,)) for db in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted([bytes([number]) * 100_000 for number in range(20)] * 3)
    for db in databases:
        db.close()


def test_a_cache_is_shared_by_our_client_and_zeos(start_zeod: StartZeod, tmp_path: Path) -> None:
    (tmp_path / "zeo.conf").write_text(_CONF)
    address = start_zeod("-C", "zeo.conf").address
    cache = str(tmp_path / "cache")
    theirs = ZODB.DB(ZEO.ClientStorage.ClientStorage(address, blob_dir=cache, wait_timeout=20))
    ours = ZODB.DB(zeo_client.ClientStorage(address, blob_dir=cache))
    with theirs.transaction() as connection:
        connection.root()["theirs"] = Blob(LARGE)
    ours.storage.ping()
    with ours.transaction() as connection:
        connection.root()["ours"] = Blob(LARGE[::-1])
        path = connection.root()["theirs"].committed()
        assert path.startswith(cache)
    theirs.storage.ping()
    with theirs.transaction() as connection:
        assert connection.root()["theirs"].committed() == path
        assert read(connection.root()["ours"]) == LARGE[::-1]
    assert len(list(Path(cache).rglob("*.blob"))) == 2
    ours.close()
    theirs.close()


def test_blobs_of_our_own_object_layer(open_storage: OpenStorage) -> None:
    if not isinstance(storage := open_storage("one"), zeo_client.ClientStorage):
        storage.close()
        return  # our object layer has no use for ZEO's client; ZODB's is tested above
    db = zeo_client.DB(storage)
    with db.transaction() as connection:
        connection.root()["blob"] = zeo_client.Blob(LARGE)
    db.close()
    with closing(zeo_client.DB(open_storage("two"))) as other, other.transaction() as connection:
        assert read(connection.root()["blob"]) == LARGE


def test_an_undo_brings_a_blob_back(open_db: Callable[[str], Any]) -> None:
    first, second = open_db("first"), open_db("second")
    for text in (b"one", LARGE, b"three"):
        with first.transaction() as connection:
            root = connection.root()
            if "blob" in root:
                with root["blob"].open("w") as file:
                    file.write(text)
            else:
                root["blob"] = Blob(text)
    for number, expected in enumerate((LARGE, b"one")):
        manager = transaction.TransactionManager()
        lines = [line for line in first.undoLog(0, 9) if not line["description"]]
        first.undo(lines[number]["id"], manager.get())
        manager.get().note("undo")
        manager.commit()
        second.storage.ping()
        for db in (first, second):
            with db.transaction() as connection:
                assert read(connection.root()["blob"]) == expected


@pytest.mark.parametrize("shared", [False, True])
def test_blobs_are_restored(start_zeod: StartZeod, tmp_path: Path, shared: bool) -> None:
    (tmp_path / "zeo.conf").write_text(_CONF)
    directory = str(tmp_path / ("blobs" if shared else "cache"))
    target = zeo_client.ClientStorage(start_zeod("-C", "zeo.conf").address, blob_dir=directory, shared_blob_dir=shared)
    source = ZODB.FileStorage.FileStorage(str(tmp_path / "Source.fs"), blob_dir=str(tmp_path / "source"))
    with closing(ZODB.DB(source)) as db, closing(target):
        for text in (b"one", LARGE):
            with db.transaction() as connection:
                connection.root()["blob"] = Blob(text)
        db.undo(db.undoLog(0, 1)[0]["id"])
        transaction.commit()
        target.copyTransactionsFrom(source)
        assert target.lastTransaction() == source.lastTransaction()
        copied = [path.read_bytes() for path in sorted((tmp_path / "blobs").rglob("*.blob"))]
        assert sorted(copied) == sorted([b"one", LARGE])
        assert not list((tmp_path / "blobs").rglob("*.tmp*"))
        for held in (record for each in source.iterator() for record in each):
            if held.data is not None:  # else the undo has taken its creation back
                assert target.loadSerial(held.oid, held.tid) == held.data
