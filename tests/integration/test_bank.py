"""A bank of 1,000 accounts: tellers move money, some are killed; in every snapshot that anybody takes, all is there."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import zeo_client
from tests.fixtures_zeod import StartZeod, Zeod
from tests.integration.bank import ACCOUNTS, Tally, audit, faults, move, prepare, read_count
from zeo_client.db import DB
from zeo_core.storage import Transacts
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

ROOT = Path(__file__).parents[2]
TELLERS, AUDITORS = 8, 2
TIMEOUT_S = 120


class Staff:
    """The processes at work. A teller that is killed is followed by another with its number."""

    def __init__(self, server: Zeod, seconds: float) -> None:
        self._server = server
        self._deadline = time.monotonic() + seconds
        self.tellers = [self._start("move", number) for number in range(TELLERS)]
        self.auditors = [self._start("audit", number) for number in range(AUDITORS)]
        self.killed = 0

    def kill_one(self, choice: random.Random) -> None:
        """End a teller that has done something already, wherever it is, and start the next."""
        number = choice.randrange(TELLERS)
        teller = self.tellers[number]
        if read_count(self.path(number)) and teller.poll() is None:
            teller.kill()
            teller.communicate()
            self.killed += 1
            self.tellers[number] = self._start("move", number)

    def work(self, kill_every_s: float) -> list[dict[str, Any]]:
        """Wait for the end of the working day, killing; return the tallies of who was left alive."""
        choice = random.Random()
        while time.monotonic() < self._deadline - 1:
            time.sleep(kill_every_s)
            self.kill_one(choice)
        return [json.loads(each.communicate(timeout=TIMEOUT_S)[0]) for each in [*self.tellers, *self.auditors]]

    def path(self, number: int) -> str:
        return str(self._server.directory / f"acknowledged-{number}")

    def stop(self) -> None:
        for each in [*self.tellers, *self.auditors]:
            with suppress(ProcessLookupError):
                each.kill()
            each.communicate()

    def _start(self, role: str, number: int) -> "subprocess.Popen[bytes]":
        seconds = max(self._deadline - time.monotonic(), 0.1)
        Path(self.path(number)).touch()
        arguments = [self._server.url, role, str(seconds), str(number), self.path(number)]
        command = [sys.executable, "-m", "tests.integration.bank", *arguments]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def judge(db: DB, tallies: list[dict[str, Any]], acknowledged: list[int]) -> None:
    """Look at what the staff told, and once more at all accounts."""
    assert [wrong for tally in tallies for wrong in tally["wrong"]] == []
    assert sum(tally["audited"] for tally in tallies) > 10, tallies
    assert sum(tally["moved"] for tally in tallies) > 100, tallies
    assert sum(tally["conflicts"] for tally in tallies) > 0, tallies
    with db.transaction() as conn:
        accounts = conn.root()["accounts"]
        assert faults(conn, {number: accounts[number].balance for number in range(ACCOUNTS)}) == []
        moves = [teller.moves for teller in conn.root()["tellers"]]
    for done, told in zip(moves, acknowledged, strict=True):
        assert told <= done <= told + 1  # the last one may have been killed before it could take note


def day(server: Zeod, seconds: float, kill_every_s: float) -> None:
    """Let the staff of a served bank work."""
    with zeo_client.open(server.url) as db:
        prepare(db, TELLERS)
        staff = Staff(server, seconds)
        try:
            tallies = staff.work(kill_every_s)
        finally:
            staff.stop()
        assert staff.killed > 0
        judge(db, tallies, [read_count(staff.path(number)) for number in range(TELLERS)])


def test_a_served_bank_whose_tellers_are_killed(start_zeod: StartZeod) -> None:
    day(start_zeod("-f", "Data.fs"), seconds=6, kill_every_s=0.3)


@pytest.mark.slow
def test_a_served_bank_for_a_minute(start_zeod: StartZeod) -> None:
    day(start_zeod("-f", "Data.fs"), seconds=60, kill_every_s=0.5)


def threads_day(storage: Transacts, directory: Path, seconds: float) -> None:
    """Let threads with connections of one DB work."""
    tallies = [Tally() for _ in range(TELLERS + AUDITORS)]
    paths = [str(directory / f"acknowledged-{number}") for number in range(TELLERS)]
    with DB(storage, pool_size=20) as db:
        prepare(db, TELLERS)
        deadline = time.monotonic() + seconds
        threads = [
            threading.Thread(target=move, args=(db, deadline, number, tallies[number], path))
            for number, path in enumerate(paths)
        ] + [
            threading.Thread(target=audit, args=(db, deadline, number, tallies[TELLERS + number]))
            for number in range(AUDITORS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        judge(db, [asdict(tally) for tally in tallies], [os.path.getsize(path) for path in paths])


def test_an_embedded_bank_with_threads(tmp_path: Path) -> None:
    threads_day(FileStorage(str(tmp_path / "Data.fs")), tmp_path, 2)
    with closing(FileStorage(str(tmp_path / "Data.fs"))) as storage, DB(storage) as db, db.transaction() as conn:
        accounts = conn.root()["accounts"]
        assert faults(conn, {number: accounts[number].balance for number in range(ACCOUNTS)}) == []


def test_a_bank_in_memory(tmp_path: Path) -> None:
    threads_day(MappingStorage(), tmp_path, 1)


@pytest.mark.slow
def test_an_embedded_bank_with_threads_for_a_minute(tmp_path: Path) -> None:
    threads_day(FileStorage(str(tmp_path / "Data.fs")), tmp_path, 60)
