"""Blobs after kill -9 at each step of a commit: all acknowledged ones are there, and no file without a record."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from ZODB.FileStorage import FileStorage as ZODBFileStorage

from tests.crash.blob_committer import BLOBS, oid_of, open_storage
from zeo_server.storages.blobs import BlobDirectory

ROOT = Path(__file__).parents[2]

Seen = Callable[[Path], bool]
"""Looks at the blob directory for the moment at which to kill."""


def staged(count: int) -> Seen:
    """See when `count` files of a transaction are staged."""

    def seen(blobs: Path) -> bool:
        for directory in blobs.glob("tmp/staged-*"):
            try:
                return len(os.listdir(directory)) >= count
            except FileNotFoundError:
                return False
        return False

    return seen


def placed(number: int, blobs: Path) -> Seen:
    """See when another revision of a blob gets its committed name; those of the same transaction follow or precede."""
    directory = BlobDirectory(blobs, read_only=True).getPathForOID(oid_of(number))
    before = set(os.listdir(directory)) if os.path.isdir(directory) else set()

    def seen(_blobs: Path) -> bool:
        return os.path.isdir(directory) and set(os.listdir(directory)) != before

    return seen


def unstaged() -> Seen:
    """See when a transaction's staged files go: it is finished, and not yet acknowledged."""
    was_staged = staged(BLOBS)
    full: list[bool] = []

    def seen(blobs: Path) -> bool:
        if was_staged(blobs):
            full.append(True)
        return bool(full) and not was_staged(blobs)

    return seen


def commit_until(directory: Path, turns: int, moment: Callable[[], Seen]) -> int:
    """Run the committer, kill it at a moment after `turns` acknowledged turns, and return the last one of these."""
    command = [sys.executable, "-m", "tests.crash.blob_committer", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(turns)]
        seen = moment()
        while not seen(directory / "blobs"):
            assert process.poll() is None
        process.kill()
        lines += process.stdout.readlines()
    return int([line for line in lines if line.endswith(b"\n")][-1])


def assert_sound(directory: Path, acknowledged: int) -> None:
    """Assert that every revision in the log has its file, with what its transaction wrote, and that that is all."""
    with closing(open_storage(str(directory))) as storage:
        records, turns = set(), []
        for transaction in storage.transactions():
            turn = transaction.metadata.description
            turns.append(int(turn))
            for record in transaction.records:
                records.add((record.oid, record.tid))
                assert Path(storage.loadBlob(record.oid, record.tid)).read_bytes().split()[0] == turn
        assert {(oid, tid) for oid, tid, _path in storage.fshelper.files()} == records
        assert not list((directory / "blobs").glob("tmp/staged-*"))
    assert turns in ([*range(1, acknowledged + 1)], [*range(1, acknowledged + 2)])
    assert len(records) == BLOBS * len(turns)
    with closing(ZODBFileStorage(str(directory / "Data.fs"), blob_dir=str(directory / "blobs"))) as zodb:
        for recorded in zodb.iterator():
            for written in recorded:
                zodb.loadBlob(written.oid, written.tid)


def test_kill_at_each_step_of_a_commit(tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    moments: list[Callable[[], Seen]] = [
        lambda: staged(1),
        lambda: staged(BLOBS),
        lambda: placed(0, blobs),
        lambda: placed(BLOBS // 2, blobs),
        lambda: placed(BLOBS - 1, blobs),
        unstaged,
    ]
    for moment in moments:
        assert_sound(tmp_path, commit_until(tmp_path, 2, moment))


@pytest.mark.slow
def test_kill_fifty_times_while_committing_blobs(tmp_path: Path) -> None:
    chance = random.Random(3)
    for _ in range(50):
        number = chance.randrange(BLOBS)
        moment = chance.choice([lambda n=number: staged(n + 1), lambda n=number: placed(n, tmp_path / "blobs")])
        assert_sound(tmp_path, commit_until(tmp_path, chance.randrange(1, 4), moment))
