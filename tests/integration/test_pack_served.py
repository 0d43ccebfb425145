"""Packing a database that is being served: by our client and by ZEO's, while others load and commit."""

import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import ZEO.ClientStorage
from ZODB.FileStorage import FileStorage as ZODBFileStorage

import zeo_client
from tests.crash.client import Metadata
from tests.fixtures_zeod import StartZeod
from zeo_core.errors import StorageError
from zeo_core.ids import MAX_TID, ROOT_OID, ZERO_TID, pack_id
from zeo_core.transaction import ObjectWrite, PreparedTransaction, TransactionMetadata
from zeo_server.storages.file import FileStorage

REVISIONS = 200

CONF = """
<zeo>
  address 127.0.0.1:0
</zeo>
<demostorage 1>
  <mappingstorage changes>
  </mappingstorage>
  <mappingstorage base>
  </mappingstorage>
</demostorage>
"""


def commit(storage: Any, oid: bytes, serial: bytes, data: bytes) -> bytes:
    transaction = Metadata()
    storage.tpc_begin(transaction)
    storage.store(oid, serial, data, "", transaction)
    storage.tpc_vote(transaction)
    tid: bytes = storage.tpc_finish(transaction)
    return tid


def write_revisions(storage: Any) -> bytes:
    """Write the root again and again; return its serial."""
    serial = ZERO_TID
    for number in range(REVISIONS):
        serial = commit(
            storage, ROOT_OID, serial, b"\x80\x03cpersistent.mapping\nPersistentMapping\nq\x00.}." + b"x" * number
        )
    return serial


@pytest.mark.parametrize("kind", ["ours", "ZEO's"])
def test_a_client_packs_what_is_served(start_zeod: StartZeod, tmp_path: Path, kind: str) -> None:
    server = start_zeod("-f", "Data.fs")
    with closing(zeo_client.ClientStorage(server.address)) as storage:
        serial = write_revisions(storage)
        before = (tmp_path / "Data.fs").stat().st_size
        if kind == "ours":
            storage.pack(time.time() + 1)
        else:
            with closing(ZEO.ClientStorage.ClientStorage(server.address, wait_timeout=20)) as theirs:
                theirs.pack(time.time() + 1, None)
        assert (tmp_path / "Data.fs").stat().st_size < before / 10
        revision = storage.load_before(ROOT_OID, MAX_TID)
        assert revision is not None
        assert revision.tid == serial
        assert commit(storage, ROOT_OID, serial, revision.data) > serial
    server.stop()
    with closing(ZODBFileStorage(str(tmp_path / "Data.fs"))) as zodb:
        assert [transaction.status for transaction in zodb.iterator()] == ["p", " "]


def test_loads_and_commits_go_on_meanwhile(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    with (
        closing(zeo_client.ClientStorage(server.address)) as storage,
        closing(zeo_client.ClientStorage(server.address, cache_size=1)) as other,
    ):
        write_revisions(storage)
        oid, serial = other.new_oid(), ZERO_TID
        packing = threading.Thread(target=storage.pack, args=(time.time(),))
        packing.start()
        number = 0
        while packing.is_alive() or number < 20:
            number += 1
            serial = commit(other, oid, serial, b"\x80\x03cpersistent.mapping\nPersistentMapping\nq\x00.}.%d" % number)
            revision = other.load_before(oid, MAX_TID)
            assert revision is not None
            assert revision.tid == serial
        packing.join()
        assert len(storage.revisions(oid, 10_000)) >= number


def test_a_server_that_stops_gives_a_pack_up(start_zeod: StartZeod, tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    with closing(FileStorage(path)) as storage:
        for _ in range(3):
            storage.publish(storage.write_group([large_transaction(storage)]))
    written = path.read_bytes()
    server = start_zeod("-f", "Data.fs")
    with closing(zeo_client.ClientStorage(server.address, reconnect_timeout=0)) as storage_of_client:
        packing = threading.Thread(target=pack_until_cut, args=(storage_of_client,))
        packing.start()
        while "packing" not in server.log_text():
            assert packing.is_alive()
        assert server.stop() == 0
        packing.join()
    assert path.read_bytes() == written
    assert not (tmp_path / "Data.fs.pack").exists()


def large_transaction(storage: FileStorage) -> PreparedTransaction:
    """Return a transaction of many objects, so that to pack it takes seconds."""
    oids = [pack_id(number) for number in range(60_000)]
    data = b"\x80\x03cpersistent.mapping\nPersistentMapping\nq\x00.}." + b"x" * 100
    writes = tuple(ObjectWrite(oid, storage.current_tid(oid) or ZERO_TID, data) for oid in oids)
    return PreparedTransaction(TransactionMetadata(), writes)


def pack_until_cut(storage: zeo_client.ClientStorage) -> None:
    with pytest.raises((zeo_client.ClientDisconnected, StorageError)):
        storage.pack(time.time())


def test_a_demo_storage_is_packed_without_its_base(start_zeod: StartZeod, tmp_path: Path) -> None:
    (tmp_path / "zeo.conf").write_text(CONF)
    server = start_zeod("-C", "zeo.conf")
    with closing(zeo_client.ClientStorage(server.address)) as storage:
        serial = write_revisions(storage)
        assert len(storage.revisions(ROOT_OID, 10_000)) == REVISIONS
        storage.pack(time.time() + 1)
        assert [entry.tid for entry in storage.revisions(ROOT_OID, 10_000)] == [serial]
