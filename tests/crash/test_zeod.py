"""zeod after kill -9 under clients that commit: what was acknowledged is there, whole, and ZODB opens the file."""

import random
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import IO

import pytest
from ZODB.FileStorage import FileStorage as ZODBFileStorage
from ZODB.scripts import fstest

from tests.crash.client import OBJECTS, oid_of
from tests.fixtures_zeod import StartZeod
from zeo_server.storages.file import FileStorage

ROOT = Path(__file__).parents[2]
CLIENTS = 3
TIMEOUT_S = 60


def kill_under_load(start_zeod: StartZeod, acknowledged: list[int], commits: int) -> None:
    """Run a server and its clients, kill it after so many commits of the first; update what is acknowledged."""
    server = start_zeod("-f", "Data.fs")
    programs = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.crash.client", server.url.removeprefix("zeo://"), str(lane)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        for lane in range(CLIENTS)
    ]
    said = [output_of(program).readline() for program in programs]  # all of them are at work
    said[0] += b"".join(output_of(programs[0]).readline() for _ in range(commits))
    server.kill()
    for lane, program in enumerate(programs):
        with output_of(program) as output:
            said[lane] += output.read()  # not communicate, which does not know what readline has read ahead
        assert program.wait(TIMEOUT_S) == 0
        acknowledged[lane] = int(said[lane].split()[-1])


def output_of(program: "subprocess.Popen[bytes]") -> IO[bytes]:
    assert program.stdout is not None
    return program.stdout


def assert_sound(path: Path, acknowledged: list[int]) -> None:
    """Assert that every lane has what was acknowledged, or the one commit more that was on its way."""
    with closing(FileStorage(path)) as storage:
        for lane, turn in enumerate(acknowledged):
            found = {int(storage.load(oid_of(lane, number))[0].split()[0]) for number in range(OBJECTS)}
            assert len(found) == 1
            assert found <= {turn, turn + 1}
            acknowledged[lane] = found.pop()
    fstest.main([str(path)])
    with closing(ZODBFileStorage(str(path))) as zodb:
        assert len(zodb) == CLIENTS * OBJECTS


def kill_and_look(start_zeod: StartZeod, tmp_path: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    acknowledged = [0] * CLIENTS
    for _ in range(kills):
        kill_under_load(start_zeod, acknowledged, chance.randrange(5, 60))
        assert_sound(tmp_path / "Data.fs", acknowledged)
        if chance.random() < 0.5:
            (tmp_path / "Data.fs.index").unlink(missing_ok=True)


def test_kill_under_load(start_zeod: StartZeod, tmp_path: Path) -> None:
    kill_and_look(start_zeod, tmp_path, 3, seed=3)


@pytest.mark.slow
def test_kill_fifty_times_under_load(start_zeod: StartZeod, tmp_path: Path) -> None:
    kill_and_look(start_zeod, tmp_path, 50, seed=4)
