"""Several processes on one zeod: each sees the others' commits, and no increment of a shared counter is lost."""

import subprocess
import sys
from pathlib import Path

import transaction
from persistent.mapping import PersistentMapping

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


def test_a_moment_that_another_client_has_just_made(start_zeod: StartZeod) -> None:
    """Whoever is told a tid can look at it, although the news of it may still be on the way."""
    server = start_zeod("-f", "Data.fs")
    with zeo_client.open(server.url) as writer, zeo_client.open(server.url) as reader:
        for value in range(20):
            with writer.transaction() as connection:
                connection.root.value = value
            past = reader.open(transaction.TransactionManager(), at=writer.lastTransaction())
            assert past.root.value == value
            past.close()


def test_objects_on_a_server_and_in_a_file_refer_to_each_other(start_zeod: StartZeod, tmp_path: Path) -> None:
    server, path = start_zeod("-f", "Data.fs"), tmp_path / "own.fs"
    for turn in range(2):
        databases: dict[str, zeo_client.DB] = {}
        zeo_client.open(server.url, database_name="served", databases=databases)
        zeo_client.open(path, database_name="own", databases=databases)
        served = databases["served"].open()
        own = served.get_connection("own")
        if turn == 0:
            served.root.shared = PersistentMapping(name="shared")
            own.root.mine = PersistentMapping(name="mine")
            transaction.commit()
            served.root.shared["mine"], own.root.mine["shared"] = own.root.mine, served.root.shared
            transaction.commit()
        assert own.root.mine["shared"]["mine"] is own.root.mine
        assert own.root.mine["shared"]["name"] == "shared"
        served.close()
        for db in databases.values():
            db.close()
