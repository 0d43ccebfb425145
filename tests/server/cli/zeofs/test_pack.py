"""`zeofs pack` in a process."""

from pathlib import Path

from tests.fixtures_zeod import StartZeod
from tests.server.cli.zeofs.run import json_lines, zeofs
from tests.server.storages.file.damaged import zodb_file


def test_old_revisions_go(tmp_path: Path) -> None:
    content = zodb_file(tmp_path / "Data.fs")
    assert zeofs(tmp_path, "pack", "Data.fs").startswith("Data.fs: packed, ")
    assert (tmp_path / "Data.fs").stat().st_size < len(content)
    assert (tmp_path / "Data.fs.old").read_bytes() == content
    assert zeofs(tmp_path, "check", "Data.fs").endswith("no faults\n")
    (report,) = json_lines(zeofs(tmp_path, "stats", "--json", "Data.fs"))
    assert (report["objects"], report["records"] - report["deleted"]) == (6, 6)


def test_what_is_younger_is_kept(tmp_path: Path) -> None:
    content = zodb_file(tmp_path / "Data.fs")
    for options in (["--days", "1"], ["--until", "2000-01-01", "--no-keep-old"]):
        zeofs(tmp_path, "pack", *options, "Data.fs")
        assert (tmp_path / "Data.fs").read_bytes() == content


def test_blobs_of_removed_records_go(tmp_path: Path) -> None:
    from ZODB.blob import Blob
    from ZODB.DB import DB
    from ZODB.FileStorage import FileStorage

    db = DB(FileStorage(str(tmp_path / "Data.fs"), blob_dir=str(tmp_path / "blobs")))
    with db.transaction() as connection:
        connection.root.blob = Blob(b"first")
    with db.transaction() as connection, connection.root.blob.open("w") as file:
        file.write(b"second")
    db.close()
    zeofs(tmp_path, "pack", "--no-keep-old", "--blob-dir", "blobs", "Data.fs")
    assert [path.read_bytes() for path in (tmp_path / "blobs").rglob("*.blob")] == [b"second"]
    assert "does not exist" in zeofs(tmp_path, "pack", "--blob-dir", "none", "Data.fs", status=2)


def test_a_file_that_is_missing_or_served(start_zeod: StartZeod, tmp_path: Path) -> None:
    assert "No such file" in zeofs(tmp_path, "pack", "No.fs", status=2)
    assert not (tmp_path / "No.fs").exists()
    start_zeod("-f", "Data.fs")
    assert "in use by another process" in zeofs(tmp_path, "pack", "Data.fs", status=2)
