"""Conflicts, resolved by the server and by the client, between real processes."""

import subprocess
import sys

import pytest
import transaction
from BTrees.Length import Length

from tests.fixtures_zeod import StartZeod
from tests.integration.hot_counter import Tally
from zeo_client.db import DB
from zeo_client.storage import ClientStorage
from zeo_core.errors import ConflictError

PROCESSES = 8
COMMITS = 40
LIMIT_S = 120


@pytest.mark.parametrize("key", ["length", "tally"])
def test_a_hot_counter_is_exact_without_retries(start_zeod: StartZeod, key: str) -> None:
    server = start_zeod("-f", "Data.fs", "-a", "./zeod.sock")
    storage = ClientStorage(server.address)
    with DB(storage) as db:
        conn = db.open()
        conn.root()["length"], conn.root()["tally"] = Length(), Tally()
        transaction.commit()
        command = [sys.executable, "-m", "tests.integration.hot_counter", str(server.address), key, str(COMMITS)]
        processes = [subprocess.Popen(command) for _ in range(PROCESSES)]
        assert [process.wait(LIMIT_S) for process in processes] == [0] * PROCESSES
        conn.sync()
        assert conn.root()[key].value == PROCESSES * COMMITS
        conn.close()
        status = storage.server_status()
        assert status["conflicts"] == 0
        assert (status["conflicts_resolved"] > 0) is (key == "length")


def test_what_is_resolved_is_loaded_anew(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs", "-a", "./zeod.sock")
    with DB(ClientStorage(server.address)) as db, DB(ClientStorage(server.address)) as other:
        managers = [transaction.TransactionManager() for _ in range(2)]
        mine, theirs = db.open(managers[0]), other.open(managers[1])
        mine.root()["length"], mine.root()["tally"] = Length(), Tally()
        managers[0].commit()
        managers[1].begin()
        for conn, manager, number in ((theirs, managers[1], 5), (mine, managers[0], 3)):
            conn.root()["length"].change(number)
            conn.root()["tally"].change(number)
            manager.commit()
        assert (mine.root()["length"].value, mine.root()["tally"].value) == (8, 8)
        managers[1].begin()
        assert (theirs.root()["length"].value, theirs.root()["tally"].value) == (8, 8)
        mine.close()
        theirs.close()


def test_what_nobody_resolves_says_what_it_is(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs", "-a", "./zeod.sock")
    with DB(ClientStorage(server.address)) as db, DB(ClientStorage(server.address)) as other:
        managers = [transaction.TransactionManager() for _ in range(2)]
        mine, theirs = db.open(managers[0]), other.open(managers[1])
        theirs.root()["x"] = 1
        mine.root()["y"] = 2
        managers[1].commit()
        with pytest.raises(
            ConflictError, match=r"oid 0x00.*class persistent\.mapping\.PersistentMapping.*serial"
        ) as caught:
            managers[0].commit()
        assert caught.value.serials is not None
        managers[0].abort()
        mine.root()["y"] = 2  # the locks are free again
        managers[0].commit()
        mine.close()
        theirs.close()
