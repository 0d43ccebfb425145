"""`zeofs stats` in a process."""

from pathlib import Path

from tests.server.cli.zeofs.run import json_lines, zeofs
from tests.server.storages.file.damaged import zodb_file


def test_a_table_and_json(tmp_path: Path) -> None:
    zodb_file(tmp_path / "Data.fs")
    lines = zeofs(tmp_path, "stats", "Data.fs").splitlines()
    assert "8 transactions from 2" in lines[0]
    assert lines[2].split()[:2] == ["objects", "bytes"]
    assert lines[3].endswith("  persistent.mapping.PersistentMapping")
    (report,) = json_lines(zeofs(tmp_path, "stats", "--json", "Data.fs"))
    assert report["classes"][0]["name"] == "persistent.mapping.PersistentMapping"
    assert report["objects"] == report["classes"][0]["objects"] == 6


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "Data.fs").write_bytes(b"FS30")
    assert "0 objects" in zeofs(tmp_path, "stats", "Data.fs")
    assert "No such file" in zeofs(tmp_path, "stats", "No.fs", status=2)


def test_a_picture(tmp_path: Path) -> None:
    zodb_file(tmp_path / "Data.fs")
    zeofs(tmp_path, "stats", "--plot", "classes.png", "Data.fs")
    assert (tmp_path / "classes.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
