"""zeod <- zeod <- clients that write: what is committed at either server, and what becomes of it when one is killed."""

import itertools
import random
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
import transaction
import ZEO
import ZODB
from BTrees.Length import Length
from persistent.list import PersistentList
from persistent.mapping import PersistentMapping

import zeo_client
from tests.client.peer import until
from tests.fixtures_runzeo import StartRunZEO
from tests.fixtures_zeod import StartZeod, Zeod
from tests.integration.bank import prepare, read_count
from tests.integration.crew import Crew, Worker
from tests.integration.hot_counter import Tally
from tests.integration.relays import free_port, start_on_port, start_relay
from tests.integration.test_bank import TELLERS, enough, judge
from tests.proxy import Proxy
from zeo_client import Blob, ClientDisconnected, ClientStorage, ConflictError, ReadOnlyError, UndoError
from zeo_client.db import DB


class Pair(NamedTuple):
    """Two servers, of which the second serves the storage of the first on."""

    first: Zeod
    second: Zeod


@pytest.fixture
def pair(start_zeod: StartZeod, tmp_path: Path) -> Pair:
    first = start_zeod("-f", "Data.fs")
    return Pair(first, start_relay(start_zeod, tmp_path, port_of(first)))


def port_of(server: Zeod) -> int:
    assert isinstance(server.address, tuple)
    return server.address[1]


def put(db: DB, value: object) -> None:
    with db.transaction() as conn:
        conn.root()["value"] = value


def seen(db: DB) -> object:
    with db.transaction() as conn:
        value: object = conn.root().get("value")
        return value


def sees(db: DB, value: object) -> bool:
    try:
        return seen(db) == value
    except ClientDisconnected:
        return False


def test_what_is_committed_at_either_server_is_seen_at_the_other(pair: Pair) -> None:
    with closing(zeo_client.open(pair.first.url)) as one, closing(zeo_client.open(pair.second.url)) as two:
        for number in range(1, 20):
            put(two, number)
            until(lambda: seen(one) == number)  # noqa: B023 - it is called here
            put(one, -number)
            until(lambda: seen(two) == -number)  # noqa: B023


def test_zeos_clients_write_through_it(pair: Pair) -> None:
    zeo = ZODB.DB(ZEO.client(pair.second.address, wait_timeout=20))
    with (
        closing(zeo),
        closing(zeo_client.open(pair.first.url)) as one,
        closing(zeo_client.open(pair.second.url)) as two,
    ):
        for number in range(10):
            with zeo.transaction() as conn:
                conn.root()["value"] = number
            until(lambda: seen(one) == seen(two) == number)  # noqa: B023
        put(one, "last")

        def with_zeo() -> bool:
            with zeo.transaction() as conn:
                return bool(conn.root()["value"] == "last")

        until(with_zeo)


def test_a_conflict_is_told_to_who_comes_second_at_whichever_server(pair: Pair) -> None:
    with closing(zeo_client.open(pair.first.url)) as one, closing(zeo_client.open(pair.second.url)) as two:
        put(one, 0)
        until(lambda: sees(two, 0))
        for winner, loser in ((one, two), (two, one), (two, two)):
            managers = transaction.TransactionManager(), transaction.TransactionManager()
            mine, theirs = winner.open(managers[0]), loser.open(managers[1])
            mine.root()["value"], theirs.root()["value"] = "mine", "theirs"
            managers[0].commit()
            with pytest.raises(ConflictError):
                managers[1].commit()
            managers[1].abort()
            mine.close()
            theirs.close()
            until(lambda: sees(one, "mine") and sees(two, "mine"))
            put(one, 0)
            until(lambda: sees(two, 0))


@pytest.mark.parametrize("key", ["length", "tally"])
def test_a_hot_counter_is_exact_without_retries(pair: Pair, key: str) -> None:
    with closing(zeo_client.open(pair.first.url)) as one:
        with one.transaction() as conn:
            conn.root()["length"], conn.root()["tally"] = Length(), Tally()
        commands = [
            [sys.executable, "-m", "tests.integration.hot_counter", "{}:{}".format(*server.address), key, "20"]
            for server in (pair.first, pair.second, pair.second)
        ]
        processes = [subprocess.Popen(command) for command in commands]
        assert [process.wait(60) for process in processes] == [0] * len(processes)
        with one.transaction() as conn:
            assert conn.root()[key].value == 60


