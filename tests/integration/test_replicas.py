"""Read-only replicas: a zeod that serves the storage of another one to readers, each in a process of its own."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import ZEO
import ZODB

import zeo_client
from tests.client.peer import until
from tests.fixtures_zeod import StartZeod, Zeod
from tests.integration.relays import free_port, start_on_port, start_relay
from zeo_client import ClientDisconnected, ClientStorage, ReadOnlyError
from zeo_client.db import DB
from zeo_core.ids import pack_id

REPLICA = "  read-only yes\n"


def reader(server: Zeod) -> DB:
    assert isinstance(server.address, tuple)
    return DB(ClientStorage(server.address, read_only=True))


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


def test_what_is_committed_is_read_at_the_replica_by_our_clients_and_zeos(
    start_zeod: StartZeod, tmp_path: Path
) -> None:
    first = start_zeod("-f", "Data.fs")
    with closing(zeo_client.open(first.url)) as db:
        put(db, 0)
        replica = start_relay(start_zeod, tmp_path, port_of(first), lines=REPLICA)
        zeo = ZODB.DB(ZEO.client(replica.address, read_only=True, wait_timeout=20))
        with closing(zeo), closing(reader(replica)) as ours:
            for number in range(1, 20):
                put(db, number)
                until(lambda: seen(ours) == number)  # noqa: B023 - it is called here

                def with_zeo() -> bool:
                    with zeo.transaction() as conn:
                        return bool(conn.root()["value"] == number)  # noqa: B023

                until(with_zeo)


def test_writes_are_refused(start_zeod: StartZeod, tmp_path: Path) -> None:
    first = start_zeod("-f", "Data.fs")
    with closing(zeo_client.open(first.url)) as db:
        put(db, 0)
    replica = start_relay(start_zeod, tmp_path, port_of(first), lines=REPLICA)
    assert isinstance(replica.address, tuple)
    with pytest.raises(ReadOnlyError, match="storage 1 is read-only"):
        ClientStorage(replica.address)
    with closing(ClientStorage(replica.address, read_only=True)) as storage:
        with pytest.raises(ReadOnlyError):
            storage.tpc_begin(None)
        with pytest.raises(ReadOnlyError):
            storage.new_oid()
        with pytest.raises(ReadOnlyError):
            storage.pack(0.0)


def test_a_killed_server_is_read_on_and_followed_again(start_zeod: StartZeod, tmp_path: Path) -> None:
    port = free_port()
    first = start_on_port(start_zeod, tmp_path, port)
    with closing(zeo_client.open(first.url)) as db:
        put(db, "before")
        replica = start_relay(start_zeod, tmp_path, port, lines=REPLICA)
        with closing(reader(replica)) as ours, closing(reader(replica)) as idle:
            assert seen(ours) == "before"
            first.kill()
            until(lambda: "upstream_connected" in (told := status(replica)) and not told["upstream_connected"])
            assert status(replica)["upstream_lag_s"] > 0
            assert seen(ours) == "before"
            with pytest.raises(ClientDisconnected, match=str(port)):
                ours.storage.load_before(pack_id(99), ours.storage.last_tid())
            start_on_port(start_zeod, tmp_path, port)
            until(lambda: put_at_last(db, "after"))
            until(lambda: sees(ours, "after") and sees(idle, "after"))
            told = status(replica)
            assert (told["upstream_connected"], told["upstream_address"]) == (True, f"127.0.0.1:{port}")
            assert told["upstream_last_tid"] == told["last-transaction"]


def put_at_last(db: DB, value: object) -> bool:
    try:
        put(db, value)
    except ClientDisconnected:
        return False
    return True


def status(server: Zeod) -> dict[str, Any]:
    assert isinstance(server.address, tuple)
    where = f"127.0.0.1:{server.address[1]}"
    output = subprocess.check_output([sys.executable, "-m", "zeo_client.cli.main", "status", "--json", where])
    told: dict[str, Any] = json.loads(output)["1"]
    return told


def test_a_killed_replica_is_read_on_with_the_cache_on_disk(start_zeod: StartZeod, tmp_path: Path) -> None:
    first = start_zeod("-f", "Data.fs")
    port = free_port()
    lines = REPLICA + "  client replica\n  var .\n"
    with closing(zeo_client.open(first.url)) as db:
        put(db, "before")
        replica = start_relay(start_zeod, tmp_path, port_of(first), port, lines=lines)
        with closing(reader(replica)) as ours:
            assert seen(ours) == "before"
            replica.kill()
            put(db, "meanwhile")
            replica = start_relay(start_zeod, tmp_path, port_of(first), port, lines=lines)
            until(lambda: sees(ours, "meanwhile"))


def test_a_replica_that_does_not_wait_serves_when_its_server_is_there(start_zeod: StartZeod, tmp_path: Path) -> None:
    port = free_port()
    replica = start_relay(start_zeod, tmp_path, port, lines=REPLICA + "  wait no\n")
    assert isinstance(replica.address, tuple)
    with pytest.raises(ClientDisconnected, match="no connection yet"):
        ClientStorage(replica.address, read_only=True, wait_timeout=0.5)
    first = start_on_port(start_zeod, tmp_path, port)
    with closing(zeo_client.open(first.url)) as db:
        put(db, "there")
        with closing(reader(replica)) as ours:
            until(lambda: sees(ours, "there"))


def test_a_replica_of_a_replica(start_zeod: StartZeod, tmp_path: Path) -> None:
    first = start_zeod("-f", "Data.fs")
    with closing(zeo_client.open(first.url)) as db:
        put(db, 0)
        second = start_relay(start_zeod, tmp_path, port_of(first), lines=REPLICA)
        third = start_relay(start_zeod, tmp_path, port_of(second), lines=REPLICA)
        with closing(reader(third)) as ours:
            for number in range(1, 10):
                put(db, number)
                until(lambda: seen(ours) == number)  # noqa: B023 - it is called here
