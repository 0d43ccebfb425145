"""A bank of 1,000 accounts: tellers move money, some are killed; in every snapshot that anybody takes, all is there."""

import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import zeo_client
from tests.fixtures_zeod import StartZeod, Zeod
from tests.integration.bank import ACCOUNTS, Tally, audit, faults, move, prepare, read_count
from tests.integration.crew import LIMIT_S, Crew, Worker
from zeo_client.db import DB
from zeo_core.storage import Transacts
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

TELLERS, AUDITORS = 8, 2


def enough(tallies: list[dict[str, Any]], moves: int) -> bool:
    """Tell whether there was work for all to be wrong in: moves, audits, and tellers that met."""

    def total(figure: str) -> int:
        return sum(tally[figure] for tally in tallies)

    return total("moved") >= moves and total("audited") >= moves / 10 and total("conflicts") > 0


def judge(db: DB, tallies: list[dict[str, Any]], acknowledged: list[int]) -> None:
    """Look at what the staff told, and once more at all accounts."""
    assert [wrong for tally in tallies for wrong in tally["wrong"]] == []
    with db.transaction() as conn:
        accounts = conn.root()["accounts"]
        assert faults(conn, {number: accounts[number].balance for number in range(ACCOUNTS)}) == []
        moves = [teller.moves for teller in conn.root()["tellers"]]
    for done, told in zip(moves, acknowledged, strict=True):
        assert told <= done <= told + 1  # the last one may have been killed before it could take note


class Staff:
    """The processes at work. A teller that is killed is followed by another with its number."""

    def __init__(self, server: Zeod, crew: Crew) -> None:
        self._server = server
        self._crew = crew
        self._tellers = [self._start(number) for number in range(TELLERS)]
        for number in range(AUDITORS):
            crew.start(server.url, "audit", str(TELLERS + number))

    def kill(self, times: int) -> None:
        """End so many tellers, each one that has done something, wherever it is by now; start the next each time."""
        choice = random.Random()
        for _ in range(times):
            number, more = choice.randrange(TELLERS), choice.randrange(1, 30)
            teller = self._tellers[number]
            self._crew.until(lambda teller=teller, more=more: teller.total("moved") >= more)  # type: ignore[misc]
            teller.kill()
            self._tellers[number] = self._start(number)

    def path(self, number: int) -> str:
        return str(self._server.directory / f"acknowledged-{number}")

    def _start(self, number: int) -> Worker:
        Path(self.path(number)).touch()
        return self._crew.start(self._server.url, "move", str(number), self.path(number))


def day(server: Zeod, kills: int, moves: int) -> None:
    """Let the staff of a served bank work until so many tellers are killed and so many transfers done."""
    with zeo_client.open(server.url) as db, Crew(server.directory, "tests.integration.bank") as crew:
        prepare(db, TELLERS)
        staff = Staff(server, crew)
        staff.kill(kills)
        crew.until(lambda: enough(crew.tallies(), moves))
        crew.close()
        judge(db, crew.tallies(), [read_count(staff.path(number)) for number in range(TELLERS)])


def test_a_served_bank_whose_tellers_are_killed(start_zeod: StartZeod) -> None:
    day(start_zeod("-f", "Data.fs"), kills=3, moves=150)


@pytest.mark.slow
def test_a_served_bank_with_a_hundred_killed_tellers(start_zeod: StartZeod) -> None:
    day(start_zeod("-f", "Data.fs"), kills=100, moves=10_000)


def threads_day(storage: Transacts, directory: Path, moves: int) -> None:
    """Let threads with connections of one DB work until so many transfers are done."""
    tallies: dict[int, Tally] = {}
    paths = [str(directory / f"acknowledged-{number}") for number in range(TELLERS)]
    deadline = time.monotonic() + LIMIT_S

    def until_enough(number: int) -> Callable[[Tally], bool]:
        def goes_on(tally: Tally) -> bool:
            tallies[number] = tally
            assert time.monotonic() < deadline, tallies
            return len(tallies) < TELLERS + AUDITORS or not enough([asdict(each) for each in tallies.values()], moves)

        return goes_on

    with DB(storage, pool_size=20) as db:
        prepare(db, TELLERS)
        threads = [
            threading.Thread(target=move, args=(db, until_enough(number), number, path))
            for number, path in enumerate(paths)
        ] + [
            threading.Thread(target=audit, args=(db, until_enough(number), number))
            for number in range(TELLERS, TELLERS + AUDITORS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        judge(db, [asdict(tally) for tally in tallies.values()], [os.path.getsize(path) for path in paths])


def test_an_embedded_bank_with_threads(tmp_path: Path) -> None:
    threads_day(FileStorage(str(tmp_path / "Data.fs")), tmp_path, 150)
    with closing(FileStorage(str(tmp_path / "Data.fs"))) as storage, DB(storage) as db, db.transaction() as conn:
        accounts = conn.root()["accounts"]
        assert faults(conn, {number: accounts[number].balance for number in range(ACCOUNTS)}) == []


def test_a_bank_in_memory(tmp_path: Path) -> None:
    threads_day(MappingStorage(), tmp_path, 100)


@pytest.mark.slow
def test_an_embedded_bank_with_threads_for_long(tmp_path: Path) -> None:
    threads_day(FileStorage(str(tmp_path / "Data.fs")), tmp_path, 20_000)