def test_undo_pack_and_blobs_are_passed_on(start_zeod: StartZeod, tmp_path: Path) -> None:
    (tmp_path / "first.conf").write_text(
        "<zeo>\n address 127.0.0.1:0\n</zeo>\n<filestorage>\n path Data.fs\n blob-dir blobs\n</filestorage>\n"
    )
    first = start_zeod("-C", "first.conf")
    second = start_relay(start_zeod, tmp_path, port_of(first), lines="  blob-dir cache\n")
    storage = ClientStorage(second.address, blob_dir=tmp_path / "mine")
    with closing(DB(storage)) as db:
        put(db, "first")
        put(db, "second")
        with transaction.manager:
            db.undo(db.undoLog(0, 1)[0]["id"], transaction.get())
        until(lambda: sees(db, "first"))
        with db.transaction() as conn:
            conn.root()["blob"] = blob = Blob()
            with blob.open("w") as file:
                file.write(b"film")
        with (
            closing(DB(ClientStorage(second.address, blob_dir=tmp_path / "other"))) as other,
            other.transaction() as it,
            it.root()["blob"].open() as file,
        ):
            assert file.read() == b"film"
        with db.transaction() as conn:
            del conn.root()["blob"]
        before = len(list(storage.transactions()))
        time.sleep(0.01)
        db.pack()
        assert len(list(storage.transactions())) < before
        with pytest.raises(UndoError), transaction.manager:
            db.undo(b"\0" * 7 + b"\1", transaction.get())
        assert seen(db) == "first"


def test_a_large_transaction_is_passed_on_from_a_file(start_zeod: StartZeod, tmp_path: Path) -> None:
    first = start_zeod("-f", "Data.fs")
    second = start_relay(start_zeod, tmp_path, port_of(first), zeo="  transaction-spool-size 100KB\n")
    with closing(zeo_client.open(first.url)) as one, closing(zeo_client.open(second.url)) as two:
        with two.transaction() as conn:
            conn.root()["parts"] = parts = PersistentList()
            for number in range(200):
                parts.append(PersistentMapping({"data": bytes([number]) * 5000}))
        with one.transaction() as conn:
            parts = conn.root()["parts"]
            assert [part["data"] for part in parts] == [bytes([number]) * 5000 for number in range(200)]


def test_a_server_of_zeo_is_written_to_one_transaction_at_a_time(
    start_runzeo: StartRunZEO, start_zeod: StartZeod, tmp_path: Path
) -> None:
    """ZEO's server closes a connection that has two transactions open."""
    first = start_runzeo(tmp_path / "ZEO.fs")
    second = start_relay(start_zeod, tmp_path, first.address[1])
    workers, commits = 4, 10
    with closing(zeo_client.open(second.url)) as db, db.transaction() as conn:
        for number in range(workers):
            conn.root()[number] = Length()

    def work(number: int) -> None:
        with closing(zeo_client.open(second.url)) as db:
            for _ in range(commits):
                db.run(lambda conn: conn.root()[number].change(1))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with closing(zeo_client.open(f"zeo://127.0.0.1:{first.address[1]}")) as db, db.transaction() as conn:
        assert [conn.root()[number].value for number in range(workers)] == [commits] * workers
    assert second.log_text().count("connected to 127.0.0.1") == 1


def test_three_levels(pair: Pair, start_zeod: StartZeod, tmp_path: Path) -> None:
    third = start_relay(start_zeod, tmp_path, port_of(pair.second))
    with closing(zeo_client.open(pair.first.url)) as one, closing(zeo_client.open(third.url)) as three:
        for number in range(1, 10):
            put(three, number)
            until(lambda: seen(one) == number)  # noqa: B023
            put(one, -number)
            until(lambda: seen(three) == -number)  # noqa: B023


def test_who_votes_and_sleeps_is_cut_off_and_nobody_else(start_zeod: StartZeod, tmp_path: Path) -> None:
    first = start_zeod("-f", "Data.fs", "-t", "2")
    second = start_relay(start_zeod, tmp_path, port_of(first), zeo="  transaction-timeout 2\n")
    with closing(zeo_client.open(second.url)) as db:
        put(db, "before")
        manager = transaction.TransactionManager()
        sleeper = ClientStorage(second.address)
        with closing(DB(sleeper)) as sleeping:
            conn = sleeping.open(manager)
            conn.root()["value"] = "never"
            going = manager.get()
            conn.tpc_begin(going)
            conn.commit(going)
            conn.tpc_vote(going)
            put(db, "after")  # waits for the lock
            with pytest.raises(ClientDisconnected):
                conn.tpc_finish(going)
            conn.tpc_abort(going)
            manager.abort()
            conn.close()
        assert seen(db) == "after"
    assert "Transaction timeout after 1.6 seconds" in second.log_text()
    assert "Transaction timeout" not in first.log_text()


# -- servers and connections that end ----------------------------------------------------------------------------------

CLIENTS, INCREMENTS = 3, 12


def increment_on(server: Zeod) -> None:
    with DB(ClientStorage(server.address, reconnect_timeout=30.0)) as db:
        for _ in range(INCREMENTS):
            db.run(lambda conn: conn.root().update(value=conn.root()["value"] + 1), attempts=1000)


