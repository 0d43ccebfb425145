"""`zeofs check` in a process."""

from pathlib import Path

from tests.fixtures_zeod import StartZeod
from tests.server.cli.zeofs.run import json_lines, zeofs
from tests.server.raw_client import RawClient
from tests.server.storages.file.blob_files import blob_paths, zodb_blobs
from tests.server.storages.file.build import File
from tests.server.storages.file.damaged import zodb_file
from tests.server.storages.file.test_graph import record
from zeo_core.ids import ROOT_OID, ZERO_TID, pack_id


def test_a_good_file(tmp_path: Path) -> None:
    zodb_file(tmp_path / "Data.fs")
    printed = zeofs(tmp_path, "check", "Data.fs")
    assert "8 transactions" in printed
    assert printed.endswith("Data.fs: no faults\n")
    (report,) = json_lines(zeofs(tmp_path, "check", "--json", "Data.fs"))
    assert report["objects"] == 7
    assert report["faults"] == []


def test_a_damaged_file_has_status_1_and_positions(tmp_path: Path) -> None:
    content = bytearray(zodb_file(tmp_path / "Data.fs"))
    content[4 + 16] = 120
    (tmp_path / "Data.fs").write_bytes(content)
    printed = zeofs(tmp_path, "check", "Data.fs", status=1)
    assert printed.startswith("Data.fs: at byte 4: no transaction header")
    (report,) = json_lines(zeofs(tmp_path, "check", "--json", "Data.fs", status=1))
    assert report["fault_count"] >= 1
    assert report["faults"][0]["position"] == 4


def test_references_are_looked_at_unless_told_otherwise(tmp_path: Path) -> None:
    (tmp_path / "Data.fs").write_bytes(File().add((ROOT_OID, record(pack_id(1)))).content)
    assert "oid 0x00 refers to oid 0x01, which does not exist" in zeofs(tmp_path, "check", "Data.fs", status=1)
    assert "references were not looked at" in zeofs(tmp_path, "check", "--no-references", "Data.fs")


def test_what_cannot_be_checked_has_status_2(tmp_path: Path) -> None:
    assert zeofs(tmp_path, "check", "No.fs", status=2) == "zeofs: No.fs: No such file or directory\n"
    (tmp_path / "text").write_text("hello")
    assert "no Data.fs" in zeofs(tmp_path, "check", "text", status=2)


def test_a_file_that_a_server_has_open(start_zeod: StartZeod, tmp_path: Path) -> None:
    server = start_zeod("-f", "Data.fs")
    with RawClient(server.address) as client:
        client.commit({ROOT_OID: (ZERO_TID, record())})
        assert "1 transaction," in zeofs(tmp_path, "check", "Data.fs")


def test_blobs_found_beside_or_named(tmp_path: Path) -> None:
    zodb_blobs(tmp_path)
    assert "blobs: 8 records of blobs, 8 files, bushy\n" in zeofs(tmp_path, "check", "Data.fs")
    (tmp_path / "blobs").rename(tmp_path / "elsewhere")
    assert "of blobs" not in zeofs(tmp_path, "check", "Data.fs")
    assert "8 records of blobs" in zeofs(tmp_path, "check", "--blob-dir", "elsewhere", "Data.fs")
    blob_paths(tmp_path / "elsewhere")[0].unlink()
    assert "is missing" in zeofs(tmp_path, "check", "--blob-dir", "elsewhere", "Data.fs", status=1)
    (report,) = json_lines(zeofs(tmp_path, "check", "--json", "--blob-dir", "elsewhere", "Data.fs", status=1))
    assert (report["blobs"]["records"], report["blobs"]["files"]) == (8, 7)
    assert "no faults" in zeofs(tmp_path, "check", "--no-blobs", "--blob-dir", "elsewhere", "Data.fs")
