"""What the server knows of itself, frozen: the one snapshot that every report renders.

It is made in the server's loop, where nothing moves meanwhile, and can be handed to any thread. Reports are the answer
to `ruok` and the call server_status, with ZEO's keys and more, the call `clients`, and the metrics (metrics.py).
"""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from zeo_core.ids import Tid, tid_to_time
from zeo_core.storage import Progress
from zeo_server.commit.coordinator import Coordinator
from zeo_server.histogram import Distribution
from zeo_server.storages.relayed import RelayedStorage

__all__ = ["ClientStatus", "Measured", "ServerStatus", "StorageStatus", "UpstreamStatus", "status_json"]

_COUNTERS = (
    *("loads", "stores", "commits", "aborts", "active_txns", "conflicts", "conflicts_resolved"),
    *("loads_waited", "slow_calls"),
)
_TIMES = ("commit_seconds", "finish_seconds", "lock_wait_seconds", "load_wait_seconds", "write_seconds", "group_sizes")


@runtime_checkable
class Measured(Protocol):
    """A storage that tells more of itself than the contract asks for."""

    def index_bytes(self) -> int:
        """Return how many bytes of memory the index takes, at least."""

    def sync_seconds(self) -> Distribution | None:
        """Return how long bringing commits to disk took, None where nothing is written."""


class ClientStatus(NamedTuple):
    """One registered client at one moment. `since_s` is a time.time(), `backlog_bytes` are sent but not yet read."""

    storage: str
    label: str
    address: str
    read_only: bool
    since_s: float
    loads: int
    stores: int
    commits: int
    bytes_in: int
    bytes_out: int
    backlog_bytes: int
    in_flight: int
    transactions: int
    holds_locks: bool

    def as_map(self) -> dict[str, object]:
        """Return the figures as the call `clients` tells them."""
        told: dict[str, object] = self._asdict()
        told["since"] = told.pop("since_s")
        return told


class UpstreamStatus(NamedTuple):
    """The other server whose storage is served on. `away_s` is for how long there has been no connection.

    `lag_s` is how old what is shown may be: that long, or what has arrived from there and is not shown yet.
    """

    address: str
    connected: bool
    away_s: float
    lag_s: float
    last_tid: Tid
    cache_hits: int
    cache_misses: int
    cache_bytes: int

    def as_map(self) -> dict[str, object]:
        """Return the figures as server_status tells them."""
        told: dict[str, object] = {f"upstream_{name}": value for name, value in self._asdict().items()}
        return {**told, "upstream_last_tid": self.last_tid.hex()}

    @classmethod
    def of(cls, storage: object) -> "UpstreamStatus | None":
        """Return the figures of a storage of another server, None for one of this server's own."""
        if not isinstance(storage, RelayedStorage):
            return None
        link, cache, shown = storage.link, storage.link.memory_stats(), storage.last_tid()
        away_s, known = link.away_s(), link.known_tid()
        lag_s = away_s or (tid_to_time(known) - tid_to_time(shown) if known > shown else 0.0)
        figures = cache["hits"], cache["misses"], cache["bytes"]
        return cls(link.address(), not away_s, away_s, lag_s, known, *figures)


@dataclass(frozen=True, slots=True)
class StorageStatus:
    """One storage's figures at one moment. `locked_for_s` is how long the oldest granted vote waits to be finished."""

    counters: Mapping[str, int]
    times: Mapping[str, Distribution]
    start: str
    connections: int
    writers: int
    waiting: int
    locked_for_s: float | None
    last_tid: Tid
    timeout_enabled: bool
    objects: int
    size_bytes: int
    index_bytes: int | None
    invalidation_queue: int
    uploads: int
    in_flight: int
    backlog_bytes: int
    backlog_max_bytes: int
    pack: Progress | None
    upstream: UpstreamStatus | None = None

    def as_map(self) -> dict[str, object]:
        """Return the figures under the keys of ZEO's server_status, and what we know beyond these."""
        return {
            **self.counters,
            "start": self.start,
            "connections": self.connections,
            "waiting": self.waiting,
            # a point in time, as in ZEO: monitors subtract it from theirs
            "lock_time": None if self.locked_for_s is None else time.time() - self.locked_for_s,
            "last-transaction": self.last_tid.hex(),
            # ZEO has a thread for this and says "stub" where no timeout is configured; monitors look for the key
            "timeout-thread-is-alive": True if self.timeout_enabled else "stub",
            "writers": self.writers,
            "in_flight": self.in_flight,
            "backlog_bytes": self.backlog_bytes,
            "backlog_max_bytes": self.backlog_max_bytes,
            "uploads": self.uploads,
            "invalidation_queue": self.invalidation_queue,
            "objects": self.objects,
            "size_bytes": self.size_bytes,
            "index_bytes": self.index_bytes,
            "pack": None if self.pack is None else list(self.pack),
            **({} if self.upstream is None else self.upstream.as_map()),
            **{name: distribution.as_map() for name, distribution in self.times.items()},
        }

    @classmethod
    def of(cls, coordinator: Coordinator, clients: Iterable[ClientStatus] = ()) -> "StorageStatus":
        """Freeze the figures of one storage and its clients."""
        clients, counters, storage = list(clients), coordinator.counters, coordinator.storage
        figures: dict[str, int] = {name: getattr(counters, name) for name in _COUNTERS}
        figures["bytes_in"] = counters.bytes_in + sum(client.bytes_in for client in clients)
        figures["bytes_out"] = counters.bytes_out + sum(client.bytes_out for client in clients)
        times: dict[str, Distribution] = {name: getattr(counters, name).frozen() for name in _TIMES}
        measured = storage if isinstance(storage, Measured) else None
        syncs = None if measured is None else measured.sync_seconds()
        if syncs is not None:
            times["sync_seconds"] = syncs
        return cls(
            figures,
            times,
            counters.start,
            connections=len(coordinator.audience),
            writers=sum(not client.read_only for client in clients),
            waiting=coordinator.locks.waiting(),
            locked_for_s=coordinator.timeouts.longest_s(),
            last_tid=storage.last_tid(),
            timeout_enabled=coordinator.timeouts.timeout_s > 0,
            objects=storage.object_count(),
            size_bytes=storage.byte_size(),
            index_bytes=None if measured is None else measured.index_bytes(),
            invalidation_queue=len(coordinator.invalidations),
            uploads=len(coordinator.uploads),
            in_flight=sum(client.in_flight for client in clients),
            backlog_bytes=sum(client.backlog_bytes for client in clients),
            backlog_max_bytes=max((client.backlog_bytes for client in clients), default=0),
            pack=coordinator.packing.progress,
            upstream=UpstreamStatus.of(storage),
        )


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """Everything at one moment: `connections` counts also those that have not chosen a storage.

    `turns` tells for how long the loop was busy with what one read brought; everybody else waits that long.
    """

    version: str
    connections: int
    turns: Distribution
    storages: Mapping[str, StorageStatus]
    clients: tuple[ClientStatus, ...]


def status_json(storages: Mapping[str, StorageStatus]) -> bytes:
    """Return what `ruok` is answered with: a JSON map from storage name to figures."""
    return json.dumps({name: status.as_map() for name, status in storages.items()}).encode("ascii")
