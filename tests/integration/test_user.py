"""A zeod that root starts and that serves as another user."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import zeo_client
from tests.fixtures_zeod import StartZeod

NOBODY = pwd.getpwnam("nobody")
PYTHON = [sys.executable, "-m", "zeo_server.cli.zeod"]


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that everybody can go through, unlike tmp_path, with one in it that belongs to nobody."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    (directory / "data").mkdir()
    if os.geteuid() == 0:
        os.chown(directory / "data", NOBODY.pw_uid, NOBODY.pw_gid)
    yield directory
    shutil.rmtree(directory)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@needs_root
@pytest.mark.parametrize("address", ["127.0.0.1:0", "./zeod.sock"])
def test_it_binds_as_root_and_serves_as_the_user(start_zeod: StartZeod, open_directory: Path, address: str) -> None:
    (open_directory / "zeo.conf").write_text(
        f"<zeo>\naddress {address}\nuser nobody\npid-filename {open_directory}/zeod.pid\n</zeo>\n"
        f"<filestorage>\npath data/Data.fs\n</filestorage>\n"
        f"<eventlog>\n<logfile>\npath data/zeod.log\n</logfile>\n</eventlog>\n"
    )
    server = start_zeod("-C", "zeo.conf", directory=open_directory)
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{server.pid}/status").read_text().splitlines())
    assert set(status["Uid"].split()) == {str(NOBODY.pw_uid)}
    assert set(status["Gid"].split()) == {str(NOBODY.pw_gid)}
    assert set(map(int, status["Groups"].split())) == set(os.getgrouplist("nobody", NOBODY.pw_gid))
    assert (open_directory / "zeod.pid").stat().st_uid == 0
    with zeo_client.DB(zeo_client.ClientStorage(server.address)) as db, db.transaction() as conn:
        conn.root()["served by"] = "nobody"
    assert server.stop() == 0
    assert {path.stat().st_uid for path in (open_directory / "data").iterdir()} == {NOBODY.pw_uid}


@needs_root
def test_what_belongs_to_root_alone_is_not_opened(open_directory: Path) -> None:
    (open_directory / "secret").mkdir(mode=0o700)
    done = subprocess.run(
        [*PYTHON, "-a", "127.0.0.1:0", "-f", "secret/Data.fs", "--user", "nobody"],
        cwd=open_directory,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "Permission denied" in done.stderr
    assert not list((open_directory / "secret").iterdir())


def test_a_user_that_there_is_not(tmp_path: Path) -> None:
    done = subprocess.run(
        [*PYTHON, "-f", "Data.fs", "--user", "nobody-of-that-name", "--check"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "user nobody-of-that-name: there is no such user" in done.stdout
