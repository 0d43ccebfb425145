"""The snapshot, taken of a real server; that of ZEO's stands beside it."""

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures_runzeo import StartRunZEO
from tests.server.in_process import InProcess, in_process
from zeo_client.monitoring import ask
from zeo_client.transport.address import parse_address
from zeo_core.ids import MAX_TID, ROOT_OID, ZERO_TID, pack_id
from zeo_core.storage import Progress
from zeo_server.status import StorageStatus, status_json
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

A, B = pack_id(1), pack_id(2)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcess]:
    with in_process({"1": FileStorage(tmp_path / "Data.fs"), "temp": MappingStorage()}) as serving:
        yield serving


def figures(server: InProcess, storage: str = "1") -> dict[str, Any]:
    return server.ask(lambda: server.service.status().storages[storage].as_map())


def test_zeos_keys_are_all_there(server: InProcess, start_runzeo: StartRunZEO, tmp_path: Path) -> None:
    zeo = ask(parse_address(start_runzeo(tmp_path / "ZEO.fs").address))["1"]
    ours = ask(parse_address(server.address))["1"]
    assert set(zeo) <= set(ours)
    for key in set(zeo) - {"start", "last-transaction", "timeout-thread-is-alive"}:
        assert type(ours[key]) is type(zeo[key]), key


def test_the_answer_to_ruok_and_to_server_status_are_one(server: InProcess) -> None:
    with server.client() as client:
        asked = ask(parse_address(server.address))["1"]
        told = client.call("server_status")
    moving = {"bytes_in", "bytes_out"}
    assert {key: asked[key] for key in asked.keys() - moving} == {key: told[key] for key in told.keys() - moving}


def test_what_a_client_does_is_counted(server: InProcess) -> None:
    with server.client() as client, server.client(read_only=True):
        tid = client.commit({ROOT_OID: (ZERO_TID, b"root"), A: (ZERO_TID, b"one")})
        client.call("loadBefore", A, MAX_TID)
        client.call("loadSerial", A, tid)
        client.call("load_many", (ROOT_OID, A), MAX_TID)
        now = figures(server)
        (reader, writer) = sorted(server.ask(lambda: server.service.status().clients), key=lambda each: each.loads)
    assert (reader.loads, reader.commits, writer.loads, writer.stores, writer.commits) == (0, 0, 4, 2, 1)
    assert (now["loads"], now["stores"], now["commits"], now["objects"]) == (4, 2, 1, 2)
    assert (now["connections"], now["writers"], now["last-transaction"]) == (2, 1, tid.hex())
    assert now["bytes_in"] > 100
    assert now["bytes_out"] > 100
    assert now["index_bytes"] == 16
    for key in ("commit_seconds", "finish_seconds", "write_seconds", "group_sizes"):
        assert now[key]["count"] == 1, key
    assert now["finish_seconds"]["sum"] <= now["commit_seconds"]["sum"]
    assert now["group_sizes"]["sum"] == 1
    assert now["sync_seconds"]["count"] == 2  # the data, and the mark that they are finished
    assert now["lock_wait_seconds"]["count"] == 0


def test_the_bytes_of_clients_that_are_gone_count_once(server: InProcess) -> None:
    with server.client() as client:
        client.call("ping")
        before = figures(server)
        assert before["bytes_in"] > 0
    server.until(lambda: not server.service.connections)
    after = figures(server)
    assert (after["bytes_in"], after["bytes_out"]) == (before["bytes_in"], before["bytes_out"])


