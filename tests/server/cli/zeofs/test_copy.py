"""`zeofs copy` in a process."""

from pathlib import Path

from tests.fixtures_zeod import StartZeod
from tests.server.cli.zeofs.run import zeofs
from tests.server.raw_client import RawClient
from tests.server.storages.file.damaged import zodb_file
from zeo_core.ids import ROOT_OID, ZERO_TID


def test_a_copy_is_the_same(tmp_path: Path) -> None:
    content = zodb_file(tmp_path / "Data.fs")
    assert zeofs(tmp_path, "copy", "Data.fs", "Copy.fs") == "Copy.fs: 8 transactions copied\n"
    assert (tmp_path / "Copy.fs").read_bytes() == content
    assert "exists already" in zeofs(tmp_path, "copy", "Data.fs", "Copy.fs", status=2)


def test_of_a_served_file_until_a_moment(start_zeod: StartZeod, tmp_path: Path) -> None:
    server = start_zeod("-f", "Data.fs")
    with RawClient(server.address) as client:
        first = client.commit({ROOT_OID: (ZERO_TID, b"one")})
        client.commit({ROOT_OID: (first, b"two")})
        assert "1 transaction " in zeofs(tmp_path, "copy", "--until", "0x" + first.hex(), "Data.fs", "First.fs")
        assert "2 transactions " in zeofs(tmp_path, "copy", "Data.fs", "Both.fs")
    assert "is no time" in zeofs(tmp_path, "copy", "--until", "x", "Data.fs", "No.fs", status=2)


def test_a_damaged_file_leaves_no_copy(tmp_path: Path) -> None:
    content = bytearray(zodb_file(tmp_path / "Data.fs"))
    (tmp_path / "Data.fs.index").unlink()
    content[4 + 16] = 120
    (tmp_path / "Data.fs").write_bytes(content)
    assert "damaged at byte 4" in zeofs(tmp_path, "copy", "Data.fs", "Copy.fs", status=2)
    assert not list(tmp_path.glob("Copy.fs*"))
