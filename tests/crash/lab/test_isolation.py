"""Many clients, a server that is killed beside them, and a judge of all that they saw; and whether he would notice."""

import json
import os
import pickle
import subprocess
import sys
import time
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pytest

import zeo_client
from tests.crash.lab.history import Committed, Transaction, judge
from tests.crash.lab.teller import NAMES, prepare
from tests.fixtures_zeod import Zeod, launch
from zeo_client.db import DB
from zeo_core.ids import Oid
from zeo_server.storages.file import FileStorage

ROOT = Path(__file__).parents[3]
CLIENTS = 5
MINUTES = float(os.environ.get("ZEOD_LAB_MINUTES", "60"))


def start_tellers(directory: Path, url: str, seconds: float, *broken: str) -> list["subprocess.Popen[bytes]"]:
    started = []
    for number in range(CLIENTS):
        command = [sys.executable, "-m", "tests.crash.lab.teller", url, str(number), str(seconds), *broken]
        with (directory / f"told-{number}").open("wb") as told, (directory / f"errors-{number}").open("wb") as errors:
            started.append(subprocess.Popen(command, cwd=ROOT, stdout=told, stderr=errors))
    return started


def told_by(directory: Path, tellers: list["subprocess.Popen[bytes]"]) -> list[Transaction]:
    told = []
    for number, teller in enumerate(tellers):
        assert teller.wait(120) == 0, (directory / f"errors-{number}").read_text()
        told += [Transaction(**json.loads(line)) for line in (directory / f"told-{number}").read_text().splitlines()]
    return told


def log_of(path: Path) -> list[Committed]:
    """Return what the file has of the objects' values."""
    with DB(FileStorage(path)) as db, db.transaction() as conn:
        names: dict[Oid, str] = {conn.root()[name]._p_oid: name for name in NAMES}
    with closing(FileStorage(path, read_only=True)) as storage:
        found = []
        for recorded in storage.transactions():
            writes = {names[record.oid]: value_of(record.data) for record in recorded.records if record.oid in names}
            found.append(Committed(int.from_bytes(recorded.tid, "big"), writes))
        return found


def value_of(data: bytes | None) -> str:
    assert data is not None
    file = BytesIO(data)
    pickle.load(file)  # the class
    value: str = pickle.load(file)["data"]["value"]
    return value


def start(directory: Path, address: str, module: str = "zeo_server.cli.zeod") -> Zeod:
    log = directory / f"zeod-{time.monotonic_ns()}.log"
    return launch(directory, log, "-a", address, "-f", "Data.fs", module=module)


def run(directory: Path, seconds: float, *, kill_every_s: float = 0, module: str = "", broken: str = "") -> list[str]:
    """Let clients work beside each other for so long, and return what the judge has to say."""
    server = start(directory, "127.0.0.1:0")
    with zeo_client.open(server.url) as db:
        prepare(db)
    if module:
        server.stop()
        server = start(directory, address_of(server), module)
    tellers = start_tellers(directory, server.url, seconds, *filter(None, [broken]))
    while kill_every_s and any(teller.poll() is None for teller in tellers):
        time.sleep(kill_every_s)  # that is the experiment: a kill now and then
        server.kill()
        server = start(directory, address_of(server), module or "zeo_server.cli.zeod")
    told = told_by(directory, tellers)
    server.stop()
    log = log_of(directory / "Data.fs")
    outcomes = [transaction.outcome for transaction in told]
    assert outcomes.count("committed") > len(tellers)
    assert sum(bool(transaction.writes) for transaction in told) > len(tellers)
    return judge(log, told)


def address_of(server: Zeod) -> str:
    return server.url.removeprefix("zeo://")


def test_clients_see_what_they_may_beside_kills(tmp_path: Path) -> None:
    assert run(tmp_path, 6, kill_every_s=2) == []


@pytest.mark.slow
def test_clients_see_what_they_may_for_long(tmp_path: Path) -> None:
    end, turn = time.monotonic() + MINUTES * 60 / 4, 0
    while time.monotonic() < end:
        turn += 1
        directory = tmp_path / str(turn)
        directory.mkdir()
        assert run(directory, 60, kill_every_s=3 if turn % 2 else 0) == []


def test_commits_told_before_they_are_shown_are_noticed(tmp_path: Path) -> None:
    assert run(tmp_path, 4, module="tests.crash.lab.swapped_zeod")


def test_a_cache_stored_after_an_invalidation_is_noticed(tmp_path: Path) -> None:
    assert run(tmp_path, 4, broken="cache")
