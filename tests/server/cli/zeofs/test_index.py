"""`zeofs index` in a process."""

from pathlib import Path

from tests.fixtures_zeod import StartZeod
from tests.server.cli.zeofs.run import zeofs
from tests.server.storages.file.damaged import zodb_file


def test_compared_and_made_anew(tmp_path: Path) -> None:
    content = zodb_file(tmp_path / "Data.fs")
    assert zeofs(tmp_path, "index", "Data.fs") == "Data.fs.index: agrees\n"
    (tmp_path / "Data.fs.index").unlink()
    assert zeofs(tmp_path, "index", "Data.fs", status=1) == "Data.fs.index: missing\n"
    assert "made, 7 objects" in zeofs(tmp_path, "index", "--rebuild", "Data.fs")
    zodb_file(tmp_path / "Other.fs", 9)
    (tmp_path / "Other.fs.index").replace(tmp_path / "Data.fs.index")
    assert zeofs(tmp_path, "index", "Data.fs", status=1).endswith("Data.fs.index: wrong\n")
    (tmp_path / "Data.fs").write_bytes(content[:20] + b"x" + content[21:])
    assert "see zeofs check" in zeofs(tmp_path, "index", "Data.fs", status=2)


def test_not_made_while_a_server_has_the_file(start_zeod: StartZeod, tmp_path: Path) -> None:
    start_zeod("-f", "Data.fs")
    assert "in use by another process" in zeofs(tmp_path, "index", "--rebuild", "Data.fs", status=2)
