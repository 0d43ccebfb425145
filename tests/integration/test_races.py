"""Readers and writers in several processes and threads, over connections that are slow and break: no snapshot lies."""

import json
import random
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

import zeo_client
from tests.fixtures_zeod import StartZeod, Zeod
from tests.integration.racer import prepare
from tests.proxy import Proxy
from zeo_server.storages.file import FileStorage

ROOT = Path(__file__).parents[2]
READERS, WRITERS = 2, 2
TIMEOUT_S = 120

NETWORKS: dict[str, dict[str, Any]] = {
    "quick": {},
    "delayed and split": {"delay_s": 0.002, "piece_bytes": 200},
    "cut at any byte": {"lifetime_bytes": 40_000, "piece_bytes": 500},
}


def race(server: Zeod, network: dict[str, Any], seconds: float, cut_every_s: float = 0.0, seed: int = 1) -> list[Any]:
    """Run the processes, each over a proxy of its own, and return what they tell."""
    with zeo_client.open(server.url) as db:
        prepare(db)
    roles = ["read"] * READERS + ["write"] * WRITERS
    choice = random.Random(seed)
    with ExitStack() as stack:
        proxies = [
            stack.enter_context(Proxy(server.address, seed=seed + number, **network)) for number in range(len(roles))
        ]
        programs = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.integration.racer", proxy.url, role, str(seconds), str(number * 100)],
                    cwd=ROOT,
                    stdout=subprocess.PIPE,
                )
            )
            for number, (role, proxy) in enumerate(zip(roles, proxies, strict=True))
        ]
        deadline = time.monotonic() + seconds
        while cut_every_s and time.monotonic() < deadline:
            time.sleep(cut_every_s * choice.random() * 2)
            choice.choice(proxies).cut()
        return [json.loads(program.communicate(timeout=TIMEOUT_S)[0]) for program in programs]


def judge(server: Zeod, tallies: list[Any]) -> None:
    assert [wrong for tally in tallies for wrong in tally["wrong"]] == []
    assert all(tally["checked"] > 10 for tally in tallies), tallies
    committed = sum(tally["committed"] for tally in tallies)
    in_doubt = sum(tally["in_doubt"] for tally in tallies)
    assert committed > 10, tallies
    with zeo_client.open(server.url) as db, db.transaction() as conn:
        one, two, phase = (conn.root()[name] for name in ("one", "two", "phase"))
        assert one.value - two.value == phase.value
        oid = phase._p_oid
    server.stop()
    with closing(FileStorage(str(server.directory / "Data.fs"), read_only=True)) as log:
        # each commit changes the phase, after the one that made it
        changes = sum(record.oid == oid for txn in log.transactions() for record in txn.records) - 1
    assert committed <= changes <= committed + in_doubt


@pytest.mark.parametrize("network", NETWORKS)
def test_no_snapshot_lies(start_zeod: StartZeod, network: str) -> None:
    server = start_zeod("-f", "Data.fs")
    judge(server, race(server, NETWORKS[network], 2.5))


def test_no_snapshot_lies_while_connections_are_cut(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    tallies = race(server, {"delay_s": 0.0005}, 3, cut_every_s=0.1)
    judge(server, tallies)
    assert sum(tally["lost"] for tally in tallies) > 0


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("cut_every_s", [0.0, 0.05, 1.0])
def test_no_snapshot_lies_for_minutes(start_zeod: StartZeod, network: str, cut_every_s: float) -> None:
    server = start_zeod("-f", "Data.fs")
    judge(server, race(server, NETWORKS[network], 40, cut_every_s, seed=random.randrange(1_000_000)))
