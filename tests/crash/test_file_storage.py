"""FileStorage after kill -9 in the middle of commits: every acknowledged commit is there, and no part of one."""

import random
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from ZODB.FileStorage import FileStorage as ZODBFileStorage
from ZODB.scripts import fstest

from tests.crash.committer import LANES, OBJECTS, oid_of
from zeo_server.storages.file import FileStorage

ROOT = Path(__file__).parents[2]


def commit_until_killed(path: Path, groups: int, jitter: int) -> int:
    """Run the committer, kill it after `groups` acknowledged groups, and return the last acknowledged turn."""
    command = [sys.executable, "-m", "tests.crash.committer", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(groups)]
        for _ in range(jitter):
            pass  # no condition to wait for: the point in the next group at which it dies is to be anywhere
        process.kill()
        lines += process.stdout.readlines()
    return int([line for line in lines if line.endswith(b"\n")][-1])


def turn_of(data: bytes) -> int:
    return int(data.split()[0])


def assert_sound(path: Path, acknowledged: int) -> None:
    """Assert that the log has every transaction whole up to `acknowledged`, and at most one group more."""
    with closing(FileStorage(path)) as storage:
        turns: Counter[int] = Counter()
        for transaction in storage.transactions():
            records = list(transaction.records)
            assert len(records) == OBJECTS
            assert len({record.data for record in records}) == 1
            turns[turn_of(records[0].data or b"")] += 1
        current = [{turn_of(storage.load(oid_of(lane, n))[0]) for n in range(OBJECTS)} for lane in range(LANES)]
    assert set(turns) in ({*range(1, acknowledged + 1)}, {*range(1, acknowledged + 2)})
    assert all(turns[turn] >= LANES for turn in range(1, acknowledged + 1))
    assert all(len(lane) == 1 and lane <= {acknowledged, acknowledged + 1} for lane in current)
    fstest.main([str(path)])
    with closing(ZODBFileStorage(str(path))) as zodb:
        assert len(zodb) == LANES * OBJECTS


def kill_and_look(tmp_path: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    path = tmp_path / "Data.fs"
    for _ in range(kills):
        acknowledged = commit_until_killed(path, chance.randrange(1, 25), chance.randrange(20_000))
        assert_sound(path, acknowledged)
        if chance.random() < 0.5:
            (tmp_path / "Data.fs.index").unlink()


def test_kill_in_the_middle_of_commits(tmp_path: Path) -> None:
    kill_and_look(tmp_path, 4, seed=1)


@pytest.mark.slow
def test_kill_fifty_times_in_the_middle_of_commits(tmp_path: Path) -> None:
    kill_and_look(tmp_path, 50, seed=2)