def incrementing(server: Zeod) -> list[threading.Thread]:
    threads = [threading.Thread(target=increment_on, args=(server,)) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    return threads


def test_replies_that_are_lost_between_the_servers(start_zeod: StartZeod, tmp_path: Path) -> None:
    first = start_zeod("-f", "Data.fs")
    with closing(zeo_client.open(first.url)) as one, Proxy(("127.0.0.1", port_of(first)), seed=1) as proxy:
        put(one, 0)
        second = start_relay(start_zeod, tmp_path, proxy.address[1])
        finishes = itertools.count(1)
        proxy.cut_after = lambda data: b"tpc_finish" in data and next(finishes) % 6 == 0
        for thread in incrementing(second):
            thread.join()
        assert proxy.connections > 3
        assert seen(one) == CLIENTS * INCREMENTS


@pytest.mark.parametrize("which", ["the first", "the second"])
def test_a_server_that_is_killed_while_clients_commit(start_zeod: StartZeod, tmp_path: Path, which: str) -> None:
    ports = free_port(), free_port()
    first = start_on_port(start_zeod, tmp_path, ports[0])
    with closing(zeo_client.open(first.url)) as one:
        put(one, 0)
    second = start_relay(start_zeod, tmp_path, *ports)
    threads = incrementing(second)
    for done in (5, 15):
        with closing(zeo_client.open(first.url)) as one:
            until(lambda: int(str(seen(one))) >= done)  # noqa: B023
        if which == "the first":
            first.kill()
            first = start_on_port(start_zeod, tmp_path, ports[0])
        else:
            second.kill()
            second = start_relay(start_zeod, tmp_path, *ports)
    for thread in threads:
        thread.join()
    with closing(zeo_client.open(first.url)) as one:
        assert seen(one) == CLIENTS * INCREMENTS


class Servers:
    """Both servers, on ports of their own."""

    def __init__(self, start_zeod: StartZeod, directory: Path) -> None:
        self._start_zeod = start_zeod
        self.directory = directory
        self._ports = free_port(), free_port()
        self.first = start_on_port(start_zeod, directory, self._ports[0])
        self.second = start_relay(start_zeod, directory, *self._ports)

    def kill(self, first: bool) -> None:
        """Kill one of them, and start it again."""
        if first:
            self.first.kill()
            self.first = start_on_port(self._start_zeod, self.directory, self._ports[0])
        else:
            self.second.kill()
            self.second = start_relay(self._start_zeod, self.directory, *self._ports)


def day(servers: Servers, kills: int, moves: int) -> None:
    """Let a bank work at both servers, with tellers and servers that are killed, until so many transfers are done."""
    choice = random.Random(7)
    with Crew(servers.directory, "tests.integration.bank") as crew:
        with closing(zeo_client.open(servers.first.url)) as db:
            prepare(db, TELLERS)

        def path(number: int) -> str:
            return str(servers.directory / f"acknowledged-{number}")

        def hire(number: int) -> Worker:
            Path(path(number)).touch()
            return crew.start((servers.first, servers.second)[number % 2].url, "move", str(number), path(number))

        tellers = [hire(number) for number in range(TELLERS)]
        for number in range(2):
            crew.start((servers.first, servers.second)[number].url, "audit", str(TELLERS + number))
        for kill in range(kills):
            number, more = choice.randrange(TELLERS), choice.randrange(1, 20)
            so_far = tellers[number].total("moved")
            crew.until(lambda: tellers[number].total("moved") >= so_far + more)  # noqa: B023
            if kill % 3 == 0:
                tellers[number].kill()
                tellers[number] = hire(number)
            else:
                servers.kill(first=kill % 3 == 1)
        crew.until(lambda: enough(crew.tallies(), moves))
        crew.close()
        with closing(zeo_client.open(servers.second.url)) as db:
            judge(db, crew.tallies(), [read_count(path(number)) for number in range(TELLERS)])


def test_a_bank_at_two_servers(start_zeod: StartZeod, tmp_path: Path) -> None:
    day(Servers(start_zeod, tmp_path), kills=3, moves=100)


@pytest.mark.slow
def test_a_bank_at_two_servers_that_are_killed_thirty_times(start_zeod: StartZeod, tmp_path: Path) -> None:
    day(Servers(start_zeod, tmp_path), kills=30, moves=3000)


def test_a_relay_reads_from_a_replica_while_its_server_is_away(start_zeod: StartZeod, tmp_path: Path) -> None:
    port = free_port()
    first = start_on_port(start_zeod, tmp_path, port)
    replica = start_relay(start_zeod, tmp_path, port, lines="  read-only yes\n")
    fallback = f"  server 127.0.0.1:{port_of(replica)}\n  read-only-fallback yes\n  max-disconnect-poll 1\n"
    relay = start_relay(start_zeod, tmp_path, port, free_port(), lines=fallback)
    with closing(DB(ClientStorage(relay.address, read_only_fallback=True, max_disconnect_poll=0.2))) as db:
        put(db, "before")
        first.kill()
        until(lambda: sees(db, "before") and db.storage.read_only())
        with pytest.raises(ReadOnlyError):
            put(db, "never")
        start_on_port(start_zeod, tmp_path, port)
        until(lambda: puts(db, "after"))
        assert seen(db) == "after"


def puts(db: DB, value: object) -> bool:
    try:
        put(db, value)
    except (ClientDisconnected, ReadOnlyError):
        return False
    return True
