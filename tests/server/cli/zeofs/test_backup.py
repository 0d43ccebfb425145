"""`zeofs backup` and a running server."""

import threading
from contextlib import closing
from pathlib import Path

import transaction
from ZODB.blob import Blob
from ZODB.DB import DB

from tests.fixtures_zeod import StartZeod
from tests.server.cli.zeofs.run import zeofs
from tests.server.raw_client import RawClient
from tests.server.storages.file.blob_files import blob_paths, zodb_blobs
from zeo_client.storage import ClientStorage
from zeo_core.ids import ROOT_OID, ZERO_TID
from zeo_server.storages.file import FileStorage


def test_of_a_served_file(start_zeod: StartZeod, tmp_path: Path) -> None:
    server = start_zeod("-f", "Data.fs")
    with RawClient(server.address) as client:
        tid = client.commit({ROOT_OID: (ZERO_TID, b"one")})
        assert "full backup (the first)" in zeofs(tmp_path, "backup", "Data.fs", "backups")
        tid = client.commit({ROOT_OID: (tid, b"two")})
        assert "incremental backup" in zeofs(tmp_path, "backup", "--quick", "Data.fs", "backups")
        assert "nothing new" in zeofs(tmp_path, "backup", "Data.fs", "backups")
        assert "full backup (as asked)" in zeofs(tmp_path, "backup", "--full", "Data.fs", "backups")
        assert zeofs(tmp_path, "restore", "backups", "Restored.fs").startswith("Restored.fs: restored, last commit 2")
    storage = FileStorage(tmp_path / "Restored.fs")
    assert storage.load(ROOT_OID) == (b"two", tid)
    storage.close()


def test_what_cannot_be_backed_up(tmp_path: Path) -> None:
    assert "No such file" in zeofs(tmp_path, "backup", "No.fs", "backups", status=2)
    (tmp_path / "Data.fs").write_bytes(b"FS30")
    (tmp_path / "file").write_bytes(b"")
    assert "file" in zeofs(tmp_path, "backup", "Data.fs", "file", status=2)


def test_blobs_come_along(tmp_path: Path) -> None:
    zodb_blobs(tmp_path)
    assert " with 8 blobs up to " in zeofs(tmp_path, "backup", "Data.fs", "backups")
    assert "all backups are as they were made" in zeofs(tmp_path, "restore", "--verify", "backups")
    assert "restored with 8 blobs," in zeofs(tmp_path, "restore", "backups", "Restored.fs")
    assert "8 records of blobs, 8 files" in zeofs(tmp_path, "check", "Restored.fs")
    zeofs(tmp_path, "restore", "--no-blobs", "backups", "Bare.fs")
    assert not (tmp_path / "Bare.fs.blobs").exists()
    blob_paths(tmp_path / "blobs")[0].unlink()
    assert "blobs: 1 blob missing" in zeofs(tmp_path, "backup", "--full", "Data.fs", "backups", status=1)
    zeofs(tmp_path, "restore", "--blob-dir", "there", "backups", "Lost.fs")
    assert len(blob_paths(tmp_path / "there")) == 7


def test_blobs_of_a_server_that_goes_on_committing(start_zeod: StartZeod, tmp_path: Path) -> None:
    section = "<filestorage>\npath Data.fs\nblob-dir blobs\n</filestorage>\n"
    (tmp_path / "zeo.conf").write_text("<zeo>\naddress 127.0.0.1:0\n</zeo>\n" + section)
    server = start_zeod("-C", "zeo.conf")
    assert isinstance(server.address, tuple)
    client = ClientStorage(server.address, blob_dir=tmp_path / "cache")
    manager = transaction.TransactionManager()
    stopped = threading.Event()

    def commit() -> None:
        root = db.open(manager).root()
        number = 0
        while not stopped.is_set():
            number += 1
            root[number % 5] = Blob(b"%d" % number)
            manager.commit()

    with closing(DB(client)) as db:
        committing = threading.Thread(target=commit)
        committing.start()
        try:
            for number in range(4):
                zeofs(tmp_path, "backup", "Data.fs", "backups")
                zeofs(tmp_path, "restore", "backups", f"Restored{number}.fs")
                assert "no faults" in zeofs(tmp_path, "check", f"Restored{number}.fs")
        finally:
            stopped.set()
            committing.join()
    zeofs(tmp_path, "backup", "Data.fs", "backups")
    zeofs(tmp_path, "restore", "backups", "Last.fs")
    assert (tmp_path / "Last.fs").read_bytes() == (tmp_path / "Data.fs").read_bytes()
    ours, theirs = blob_paths(tmp_path / "Last.fs.blobs"), blob_paths(tmp_path / "blobs")
    assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]
