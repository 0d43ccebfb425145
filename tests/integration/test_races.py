"""Readers and writers in several processes and threads, over connections that are slow and break: no snapshot lies."""

import random
from contextlib import ExitStack, closing
from typing import Any

import pytest

import zeo_client
from tests.fixtures_zeod import StartZeod, Zeod
from tests.integration.crew import Crew, Worker
from tests.integration.racer import THREADS, prepare
from tests.proxy import Proxy
from zeo_server.storages.file import FileStorage

READERS, WRITERS = 2, 2

NETWORKS: dict[str, dict[str, Any]] = {
    "quick": {},
    "delayed and split": {"delay_s": 0.002, "piece_bytes": 200},
    "cut at any byte": {"lifetime_bytes": 40_000, "piece_bytes": 500},
}


def race(server: Zeod, network: dict[str, Any], commits: int, cuts: int = 0, seed: int = 1) -> list[dict[str, Any]]:
    """Run the processes, each over a proxy of its own, and return what their threads tell.

    A connection is cut when its process has done something since the last cut; with cuts, some work has to be lost.
    """
    with zeo_client.open(server.url) as db:
        prepare(db)
    choice = random.Random(seed)
    with ExitStack() as stack:
        crew = stack.enter_context(Crew(server.directory, "tests.integration.racer"))
        at_work: list[tuple[Worker, Proxy]] = []
        for number, role in enumerate(["read"] * READERS + ["write"] * WRITERS):
            proxy = stack.enter_context(Proxy(server.address, seed=seed + number, **network))
            at_work.append((crew.start(proxy.url, role, str(number * 100)), proxy))
        for _ in range(cuts):
            cut_one(crew, *choice.choice(at_work), more=choice.randrange(1, 20))
        while cuts and crew.total("lost") == 0:
            cut_one(crew, *choice.choice(at_work), more=choice.randrange(1, 20))
        crew.until(lambda: enough(crew.tallies(), commits))
        crew.close()
        return crew.tallies()


def cut_one(crew: Crew, worker: Worker, proxy: Proxy, more: int) -> None:
    """Cut the connections of a process that has gone on for so long since."""
    before = worker.total("checked")
    crew.until(lambda: worker.total("checked") >= before + more)
    proxy.cut()


def enough(tallies: list[dict[str, Any]], commits: int) -> bool:
    """Tell whether every thread has looked often, and so much was committed meanwhile."""
    return (
        len(tallies) == (READERS + WRITERS) * THREADS
        and min(tally["checked"] for tally in tallies) > 20
        and sum(tally["committed"] for tally in tallies) >= commits
    )


def judge(server: Zeod, tallies: list[dict[str, Any]]) -> None:
    assert [wrong for tally in tallies for wrong in tally["wrong"]] == []
    committed = sum(tally["committed"] for tally in tallies)
    in_doubt = sum(tally["in_doubt"] for tally in tallies)
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
    judge(server, race(server, NETWORKS[network], 50))


def test_no_snapshot_lies_while_connections_are_cut(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    judge(server, race(server, {"delay_s": 0.0005}, 50, cuts=12))


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("cuts", [0, 50, 300])
def test_no_snapshot_lies_for_long(start_zeod: StartZeod, network: str, cuts: int) -> None:
    server = start_zeod("-f", "Data.fs")
    judge(server, race(server, NETWORKS[network], 2_000, cuts, seed=random.randrange(1_000_000)))
