"""A server that is killed again and again under clients that commit: no hang, nothing lost, nothing done twice."""

import random
from pathlib import Path
from typing import Any

import pytest

import zeo_client
from tests.fixtures_zeod import StartZeod
from tests.integration.crew import Crew
from tests.integration.survivor import RECONNECT_TIMEOUT_S, THREADS, prepare

MORE = 60
"""So many commits, at most, and one at least, are done between two kills."""


def survive(start_zeod: StartZeod, directory: Path, restarts: int, clients: int, seed: int) -> list[dict[str, Any]]:
    """Kill and restart the server so often under so many clients, and return what their threads tell."""
    server = start_zeod("-f", "Data.fs", "-a", "./zeod.sock")
    with zeo_client.open(server.url) as db:
        prepare(db, clients)
    choice = random.Random(seed)
    with Crew(directory, "tests.integration.survivor") as crew:
        for number in range(clients):
            crew.start(server.url, str(number))
        crew.until(lambda: len(crew.tallies()) == clients * THREADS)
        for _ in range(restarts):
            enough = crew.total("acknowledged") + choice.randrange(1, MORE)
            crew.until(lambda enough=enough: crew.total("acknowledged") >= enough)  # type: ignore[misc]
            server.kill()
            (directory / "zeod.sock").unlink(missing_ok=True)
            server = start_zeod("-f", "Data.fs", "-a", "./zeod.sock")
        before = {tally["worker"]: tally["acknowledged"] for tally in crew.tallies()}
        crew.until(lambda: all(tally["acknowledged"] > before[tally["worker"]] for tally in crew.tallies()))
        crew.close()
        with zeo_client.open(server.url) as db, db.transaction() as conn:
            judge(conn, crew.tallies())
        return crew.tallies()


def judge(conn: zeo_client.Connection, tallies: list[dict[str, Any]]) -> None:
    own = conn.root()["own"]
    for tally in tallies:
        done = own[tally["worker"]].value
        assert tally["acknowledged"] <= done <= tally["acknowledged"] + tally["in_doubt"], tallies
        assert tally["longest_s"] < RECONNECT_TIMEOUT_S, tallies
    assert conn.root()["all"].value == sum(counter.value for counter in own.values())


def test_a_server_that_is_killed_three_times(start_zeod: StartZeod, tmp_path: Path) -> None:
    tallies = survive(start_zeod, tmp_path, restarts=3, clients=2, seed=1)
    # it is always back in time to tell what became of a commit
    assert [tally["in_doubt"] for tally in tallies] == [0] * len(tallies)


@pytest.mark.slow
def test_a_server_that_is_killed_a_hundred_times(start_zeod: StartZeod, tmp_path: Path) -> None:
    tallies = survive(start_zeod, tmp_path, restarts=100, clients=4, seed=random.randrange(1_000_000))
    assert [tally["in_doubt"] for tally in tallies] == [0] * len(tallies)
