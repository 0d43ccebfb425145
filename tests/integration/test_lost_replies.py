"""Commits whose reply is lost, by a cut connection or the server's sudden end: nothing is lost, nothing applied twice.

Lesson B14, invariant 8. A counter is incremented by clients that retry whatever may be retried, and nothing else.
"""

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from BTrees.Length import Length

from tests.fixtures_zeod import StartZeod
from tests.proxy import Proxy
from zeo_client.connection import Connection
from zeo_client.db import DB
from zeo_client.storage import ClientStorage

INCREMENTS = 20
CLIENTS = 3


def increment(conn: Connection) -> None:
    conn.root()["count"] += 1


def count(address: tuple[str, int] | str) -> int:
    with DB(ClientStorage(address)) as db, db.transaction() as conn:
        value: int = conn.root()["count"]
        return value


def start_at_zero(address: tuple[str, int] | str) -> None:
    with DB(ClientStorage(address)) as db, db.transaction() as conn:
        conn.root()["count"] = 0
        conn.root()["other"] = Length()


def every(nth: int) -> Callable[[bytes], bool]:
    """Tell of every nth tpc_finish."""
    seen = itertools.count(1)

    def is_one(data: bytes) -> bool:
        return b"tpc_finish" in data and next(seen) % nth == 0

    return is_one


def increment_on(address: tuple[str, int] | str) -> None:
    with DB(ClientStorage(address, reconnect_timeout=30.0)) as db:
        for _ in range(INCREMENTS):
            db.run(increment, attempts=1000)


def test_replies_that_are_cut_off(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    assert isinstance(server.address, tuple)
    start_at_zero(server.address)
    with Proxy(server.address, seed=1) as proxy:
        proxy.cut_after = every(4)
        threads = [threading.Thread(target=increment_on, args=(proxy.address,)) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert proxy.connections > CLIENTS + 5
    assert count(server.address) == CLIENTS * INCREMENTS


@pytest.mark.parametrize("reply", ["lost", "under way"])
def test_a_server_that_is_killed_while_clients_commit(start_zeod: StartZeod, tmp_path: Path, reply: str) -> None:
    server = start_zeod("-f", "Data.fs", "-a", "./zeod.sock")
    start_at_zero(server.address)
    with Proxy(str(server.address), seed=2) as proxy:
        threads = [threading.Thread(target=increment_on, args=(proxy.address,)) for _ in range(CLIENTS)]
        finished = threading.Semaphore(0)
        number = itertools.count(1)

        def seen(data: bytes) -> bool:
            if b"tpc_finish" not in data:
                return False
            if next(number) % 8 == 0:
                finished.release()
                return reply == "lost"  # the reply that the server sends before it dies
            return False

        proxy.cut_after = seen
        for thread in threads:
            thread.start()
        for _ in range(2):
            assert finished.acquire(timeout=60)
            server.kill()
            (tmp_path / "zeod.sock").unlink(missing_ok=True)
            server = start_zeod("-f", "Data.fs", "-a", "./zeod.sock")
        for thread in threads:
            thread.join()
    assert count(server.address) == CLIENTS * INCREMENTS
