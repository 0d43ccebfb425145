"""The metrics: the status snapshot in Prometheus's words, over HTTP on an address of its own.

A scrape is answered in a thread. It asks the server's loop for a snapshot, which is frozen, and renders that: nothing
that moves is ever looked at from outside the loop.
"""

import asyncio
import logging
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Literal
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, make_wsgi_app
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.core import Metric as MetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from zeo_core.ids import tid_to_time
from zeo_server.histogram import Distribution
from zeo_server.listener import address_text, bind
from zeo_server.status import ServerStatus, StorageStatus

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["METRICS", "SERVER_METRICS", "Metric", "MetricsServer", "StatusCollector"]

_SNAPSHOT_TIMEOUT_S = 10.0  # Prometheus gives a scrape as long unless it is told otherwise
_IDLE_TIMEOUT_S = 30.0  # for a connection on which no request comes
_POLL_S = 0.1  # bounds how long the end waits for the thread that accepts

_log = logging.getLogger("ZEO.StorageServer")

_Kind = Literal["counter", "gauge", "histogram"]
_Value = float | Distribution | None


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of a storage: its name without Prometheus's endings, and how to get it; None where there is none."""

    name: str
    kind: _Kind
    doc: str
    of: Callable[[StorageStatus], _Value]

    @property
    def sample(self) -> str:
        """The name as queries have it; that of a histogram's buckets, sum and count begins with it."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def _counted(name: str, figure: str, doc: str) -> Metric:
    return Metric(name, "counter", doc, lambda status: status.counters[figure])


def _spread(name: str, figure: str, doc: str) -> Metric:
    return Metric(name, "histogram", doc, lambda status: status.times.get(figure))


def _gauge(name: str, doc: str, of: Callable[[StorageStatus], _Value]) -> Metric:
    return Metric(name, "gauge", doc, of)


def _upstream(figure: str) -> Callable[[StorageStatus], _Value]:
    def of(status: StorageStatus) -> _Value:
        upstream = status.upstream
        return None if upstream is None else float(getattr(upstream, figure))

    return of


METRICS: tuple[Metric, ...] = (
    _counted("zeod_loads", "loads", "Objects and blobs that clients asked for"),
    _counted("zeod_loads_waited", "loads_waited", "Loads that a thread did, since the data were not in memory"),
    _spread("zeod_load_wait_seconds", "load_wait_seconds", "How long these took"),
    _counted("zeod_slow_calls", "slow_calls", "Calls done in threads: undo logs, iteration, long invalidations"),
    _counted("zeod_stores", "stores", "Objects that transactions brought"),
    _counted("zeod_commits", "commits", "Transactions that were finished"),
    _counted("zeod_aborts", "aborts", "Transactions that were not: aborted, refused, timed out, of lost clients"),
    _counted("zeod_conflicts", "conflicts", "Votes refused for a conflict"),
    _counted("zeod_conflicts_resolved", "conflicts_resolved", "Conflicts that the server resolved"),
    _spread("zeod_commit_seconds", "commit_seconds", "From vote to visible, the client's part between included"),
    _spread("zeod_finish_seconds", "finish_seconds", "From tpc_finish to its answer"),
    _spread("zeod_lock_wait_seconds", "lock_wait_seconds", "Of transactions that waited for others' locks"),
    _spread("zeod_write_seconds", "write_seconds", "Writing one group of transactions, syncs included"),
    _spread("zeod_sync_seconds", "sync_seconds", "One sync of committed data to disk; files only"),
    _spread("zeod_group_transactions", "group_sizes", "Transactions written together"),
    _counted("zeod_received_bytes", "bytes_in", "Bytes from registered clients"),
    _counted("zeod_sent_bytes", "bytes_out", "Bytes to registered clients"),
    _gauge("zeod_clients", "Registered clients", lambda status: status.connections),
    _gauge("zeod_writers", "Those of them that may write", lambda status: status.writers),
    _gauge("zeod_requests_in_flight", "Requests that are not answered yet", lambda status: status.in_flight),
    _gauge("zeod_backlog_bytes", "Bytes sent that clients have not read", lambda status: status.backlog_bytes),
    _gauge("zeod_backlog_max_bytes", "The most of these of one client", lambda status: status.backlog_max_bytes),
    _gauge("zeod_transactions", "Open transactions", lambda status: status.counters["active_txns"]),
    _gauge("zeod_transactions_waiting", "Those of them that wait for locks", lambda status: status.waiting),
    _gauge("zeod_oldest_vote_seconds", "Age of the oldest vote not finished", lambda status: status.locked_for_s or 0),
    _gauge("zeod_last_transaction_timestamp_seconds", "When the last commit was", lambda status: _when(status)),
    _gauge("zeod_invalidation_queue", "Transactions kept for returning clients", lambda it: it.invalidation_queue),
    _gauge("zeod_uploads", "Blobs that are coming in", lambda status: status.uploads),
    _gauge("zeod_objects", "Objects in the storage", lambda status: status.objects),
    _gauge("zeod_size_bytes", "Size of the storage, without blobs", lambda status: status.size_bytes),
    _gauge("zeod_index_bytes", "Bytes of the index in memory; files only", lambda status: status.index_bytes),
    _gauge("zeod_pack_running", "1 while the storage is packed", lambda status: status.pack is not None),
    _gauge("zeod_pack_done_bytes", "Done of the pack's present phase", lambda it: it.pack and it.pack.done_bytes),
    _gauge("zeod_pack_phase_bytes", "All of that phase", lambda it: it.pack and it.pack.total_bytes),
    _gauge("zeod_upstream_connected", "1 while the server is there whose storage this is", _upstream("connected")),
    _gauge("zeod_upstream_lag_seconds", "How old what clients see may be, of another server", _upstream("lag_s")),
    _gauge("zeod_upstream_cache_bytes", "Bytes in memory of another server's storage", _upstream("cache_bytes")),
    Metric("zeod_upstream_cache_hits", "counter", "Loads answered from there", _upstream("cache_hits")),
    Metric("zeod_upstream_cache_misses", "counter", "Loads that were not", _upstream("cache_misses")),
)
"""The metrics of a storage; each has the label `storage`."""

SERVER_METRICS: tuple[tuple[str, _Kind | Literal["info"], str], ...] = (
    ("zeod_info", "info", "The server's version, as a label"),
    ("zeod_connections", "gauge", "Connections, also those that have not registered"),
    ("zeod_turn_seconds", "histogram", "How long the loop was busy with one read of a client"),
)
"""The metrics of the whole server."""


def _when(status: StorageStatus) -> float:
    return tid_to_time(status.last_tid) if any(status.last_tid) else 0.0


class StatusCollector(Collector):
    """Renders one snapshot for each scrape."""

    def __init__(self, snapshot: Callable[[], ServerStatus]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[MetricFamily]:
        """Walk the metrics of a new snapshot."""
        status = self._snapshot()
        (info, connections, turns) = (doc for _, _, doc in SERVER_METRICS)
        yield InfoMetricFamily("zeod", info, value={"version": status.version})
        yield GaugeMetricFamily("zeod_connections", connections, value=status.connections)
        yield HistogramMetricFamily("zeod_turn_seconds", turns, _buckets(status.turns), status.turns.sum)
        for metric in METRICS:
            yield _family(metric, status)


def _family(metric: Metric, status: ServerStatus) -> MetricFamily:
    families = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
    family: Any = families[metric.kind](metric.name, metric.doc, labels=["storage"])
    for name, storage in status.storages.items():
        value = metric.of(storage)
        if isinstance(value, Distribution):
            family.add_metric([name], _buckets(value), value.sum)
        elif value is not None:
            family.add_metric([name], value)
    return family  # type: ignore[no-any-return]


def _buckets(distribution: Distribution) -> list[tuple[str, float]]:
    bounds = [*map(floatToGoString, distribution.bounds), "+Inf"]
    return list(zip(bounds, distribution.cumulative(), strict=True))


class MetricsServer:
    """Answers scrapes until it is closed."""

    def __init__(
        self,
        address: tuple[str, int],
        status: Callable[[], ServerStatus],
        loop: asyncio.AbstractEventLoop,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Listen at `address`; `status` is called in `loop`. ConfigurationError if that address cannot be had.

        With `tls` it is HTTPS, for those whom the context lets in.
        """
        self._status = status
        self._loop = loop
        registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        registry.register(StatusCollector(self._ask))
        self._app: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)
        self._servers = [_HTTPServer(each, self._answer, tls) for each in bind(address)]
        self.address = address[0], self._servers[0].server_port
        """Where it listens, with the port that was chosen if any free one was asked for."""
        self.url = f"http{'s' if tls else ''}://{address_text(self.address)}/metrics"
        self.open_to_others = any(not ip_address(server.server_name).is_loopback for server in self._servers)
        """Whether other machines may reach it."""
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(_POLL_S,), name="zeod metrics", daemon=True)
            for server in self._servers
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Accept nobody any more. To be called outside the loop."""
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()

    def _ask(self) -> ServerStatus:
        async def ask() -> ServerStatus:
            return self._status()

        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result(_SNAPSHOT_TIMEOUT_S)

    def _answer(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        try:
            return self._app(environ, start_response)
        except Exception as error:  # noqa: BLE001 - told to whoever asks, and to the log
            _log.warning("no metrics could be told: %s", error or type(error).__name__, exc_info=True)
            start_response("503 Service Unavailable", [("Content-Type", "text/plain")], sys.exc_info())
            return [b"zeod could not tell its status\n"]


class _Handler(WSGIRequestHandler):
    """One connection."""

    timeout = _IDLE_TIMEOUT_S

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has
        _log.debug(format, *args)


class _HTTPServer(ThreadingMixIn, WSGIServer):
    """Accepts at a socket that listens already, without asking the name service who we are."""

    daemon_threads = True

    def __init__(
        self, listening: socket.socket, app: Callable[..., Iterable[bytes]], tls: ssl.SSLContext | None
    ) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.server_name, self.server_port = listening.getsockname()[:2]
        if tls is not None:
            # Hands are shaken at the first read, in the connection's own thread: nobody else waits for who is slow.
            self.socket = tls.wrap_socket(listening, server_side=True, do_handshake_on_connect=False)
        self.setup_environ()
        self.set_app(app)

    def handle_error(self, request: object, client_address: object) -> None:
        _log.debug("a scrape from %s was cut short", client_address, exc_info=True)
