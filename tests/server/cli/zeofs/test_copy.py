"""`zeofs copy` in a process."""

import subprocess
import sys
from pathlib import Path

from tests.fixtures_runzeo import StartRunZEO
from tests.fixtures_zeod import StartZeod
from tests.server.cli.zeofs.run import zeofs
from tests.server.raw_client import RawClient
from tests.server.storages.file.blob_files import blob_paths, zodb_blobs
from tests.server.storages.file.build import File
from tests.server.storages.file.damaged import zodb_file
from zeo_core.ids import ROOT_OID, ZERO_TID, pack_id


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


def test_blobs_come_along(tmp_path: Path) -> None:
    zodb_blobs(tmp_path)
    assert zeofs(tmp_path, "copy", "Data.fs", "Copy.fs") == "Copy.fs: 8 transactions with 8 blobs copied\n"
    assert "8 records of blobs, 8 files" in zeofs(tmp_path, "check", "Copy.fs")
    assert zeofs(tmp_path, "copy", "--no-blobs", "Data.fs", "Bare.fs") == "Bare.fs: 8 transactions copied\n"
    (tmp_path / "blobs").rename(tmp_path / "elsewhere")
    assert "8 blobs could not be copied" in zeofs(tmp_path, "copy", "Data.fs", "Lost.fs", status=1)
    options = ("--blob-dir", "elsewhere", "--to-blob-dir", "there")
    assert "with 8 blobs copied" in zeofs(tmp_path, "copy", *options, "Data.fs", "Other.fs")
    assert len(blob_paths(tmp_path / "there")) == 8


def test_through_a_server_and_back(start_zeod: StartZeod, tmp_path: Path) -> None:
    content = zodb_file(tmp_path / "Data.fs")
    server = start_zeod("-f", "Served.fs", "-a", "./socket")
    assert "8 transactions copied" in zeofs(tmp_path, "copy", "Data.fs", server.url)
    assert "has transactions already" in zeofs(tmp_path, "copy", "Data.fs", server.url, status=2)
    assert "0 transactions copied, 8 compared" in zeofs(tmp_path, "copy", "--resume", "Data.fs", server.url)
    assert "8 transactions copied" in zeofs(tmp_path, "copy", server.url, "Back.fs")
    assert (tmp_path / "Back.fs").read_bytes() == content
    server.stop()
    assert (tmp_path / "Served.fs").read_bytes() == content


def test_what_cannot_be_reached(start_zeod: StartZeod, tmp_path: Path) -> None:
    server = start_zeod("-f", "Data.fs")
    assert isinstance(server.address, tuple)
    host, port = server.address
    assert "other" in zeofs(tmp_path, "copy", f"zeo://{host}:{port}/other", "Copy.fs", status=2)
    assert not list(tmp_path.glob("Copy.fs*"))
    assert "No.fs" in zeofs(tmp_path, "copy", "No.fs", "Copy.fs", status=2)


def test_dry_run_and_memory_leave_nothing(tmp_path: Path) -> None:
    zodb_file(tmp_path / "Data.fs")
    before = sorted(tmp_path.iterdir())
    assert "8 transactions would be copied" in zeofs(tmp_path, "copy", "--dry-run", "Data.fs", "Copy.fs")
    assert "8 transactions copied" in zeofs(tmp_path, "copy", "Data.fs", "memory://")
    assert sorted(tmp_path.iterdir()) == before


def test_one_that_is_killed_is_gone_on_with(tmp_path: Path) -> None:
    file = File()
    for number in range(1, 4000):
        file.add((pack_id(number), b"x" * 5000))
    (tmp_path / "Data.fs").write_bytes(file.content)
    command = [sys.executable, "-m", "zeo_server.cli.zeofs.main", "copy", "Data.fs", "Copy.fs"]
    process = subprocess.Popen(command, cwd=tmp_path)
    part = tmp_path / "Copy.fs.part"
    while not (part.exists() and part.stat().st_size > 4_000_000) and process.poll() is None:
        pass
    process.kill()
    process.wait()
    assert part.exists()
    assert "cut short: go on with --resume" in zeofs(tmp_path, "copy", "Data.fs", "Copy.fs", status=2)
    zeofs(tmp_path, "copy", "--resume", "Data.fs", "Copy.fs")
    assert (tmp_path / "Copy.fs").read_bytes() == file.content
    file.add((ROOT_OID, b"later"))
    (tmp_path / "Data.fs").write_bytes(file.content)
    assert "1 transaction copied, 3,999 compared" in zeofs(tmp_path, "copy", "--resume", "Data.fs", "Copy.fs")
    assert (tmp_path / "Copy.fs").read_bytes() == file.content


def test_blobs_from_a_server(start_zeod: StartZeod, tmp_path: Path) -> None:
    zodb_blobs(tmp_path)
    configuration = (
        "<zeo>\naddress 127.0.0.1:0\n</zeo>\n<filestorage main>\npath Data.fs\nblob-dir blobs\n</filestorage>\n"
    )
    (tmp_path / "zeo.conf").write_text(configuration)
    assert "with 8 blobs copied" in zeofs(tmp_path, "copy", "zeo.conf#main", "Section.fs")
    server = start_zeod("-C", "zeo.conf")
    assert isinstance(server.address, tuple)
    where = f"zeo://127.0.0.1:{server.address[1]}/main"
    assert "with 8 blobs copied" in zeofs(tmp_path, "copy", where, "Copy.fs")
    assert (tmp_path / "Copy.fs").read_bytes() == (tmp_path / "Data.fs").read_bytes()
    assert contents(tmp_path / "Copy.fs.blobs") == contents(tmp_path / "blobs")


def test_blobs_to_a_server(start_zeod: StartZeod, tmp_path: Path) -> None:
    zodb_blobs(tmp_path)
    (tmp_path / "zeo.conf").write_text(
        "<zeo>\naddress ./socket\n</zeo>\n<filestorage>\npath Served.fs\nblob-dir served\n</filestorage>\n"
    )
    server = start_zeod("-C", "zeo.conf")
    assert "8 transactions with 8 blobs copied" in zeofs(tmp_path, "copy", "Data.fs", server.url)
    server.stop()
    assert (tmp_path / "Served.fs").read_bytes() == (tmp_path / "Data.fs").read_bytes()
    assert contents(tmp_path / "served") == contents(tmp_path / "blobs")
    bare = start_zeod("-f", "Bare.fs")
    assert "keeps no blobs" in zeofs(tmp_path, "copy", "Data.fs", bare.url, status=2)


def contents(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in blob_paths(directory)]


def test_from_a_server_of_zeos_and_to_one(start_runzeo: StartRunZEO, tmp_path: Path) -> None:
    content = zodb_file(tmp_path / "Data.fs")
    source = start_runzeo(tmp_path / "Data.fs").address
    target = start_runzeo(tmp_path / "Theirs.fs").address
    zeofs(tmp_path, "copy", f"zeo://127.0.0.1:{source[1]}", "Ours.fs")
    zeofs(tmp_path, "copy", "Ours.fs", f"zeo://127.0.0.1:{target[1]}")
    assert zeofs(tmp_path, "dump", "--json", "Theirs.fs") == zeofs(tmp_path, "dump", "--json", "Data.fs")
    assert (tmp_path / "Ours.fs").read_bytes() == content
