"""`zeofs dump` and `zeofs tail` in processes."""

from pathlib import Path

from tests.fixtures_zeod import StartZeod
from tests.server.cli.zeofs.run import json_lines, zeofs
from tests.server.raw_client import RawClient
from tests.server.storages.file.build import File
from tests.server.storages.file.damaged import zodb_file
from tests.server.storages.file.test_graph import record
from zeo_core.ids import ROOT_OID, ZERO_TID, pack_id
from zeo_core.transaction import extension_bytes


def built(tmp_path: Path) -> None:
    extension = extension_bytes({"when": b"now", "n": 1})
    file = File().add((pack_id(1), record()), (pack_id(2), record()), metadata=(b"jim", b"one\ntwo", extension))
    file.add((pack_id(1), 0), status=b"p").add((pack_id(2), file.records[0][1]))
    (tmp_path / "Data.fs").write_bytes(file.content)


def test_for_programs(tmp_path: Path) -> None:
    built(tmp_path)
    first, second, third = json_lines(zeofs(tmp_path, "dump", "--json", "Data.fs"))
    assert (first["tid"], first["user"], first["description"]) == ("0x0000000000000001", "jim", "one\ntwo")
    assert first["extension"] == {"when": "now", "n": 1}
    assert first["records"][0] == {"oid": "0x01", "class": "x.Y", "size": len(record()), "repeats": None}
    assert second["packed"] is True
    assert second["records"][0]["size"] is None
    assert third["records"][0]["repeats"] == "0x0000000000000001"
    assert "records" not in json_lines(zeofs(tmp_path, "dump", "--json", "--no-records", "Data.fs"))[0]


def test_for_people(tmp_path: Path) -> None:
    built(tmp_path)
    lines = zeofs(tmp_path, "dump", "Data.fs").splitlines()
    assert len(lines) == 3 + 4
    assert lines[0].startswith("0x0000000000000001  1900-01-01T")
    assert lines[0].endswith("jim  one / two")
    assert lines[1].split() == ["0x01", str(len(record())), "B", "x.Y"]
    assert "packed" in lines[3]
    assert "deleted" in lines[4]
    assert "repeats 0x0000000000000001" in lines[6]


def test_chosen_transactions(tmp_path: Path) -> None:
    built(tmp_path)
    for options, tids in (
        (["--since", "0x2"], [2, 3]),
        (["--until", "0x2"], [1, 2]),
        (["--oid", "1"], [1, 2]),
        (["--oid", "77"], []),
    ):
        printed = json_lines(zeofs(tmp_path, "dump", "--json", *options, "Data.fs"))
        assert [int(line["tid"], 16) for line in printed] == tids


def test_the_last_ones(tmp_path: Path) -> None:
    zodb_file(tmp_path / "Data.fs")
    printed = json_lines(zeofs(tmp_path, "tail", "--json", "-n", "2", "Data.fs"))
    assert [line["description"] for line in printed] == ["commit 5", "undo"]
    assert len(zeofs(tmp_path, "tail", "Data.fs").splitlines()) == 8
    (tmp_path / "Empty.fs").write_bytes(b"FS30")
    assert zeofs(tmp_path, "tail", "Empty.fs") == zeofs(tmp_path, "dump", "Empty.fs") == ""


def test_of_a_served_file_and_of_none(start_zeod: StartZeod, tmp_path: Path) -> None:
    server = start_zeod("-f", "Data.fs")
    with RawClient(server.address) as client:
        tid = client.commit({ROOT_OID: (ZERO_TID, record())})
        assert f"0x{tid.hex()}" in zeofs(tmp_path, "tail", "--records", "Data.fs")
        assert f"0x{tid.hex()}" in zeofs(tmp_path, "dump", "Data.fs")
    for command in ("dump", "tail"):
        assert "No such file" in zeofs(tmp_path, command, "No.fs", status=2)
