"""The files in init/: the SysV script as an administrator uses it, and what the unit files say."""

import configparser
import getpass
import os
import subprocess
import sys
from pathlib import Path

import pytest

import zeo_client

INIT = Path(__file__).parents[2] / "init"


class Script:
    """init/zeod, with everything it needs in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "zeod.sock"
        daemon = directory / "zeod"
        daemon.write_text(f'#!/bin/sh\nexec {sys.executable} -m zeo_server.cli.zeod "$@"\n')
        daemon.chmod(0o755)
        self.configure(
            f"<zeo>\naddress {self.socket}\n</zeo>\n<filestorage>\npath {directory}/Data.fs\n</filestorage>\n"
        )
        self._environment = {
            **os.environ,
            "DAEMON": str(daemon),
            "CONFIG": str(directory / "zeo.conf"),
            "PIDFILE": str(directory / "run" / "zeod.pid"),
            "LOGFILE": str(directory / "zeod.log"),
            "RUN_AS": getpass.getuser(),
        }

    def configure(self, text: str) -> None:
        (self.directory / "zeo.conf").write_text(text)

    def __call__(self, command: str) -> tuple[int, str]:
        done = subprocess.run(
            [str(INIT / "zeod"), command], env=self._environment, capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stdout + done.stderr


def test_a_servers_day(tmp_path: Path) -> None:
    script = Script(tmp_path)
    assert script("status") == (3, "zeod is not running\n")
    assert script("stop") == (0, "zeod is not running\n")
    status, text = script("start")
    try:
        assert status == 0, text
        assert "zeod started, process " in text
        assert script("status")[0] == 0
        assert "is running already" in script("start")[1]
        with zeo_client.open(f"zeo://{script.socket}") as db, db.transaction() as conn:
            conn.root()["key"] = "value"
        assert script("reload") == (0, "zeod reads its configuration anew\n")
        status, text = script("restart")
        assert status == 0, text
        with zeo_client.open(f"zeo://{script.socket}") as db, db.transaction() as conn:
            assert conn.root()["key"] == "value"
    finally:
        assert script("stop") == (0, "zeod stopped\n")
    assert script("status")[0] == 3
    assert "configuration reloaded" in (tmp_path / "zeod.log").read_text()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.configure("<zeo>\n</zeo>\n")
    status, text = script("start")
    assert status == 1
    assert "zeo.conf" in text
    assert script("reload")[0] == 7
    assert script("nonsense")[0] == 2


@pytest.mark.parametrize("name", ["zeod.service", "zeod.socket"])
def test_the_unit_files_can_be_read(name: str) -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.read_string((INIT / name).read_text())
    assert unit.has_section("Unit")
    assert unit.has_section("Install")
