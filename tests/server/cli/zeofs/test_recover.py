"""`zeofs recover` in a process."""

from pathlib import Path

from tests.server.cli.zeofs.run import json_lines, zeofs
from tests.server.storages.file.damaged import zodb_file


def test_a_damaged_file(tmp_path: Path) -> None:
    content = zodb_file(tmp_path / "Data.fs")
    (tmp_path / "Data.fs").write_bytes(content[:4] + bytes(30) + content[34:])
    printed = zeofs(tmp_path, "recover", "Data.fs", "Saved.fs", status=1)
    assert printed.startswith("Data.fs: lost: bytes 4 to ")
    assert "Saved.fs: " in printed
    zeofs(tmp_path, "check", "--no-references", "Saved.fs")
    (report,) = json_lines(zeofs(tmp_path, "recover", "--json", "Data.fs", "Again.fs", status=1))
    assert report["loss_count"] == len(report["losses"]) >= 1


def test_a_good_file_and_an_existing_target(tmp_path: Path) -> None:
    zodb_file(tmp_path / "Data.fs")
    assert "8 transactions" in zeofs(tmp_path, "recover", "Data.fs", "Saved.fs")
    assert "exists already" in zeofs(tmp_path, "recover", "Data.fs", "Saved.fs", status=2)
    assert "No such file" in zeofs(tmp_path, "recover", "None.fs", "Other.fs", status=2)
