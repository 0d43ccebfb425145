"""kill -9 while commits and packs are under way: nothing acknowledged is lost, nothing half done is left."""

import os
import random
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from ZODB.FileStorage import FileStorage as ZODBFileStorage
from ZODB.scripts import fstest

from tests.client.peer import until
from tests.crash import packer
from zeo_core.errors import FileLockedError
from zeo_core.ids import pack_id
from zeo_server.storages.file import FileStorage

ROOT = Path(__file__).parents[2]


def work_until_killed(path: Path, lines: int) -> int:
    """Run the program, kill it after `lines` acknowledged transactions, and return the last one."""
    command = [sys.executable, "-m", "tests.crash.packer", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        said += process.stdout.readlines()
    return int([line for line in said if line.endswith(b"\n")][-1])


def opened(path: Path) -> FileStorage | None:
    """Open the file; None while a packer that its killed owner was just starting holds the lock, up to its exec."""
    try:
        return FileStorage(path)
    except FileLockedError:
        return None


def assert_sound(path: Path, acknowledged: int) -> None:
    storage = until(lambda: opened(path), pause_s=0.01)
    assert storage is not None
    with closing(storage):
        # A packer that had just been started may still make its files and, having found that its owner is gone,
        # remove them.
        deadline = time.monotonic() + 30
        while [name for name in os.listdir(path.parent) if ".pack" in name]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        packer.check(storage, acknowledged)
        last_tid = storage.last_tid()
    fstest.main([str(path)])
    with closing(ZODBFileStorage(str(path), read_only=True)) as zodb:
        assert zodb.lastTransaction() == last_tid
        assert zodb.load(pack_id(1), "")


@pytest.mark.parametrize("seed", range(3))
def test_killed_while_packing_and_committing(tmp_path: Path, seed: int) -> None:
    kill_again_and_again(tmp_path, seed, 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 120))
def test_killed_many_times(tmp_path: Path, seed: int) -> None:
    kill_again_and_again(tmp_path, seed, 10)


def kill_again_and_again(directory: Path, seed: int, rounds: int) -> None:
    chance = random.Random(seed)
    path = directory / "Data.fs"
    for _ in range(rounds):
        assert_sound(path, work_until_killed(path, chance.randint(2, 2000)))
