"""The metrics: the collector on snapshots, the server over HTTP; tests/integration/test_metrics.py runs zeod."""

import asyncio
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.client.peer import until
from tests.server.in_process import InProcess, in_process
from tests.server.relay import commit, relaying
from zeo_core.errors import ConfigurationError
from zeo_core.ids import ROOT_OID, ZERO_TID, pack_id
from zeo_core.storage import Progress
from zeo_server import metrics
from zeo_server.metrics import METRICS, SERVER_METRICS, MetricsServer, StatusCollector
from zeo_server.status import ServerStatus

A = pack_id(1)
LIMIT_S = 20


@contextmanager
def answering(server: InProcess, host: str = "127.0.0.1") -> Iterator[MetricsServer]:
    loop = server.ask(asyncio.get_running_loop)
    serving = MetricsServer((host, 0), server.service.status, loop)
    try:
        yield serving
    finally:
        serving.close()


def scrape(address: tuple[str, int]) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/metrics", timeout=LIMIT_S) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        text: str = answer.read().decode()
        return text


def samples(text: str) -> Mapping[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("storage", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels
    }


def rendered(status: ServerStatus) -> str:
    registry = CollectorRegistry()
    registry.register(StatusCollector(lambda: status))
    return generate_latest(registry).decode()


def test_names_are_as_prometheus_wants_them() -> None:
    names = [metric.sample for metric in METRICS] + [name for name, _, _ in SERVER_METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert metric.name.startswith("zeod_")
        assert not metric.name.endswith("_total")
        assert metric.sample.endswith("_total") == (metric.kind == "counter")
        assert not metric.doc.endswith(".")


def test_every_metric_is_there_and_has_its_storage() -> None:
    with in_process() as server, server.client() as client:
        client.commit({ROOT_OID: (ZERO_TID, b"root")})
        server.service.storages["1"].packing.progress = Progress("copy", 5, 10)
        found = samples(rendered(server.ask(server.service.status)))
    known = {name for name, storage in found if storage == "1"}
    expected = {metric.sample for metric in METRICS if metric.kind != "histogram"}
    spread = [metric.name for metric in METRICS if metric.kind == "histogram"]
    expected |= {f"{name}_{part}" for name in spread for part in ("sum", "count")}
    elsewhere = ("zeod_sync_seconds", "zeod_index_bytes", "zeod_upstream_")  # files only; other servers' only
    assert known == {name for name in expected if not name.startswith(elsewhere)}
    assert found["zeod_commits_total", "1"] == 1
    assert found["zeod_clients", "1"] == 1
    assert found["zeod_pack_running", "1"] == 1
    assert (found["zeod_pack_done_bytes", "1"], found["zeod_pack_phase_bytes", "1"]) == (5, 10)
    assert found["zeod_info", ""] == 1
    assert found["zeod_connections", ""] == 1
    assert found["zeod_turn_seconds_count", ""] > 0


def test_another_servers_storage_has_figures_of_that_server() -> None:
    with relaying() as relay:
        tid = commit(relay.first, A)
        relay.second.until(lambda: relay.storage.last_tid() == tid)
        with relay.second.client(read_only=True) as client:
            client.load(A)
        found = samples(rendered(relay.second.ask(relay.second.service.status)))
        assert found["zeod_upstream_connected", "1"] == 1
        assert found["zeod_upstream_lag_seconds", "1"] == 0
        assert found["zeod_upstream_cache_bytes", "1"] > 0
        assert found["zeod_upstream_cache_misses_total", "1"] > 0
        assert found["zeod_upstream_cache_hits_total", "1"] > 0
        relay.proxy.refusing = True
        relay.proxy.cut()
        until(lambda: relay.storage.link.away_s())
        found = samples(rendered(relay.second.ask(relay.second.service.status)))
        assert found["zeod_upstream_connected", "1"] == 0
        assert found["zeod_upstream_lag_seconds", "1"] > 0


def test_a_histograms_buckets_hold_all_that_is_below_them() -> None:
    with in_process() as server:
        server.service.storages["1"].counters.group_sizes.observe(3)
        text = rendered(server.ask(server.service.status))
    for bucket, count in (("1.0", 0), ("2.0", 0), ("4.0", 1), ("1024.0", 1), ("+Inf", 1)):
        assert f'zeod_group_transactions_bucket{{le="{bucket}",storage="1"}} {count}.0' in text


def test_a_storage_that_is_empty_has_no_time_of_a_commit() -> None:
    with in_process() as server:
        found = samples(rendered(server.ask(server.service.status)))
    assert found["zeod_last_transaction_timestamp_seconds", "1"] == 0
    assert found["zeod_pack_running", "1"] == 0
    assert ("zeod_pack_done_bytes", "1") not in found


def test_a_scrape_has_the_figures_of_its_moment_and_those_of_the_process() -> None:
    with in_process() as server, answering(server) as serving, server.client() as client:
        assert samples(scrape(serving.address))["zeod_commits_total", "1"] == 0
        client.commit({ROOT_OID: (ZERO_TID, b"root")})
        found = samples(scrape(serving.address))
    assert found["zeod_commits_total", "1"] == 1
    assert found["process_resident_memory_bytes", ""] > 0
    assert found["python_info", ""] == 1


def test_every_address_of_a_host_answers() -> None:
    with in_process() as server, answering(server, "localhost") as serving, answering(server, "") as everywhere:
        for each in (serving, everywhere):
            assert "zeod_clients" in scrape(each.address)


def test_a_busy_address_is_named() -> None:
    with in_process() as server, answering(server) as serving:
        host, port = serving.address
        loop = server.ask(asyncio.get_running_loop)
        with pytest.raises(ConfigurationError, match=f"cannot listen on {host}:{port}: the address is already in use"):
            MetricsServer((host, port), server.service.status, loop)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, port), LIMIT_S)


def test_a_server_that_hangs_is_told_apart_from_one_that_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_SNAPSHOT_TIMEOUT_S", 0.1)
    goes_on = threading.Event()
    with in_process() as server, answering(server) as serving:
        server.ask(asyncio.get_running_loop).call_soon_threadsafe(goes_on.wait, LIMIT_S)
        try:
            with pytest.raises(urllib.error.HTTPError, match="503") as caught:
                scrape(serving.address)
            caught.value.close()
        finally:
            goes_on.set()
        assert "zeod_clients" in scrape(serving.address)


def test_who_sends_nonsense_or_nothing_harms_nobody() -> None:
    with in_process() as server, answering(server) as serving:
        silent = socket.create_connection(serving.address, LIMIT_S)
        for nonsense in (b"\0\xff\r\n\r\n", b"GET /metrics", b"POST / HTTP/1.1\r\n\r\n", b"x" * 100_000):
            with socket.create_connection(serving.address, LIMIT_S) as other:
                other.sendall(nonsense)
        assert "zeod_clients" in scrape(serving.address)
        silent.close()
