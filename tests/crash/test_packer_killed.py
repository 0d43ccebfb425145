"""kill -9 of the packer alone, at any moment: its owner goes on, and nothing has happened to the database."""

import os
import random
import signal
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from ZODB.scripts import fstest

from tests.server.storages.file.graphs import commit, node, state
from zeo_core.errors import StorageError
from zeo_core.ids import pack_id
from zeo_server.storages.file import FileStorage

OBJECTS = 300
OIDS = [pack_id(number) for number in range(OBJECTS)]


def kill_packers(directory: Path, seed: int, rounds: int) -> None:
    """Pack again and again, committing at each step, and kill the packer at a moment before it would be done."""
    chance = random.Random(seed)
    path = directory / "Data.fs"
    outcomes = set()
    with closing(FileStorage(path)) as storage:
        objects = {number: node(text="first" * 100) for number in range(1, OBJECTS)}
        commit(storage, objects | {0: node(*range(1, OBJECTS))})
        longest_s = packed_in_s(storage)
        for turn in range(rounds):
            commit(storage, {number: node(text=f"turn {turn}" * 100) for number in range(1, OBJECTS, 3)})
            after_s = chance.uniform(0, longest_s) if turn else 0
            outcomes.add(pack_and_kill(storage, after_s, turn))
            assert not list(directory.glob("*.pack*"))
        packed_in_s(storage)
        expected = state(storage, OIDS)
        assert len(expected) == OBJECTS
    assert {"killed"} <= outcomes <= {"killed", "packed"}
    fstest.main([str(path)])
    with closing(FileStorage(path)) as reopened:
        assert state(reopened, OIDS) == expected


def packed_in_s(storage: FileStorage) -> float:
    """Pack and return how long it took from the first step on, at which the packer is under way."""
    steps = storage.pack_steps(time.time() + 3600)
    next(steps)
    start = time.monotonic()
    for step, _ in enumerate(steps):
        commit(storage, {1 + step % 9: node(text=f"step {step}")})
    return time.monotonic() - start


def pack_and_kill(storage: FileStorage, after_s: float, turn: int) -> str:
    """Pack, kill the packer some time after its first step, and return which of the two came first."""
    before = state(storage, OIDS)
    steps = storage.pack_steps(time.time() + 3600)
    next(steps)
    run = storage._pack_run
    assert run is not None
    assert run._packer is not None
    timer = threading.Timer(after_s, os.kill, (run._packer._process.pid, signal.SIGKILL))
    timer.start()
    outcome = "packed"
    try:
        for step, _ in enumerate(steps):
            commit(storage, {1 + step % 9: node(text=f"turn {turn}, step {step}")})
            before = state(storage, OIDS)
    except StorageError as error:
        outcome = "killed" if "ended with status -9" in str(error) else str(error)
    finally:
        timer.cancel()
    assert state(storage, OIDS) == before
    return outcome


def test_killed_a_few_times(tmp_path: Path) -> None:
    kill_packers(tmp_path, 1, 6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 20))
def test_killed_many_times(tmp_path: Path, seed: int) -> None:
    kill_packers(tmp_path, seed, 40)
