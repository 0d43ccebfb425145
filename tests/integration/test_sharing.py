"""Several processes on one zeod: each sees the others' commits, and no increment of a shared counter is lost."""

import subprocess
import sys
from pathlib import Path

import transaction

import zeo_client
from tests.fixtures_zeod import StartZeod

ROOT = Path(__file__).parents[2]
PROCESSES = 8
TIMES = 200
TIMEOUT_S = 120

SHARE = """
import sys, time
import zeo_client
url, name, names = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
with zeo_client.open(url) as db:
    while True:
        try:
            with db.transaction() as conn:
                conn.root()[name] = "hello from " + name
            break
        except zeo_client.ConflictError:
            pass
    conn = db.open()
    deadline = time.monotonic() + 30
    while not all(each in conn.root() for each in names) and time.monotonic() < deadline:
        conn.sync()
    print(sorted(conn.root().values()))
    conn.transaction_manager.abort()
    conn.close()
"""


def test_three_processes_see_each_others_commits(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    names = ["ann", "bob", "eve"]
    programs = [
        subprocess.Popen([sys.executable, "-c", SHARE, server.url, name, ",".join(names)], stdout=subprocess.PIPE)
        for name in names
    ]
    seen = [program.communicate(timeout=TIMEOUT_S)[0].decode().strip() for program in programs]
    assert seen == [str([f"hello from {name}" for name in names])] * len(names)


def test_eight_processes_count_to_sixteen_hundred(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    command = [sys.executable, "-m", "tests.integration.counter", server.url, str(TIMES)]
    programs = [subprocess.Popen(command, cwd=ROOT) for _ in range(PROCESSES)]
    assert [program.wait(TIMEOUT_S) for program in programs] == [0] * PROCESSES
    with zeo_client.open(server.url) as db:
        connection = db.open()
        assert connection.root()["counter"].value == PROCESSES * TIMES
        transaction.abort()
        connection.close()