def test_a_transaction_that_waits_for_another(server: InProcess) -> None:
    with server.client() as one, server.client() as two:
        for number, client in enumerate((one, two)):
            client.one_way("tpc_begin", number, "", "", {})
            client.one_way("storea", A, ZERO_TID, b"data", number)
        one.call("vote", 0)
        waits = two.send("vote", 1)
        server.until(lambda: server.service.storages["1"].locks.waiting() == 1)
        during, clients = figures(server), server.ask(lambda: server.service.status().clients)
        assert (during["waiting"], during["active_txns"], during["in_flight"]) == (1, 2, 1)
        assert time.time() - during["lock_time"] < 60
        assert sorted((client.transactions, client.holds_locks, client.in_flight) for client in clients) == [
            (1, False, 1),
            (1, True, 0),
        ]
        one.call("tpc_abort", 0)
        two.wait(waits)
        after = figures(server)
    assert (after["waiting"], after["in_flight"]) == (0, 0)
    assert after["lock_wait_seconds"]["count"] == 1


def test_loads_that_a_thread_does(server: InProcess) -> None:
    with server.client() as client:
        client.commit({A: (ZERO_TID, b"one")})
        coordinator = server.service.storages["1"]

        def cold(oid: bytes, tid: bytes) -> None:
            coordinator.load = coordinator.storage.load_before
            raise BlockingIOError

        coordinator.load = cold
        assert client.load(A)[0] == b"one"
        now = figures(server)
    assert (now["loads"], now["loads_waited"], now["load_wait_seconds"]["count"]) == (1, 1, 1)


def test_slow_calls_and_uploads(server: InProcess) -> None:
    with server.client() as client:
        client.call("undoLog")
        client.one_way("storeBlobStart")
        client.call("ping")
        now = figures(server)
        assert (now["slow_calls"], now["uploads"]) == (1, 1)
    server.until(lambda: not server.service.connections)
    assert figures(server)["uploads"] == 0


def test_what_a_client_does_not_read_is_its_backlog(server: InProcess) -> None:
    with server.client() as client, server.client():
        client.commit({A: (ZERO_TID, b"x" * 1_000_000)})
        for _ in range(20):
            client.send("loadBefore", A, MAX_TID)
        server.until(lambda: server.service.status().storages["1"].backlog_bytes > 100_000)
        now = server.ask(lambda: server.service.status().storages["1"])
        assert now.backlog_max_bytes == now.backlog_bytes


def test_a_snapshot_does_not_move(server: InProcess) -> None:
    status = server.ask(server.service.status)
    with server.client() as client:
        client.commit({A: (ZERO_TID, b"one")})
    assert status.storages["1"].counters["commits"] == 0
    assert status.storages["1"].times["commit_seconds"].total == 0
    assert status.clients == ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        status.connections = 5  # type: ignore[misc]


def test_a_pack(server: InProcess) -> None:
    packing = server.service.storages["1"].packing
    assert figures(server)["pack"] is None
    packing.progress = Progress("copy", 5, 10)
    assert figures(server)["pack"] == ["copy", 5, 10]


def test_json_has_every_storage(server: InProcess) -> None:
    status = json.loads(status_json(server.ask(server.service.status).storages))
    assert set(status) == {"1", "temp"}
    assert status["temp"]["index_bytes"] is None
    assert "sync_seconds" not in status["temp"]


def test_clients_are_told_under_their_names(server: InProcess) -> None:
    with server.client(read_only=True) as client, server.client(), server.client("temp"):
        client.one_way("set_client_label", "web 1")
        client.call("ping")
        told = client.call("clients")
    assert len(told) == 2  # not those of other storages
    (own,) = [one for one in told if one["label"] == "web 1"]
    assert own["address"].startswith("127.0.0.1:")
    assert (own["storage"], own["read_only"], own["commits"], own["transactions"]) == ("1", True, 0, 0)
    assert abs(time.time() - own["since"]) < 60


def test_a_timeout_that_is_off_is_said_as_zeo_does(server: InProcess) -> None:
    assert figures(server)["timeout-thread-is-alive"] is True
    coordinator = server.service.storages["1"]
    server.ask(lambda: coordinator.timeouts.change(0))
    assert server.ask(lambda: StorageStatus.of(coordinator)).as_map()["timeout-thread-is-alive"] == "stub"
