"""Figures that the work itself keeps, in the server's loop: plain attributes, so that a load counts itself in 20 ns."""

import time

from zeo_server.histogram import GROUP_SIZES, SECONDS, Histogram

__all__ = ["ClientCounters", "Counters"]


class Counters:
    """Figures of one storage since the server started. Those of ZEO's server have ZEO's names."""

    __slots__ = (
        *("aborts", "active_txns", "commits", "conflicts", "conflicts_resolved", "loads", "start", "stores"),
        *("bytes_in", "bytes_out", "loads_waited", "slow_calls"),
        *("commit_seconds", "finish_seconds", "group_sizes", "load_wait_seconds", "lock_wait_seconds"),
        "write_seconds",
    )

    def __init__(self) -> None:
        self.loads = 0
        self.stores = 0
        self.commits = 0
        self.aborts = 0
        self.active_txns = 0
        self.conflicts = 0
        self.conflicts_resolved = 0
        self.start = time.ctime()
        self.loads_waited = 0
        """Loads whose data were not in memory, and which a thread waited for."""
        self.slow_calls = 0
        self.bytes_in = 0
        """Of clients that are gone; those that are here count their own."""
        self.bytes_out = 0
        self.commit_seconds = Histogram(SECONDS)
        """From the first vote of a transaction until it is visible, its client's part included."""
        self.finish_seconds = Histogram(SECONDS)
        """From tpc_finish until it is answered."""
        self.lock_wait_seconds = Histogram(SECONDS)
        """For those transactions only that had to wait for others' locks."""
        self.load_wait_seconds = Histogram(SECONDS)
        """For loads that were not in memory."""
        self.write_seconds = Histogram(SECONDS)
        """For a group, in the writer's thread."""
        self.group_sizes = Histogram(GROUP_SIZES)

    def left(self, client: "ClientCounters") -> None:
        """Keep the bytes of a client that is gone."""
        self.bytes_in += client.bytes_in
        self.bytes_out += client.bytes_out

    def committed(self, vote_s: float, finish_s: float) -> None:
        """Take note of a transaction that is visible from now on; when it was voted and finished, by perf_counter."""
        now_s = time.perf_counter()
        self.commits += 1
        self.commit_seconds.observe(now_s - vote_s)
        self.finish_seconds.observe(now_s - finish_s)


class ClientCounters:
    """Figures of one connection."""

    __slots__ = ("bytes_in", "bytes_out", "commits", "in_flight", "loads", "since_s", "stores")

    def __init__(self) -> None:
        self.since_s = time.time()
        self.loads = 0
        self.stores = 0
        self.commits = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.in_flight = 0
        """Requests that are answered later, and have not been yet."""
