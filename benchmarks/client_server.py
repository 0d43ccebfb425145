"""What clients of a server wait for: loads, commits, conflicts, news of others' commits; zeod and ZEO side by side."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import counter, fanout, large, latency, parallel, work
from benchmarks.figures import Figure, compare
from benchmarks.servers import KINDS, serve

__all__ = ["TASKS", "figures"]

Task = Callable[[str, int, int], float]

TASKS: dict[str, tuple[Task, int]] = {
    "one load, client cache empty": (work.cold_load_us, 2000),
    "loads, 4 threads on one client": (parallel.thread_loads_us, 4000),
    "loads, 4 processes": (parallel.process_loads_us, 8000),
    "store objects of 2 MB": (large.store_us, 20),
    "load objects of 2 MB": (large.load_us, 40),
    "warm load (client cache)": (work.warm_load_us, 20000),
    "small commits, 1 client": (work.small_commit_us, 300),
    "small commits, 8 clients": (work.parallel_commit_us, 100),
    "hot counter, resolved, 8 clients": (counter.resolved_counter_us, 100),
    "hot counter, 8 clients": (counter.plain_counter_us, 30),
    "commit until 50 clients know it": (fanout.fanout_us, 60),
    "p99 of loads, idle": (latency.load_p99_idle_us, 1500),
    "p99 of loads beside commits": (latency.load_p99_beside_commits_us, 1500),
}


def figures(repeats: int, only: str = "") -> Iterator[Figure]:
    """Time those tasks that have `only` in their names, on two servers that run beside each other."""
    tasks = {name: task for name, task in TASKS.items() if only in name}
    if not tasks:
        return
    with tempfile.TemporaryDirectory(dir=".") as directory:
        paths = {kind: Path(directory, f"{kind}.fs").absolute() for kind in KINDS}
        for path in paths.values():
            work.make_database(path)
        with serve("zeo", paths["zeo"]) as zeo, serve("zeod", paths["zeod"]) as zeod:
            ports = {"zeo": zeo.port, "zeod": zeod.port}
            for name, (task, rounds) in tasks.items():
                yield _timed(name, task, rounds, ports, repeats)


def _timed(name: str, task: Task, rounds: int, ports: dict[str, int], repeats: int) -> Figure:
    return compare(name, "us", KINDS, repeats, lambda kind: task(kind, ports[kind], rounds))
