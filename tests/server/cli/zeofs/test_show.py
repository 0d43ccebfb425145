"""`zeofs show` in a process."""

from pathlib import Path

from tests.server.cli.zeofs.run import json_lines, zeofs
from tests.server.storages.file.build import File
from tests.server.storages.file.damaged import zodb_file
from tests.server.storages.file.test_graph import record
from zeo_core.ids import ROOT_OID, pack_id

A, B = pack_id(1), pack_id(2)


def test_an_object_of_zodbs(tmp_path: Path) -> None:
    zodb_file(tmp_path / "Data.fs")
    lines = zeofs(tmp_path, "show", "Data.fs", "0").splitlines()
    assert lines[0].startswith("0x00  persistent.mapping.PersistentMapping  ")
    assert "5 references" in lines
    assert "8 revisions, newest first" in lines
    (fields,) = json_lines(zeofs(tmp_path, "show", "--json", "--history", "2", "Data.fs", "0x0"))
    assert fields["references"][0]["class"] == "persistent.mapping.PersistentMapping"
    assert [entry["description"] for entry in fields["history"]] == ["undo", "commit 5"]


def test_deleted_unreadable_dangling_and_past(tmp_path: Path) -> None:
    file = File().add((ROOT_OID, record(A, B)), (A, record())).add((A, 0)).add((ROOT_OID, b"no pickle"))
    (tmp_path / "Data.fs").write_bytes(file.content)
    assert zeofs(tmp_path, "show", "Data.fs", "1").startswith("0x01  deleted\n")
    assert "its record cannot be read" in zeofs(tmp_path, "show", "Data.fs", "0")
    past = zeofs(tmp_path, "show", "--at", "0x1", "Data.fs", "0")
    assert "0x02  (does not exist)" in past
    assert "0x01  x.Y" in zeofs(tmp_path, "show", "--at", "0x1", "Data.fs", "1")
    assert "no object with oid 0x02" in zeofs(tmp_path, "show", "Data.fs", "2", status=2)
    assert "no object with oid 0x01" in zeofs(tmp_path, "show", "--at", "0x0", "Data.fs", "1", status=2)
    assert "is no oid" in zeofs(tmp_path, "show", "Data.fs", "x", status=2)
