"""`zeofs restore` in a process."""

from pathlib import Path

from tests.server.cli.zeofs.run import zeofs
from tests.server.storages.file.build import File
from zeo_core.ids import pack_id


def test_to_a_moment_and_verified(tmp_path: Path) -> None:
    file = File().add((pack_id(1), b"one"))
    first = file.content
    (tmp_path / "Data.fs").write_bytes(file.add((pack_id(1), b"two")).content)
    zeofs(tmp_path, "backup", "Data.fs", "backups")
    zeofs(tmp_path, "restore", "--at", "0x1", "backups", "First.fs")
    assert (tmp_path / "First.fs").read_bytes() == first
    assert "exists already" in zeofs(tmp_path, "restore", "backups", "First.fs", status=2)
    assert "as they were made" in zeofs(tmp_path, "restore", "--verify", "backups")
    (part,) = (tmp_path / "backups").glob("*.full")
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    assert "backups: damaged" in zeofs(tmp_path, "restore", "--verify", "backups", status=1)
    assert part.name in zeofs(tmp_path, "restore", "backups", "Other.fs", status=2)
    assert "Missing argument 'TARGET'" in zeofs(tmp_path, "restore", "backups", status=2)
