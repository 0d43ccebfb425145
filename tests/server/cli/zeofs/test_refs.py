"""`zeofs refs` in a process."""

from pathlib import Path

from tests.server.cli.zeofs.run import json_lines, run, zeofs
from tests.server.storages.file.build import File
from tests.server.storages.file.test_graph import record
from zeo_core.ids import ROOT_OID, pack_id

A, B = pack_id(1), pack_id(2)


def test_who_refers_to_an_object(tmp_path: Path) -> None:
    (tmp_path / "Data.fs").write_bytes(File().add((ROOT_OID, record(A)), (A, record())).content)
    assert zeofs(tmp_path, "refs", "Data.fs", "1") == "0x00  x.Y\nData.fs: 1 reference\n"
    (line,) = json_lines(zeofs(tmp_path, "refs", "--json", "Data.fs", "0x01"))
    assert (line["oid"], line["refers_to"], line["position"]) == ("0x00", "0x01", 27)
    assert zeofs(tmp_path, "refs", "Data.fs") == "Data.fs: 0 dangling references\n"
    assert "no object with oid 0x4d" in zeofs(tmp_path, "refs", "Data.fs", "77", status=2)


def test_dangling_references_and_unreadable_records_have_status_1(tmp_path: Path) -> None:
    (tmp_path / "Data.fs").write_bytes(File().add((ROOT_OID, record(A))).content)
    assert "0x00  x.Y  refers to 0x01, which does not exist" in zeofs(tmp_path, "refs", "Data.fs", status=1)
    (tmp_path / "Other.fs").write_bytes(File().add((ROOT_OID, b"no pickle")).content)
    done = run(tmp_path, "refs", "Other.fs")
    assert done.returncode == 1
    assert "at byte 27: the record of oid 0x00" in done.stderr
