"""Pack a served Data.fs, by zeod and by runzeo, while one client process loads and another commits.

    python -m benchmarks.pack [--objects N] [--revisions N] [--only zeod] [--idle]

Each server packs a copy of the same file, alternating. Prints the time the pack took, how long single loads and commits
took meanwhile, and how much memory the server and its packer had at most.
"""

import contextlib
import multiprocessing
import os
import random
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import click

from benchmarks.figures import Figure, table
from benchmarks.servers import KINDS, Server, connect, serve
from benchmarks.trees import children, record, write_tree
from zeo_core.ids import pack_id

_LATEST = b"\x7f" + b"\xff" * 7
_FUTURE_S = 3600
_LOAD_PAUSE_S = 0.001  # between two loads: a client's, which has something else to do as well
_COMMIT_PAUSE_S = 0.01
_PROCESS_START_S = 60
_SAMPLE_S = 0.02


_UNITS = {
    "pack": "s",
    "memory of the server before": "MB",
    "memory of the server": "MB",
    "memory of the packer": "MB",
    "size of the file": "MB",
    "loads": "",
    "commits": "",
}
"""Of what is measured; all else is in milliseconds."""


class _Metadata:
    """What the storages want to know of a transaction."""

    user = description = extension_bytes = b""

    def __init__(self) -> None:
        self.extension: dict[str, Any] = {}


def _load(storage: Any, chance: random.Random, objects: int) -> float:
    oid = pack_id(chance.randrange(objects))
    start = time.perf_counter()
    storage.loadBefore(oid, _LATEST)
    elapsed = time.perf_counter() - start
    time.sleep(_LOAD_PAUSE_S)
    return elapsed


def _commit(storage: Any, chance: random.Random, objects: int) -> float:
    number = chance.randrange(objects)
    oid = pack_id(number)
    transaction = _Metadata()
    data = record(children(number, objects), "committed during the pack")
    serial = storage.loadBefore(oid, _LATEST)[1]
    start = time.perf_counter()
    storage.tpc_begin(transaction)
    storage.store(oid, serial, data, "", transaction)
    storage.tpc_vote(transaction)
    storage.tpc_finish(transaction)
    elapsed = time.perf_counter() - start
    time.sleep(_COMMIT_PAUSE_S)
    return elapsed


_WORK = {"load": _load, "commit": _commit}


def _client(work: str, kind: str, port: int, objects: int, done: Any, times: Any) -> None:
    """Be a client process: work until `done` and put how long each turn took."""
    storage = connect(kind, port, cache_size=1)
    chance, found = random.Random(work), []
    _WORK[work](storage, chance, objects)
    times.put(None)  # ready
    while not done.is_set():
        found.append(_WORK[work](storage, chance, objects))
    times.put(found)
    storage.close()


@contextlib.contextmanager
def _clients(kind: str, port: int, objects: int) -> Iterator[dict[str, float]]:
    """Have client processes work; afterwards, how long it took them, in milliseconds, is in what this gave."""
    context = multiprocessing.get_context("spawn")
    done = context.Event()
    queues = {work: context.Queue() for work in _WORK}
    processes = [
        context.Process(target=_client, args=(work, kind, port, objects, done, queue)) for work, queue in queues.items()
    ]
    for process in processes:
        process.start()
    for queue in queues.values():
        queue.get(timeout=_PROCESS_START_S)
    found: dict[str, float] = {}
    try:
        yield found
    finally:
        done.set()
        times = {work: queue.get(timeout=_PROCESS_START_S) for work, queue in queues.items()}
        for process in processes:
            process.join()
    for work, took_s in times.items():
        found[f"{work}s"] = len(took_s)
        found[f"{work} p50"] = statistics.median(took_s) * 1000
        found[f"{work} p99"] = statistics.quantiles(took_s, n=100)[98] * 1000
        found[f"longest {work}"] = max(took_s) * 1000


def _peak_mb(pid: int) -> float:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


class _Memory:
    """The most memory that a server's child process, the packer, had; looked at from time to time."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.peak_mb = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(_SAMPLE_S):
            for directory in Path(f"/proc/{self._pid}/task").iterdir():
                child = _child_of_thread(directory)
                if child is not None:
                    self.peak_mb = max(self.peak_mb, _peak_mb(child))


def _child_of_thread(directory: Path) -> int | None:
    with contextlib.suppress(OSError):
        return next((int(child) for child in (directory / "children").read_text().split()), None)
    return None


def _pack(kind: str, server: Server) -> dict[str, float]:
    storage = connect(kind, server.port)
    before_mb = _peak_mb(server.pid)
    with _Memory(server.pid) as packer:
        start = time.perf_counter()
        storage.pack(time.time() + _FUTURE_S, None)
        elapsed = time.perf_counter() - start
    storage.close()
    return {
        "pack": elapsed,
        "memory of the server before": before_mb,
        "memory of the server": _peak_mb(server.pid),
        "memory of the packer": packer.peak_mb,
    }


def measure(kind: str, path: Path, objects: int, *, idle: bool = False) -> dict[str, float]:
    """Pack a copy of the file at `path`; return seconds ("pack"), milliseconds and megabytes."""
    copy = path.with_name(f"{kind}.fs")
    shutil.copy(path, copy)
    shutil.copy(f"{path}.index", f"{copy}.index")
    os.sync()  # what the copy left to write is not to be waited for by those who are measured
    with serve(kind, copy) as server:
        if idle:
            found = _pack(kind, server)
        else:
            with _clients(kind, server.port, objects) as took_ms:
                found = _pack(kind, server)
            found.update(took_ms)
    found["size of the file"] = copy.stat().st_size / 1e6
    for remains in path.parent.glob(f"{kind}.*"):
        remains.unlink()
    return found


def figures(
    repeats: int,
    objects: int = 50_000,
    revisions: int = 200_000,
    kinds: Sequence[str] = KINDS,
    *,
    idle: bool = False,
) -> Iterator[Figure]:
    """Measure packs of a file, each contender packing a copy of it."""
    found: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory(dir=".") as directory:
        path = Path(directory, "Data.fs")
        write_tree(path, objects, revisions)
        for _ in range(repeats):
            for kind in kinds:
                for name, value in measure(kind, path, objects, idle=idle).items():
                    unit = _UNITS.get(name, "ms")
                    title = f"pack of {max(objects, revisions):,} revisions" if name == "pack" else f"pack: {name}"
                    more_is_better = unit == ""
                    found.setdefault(name, Figure(title, unit, more_is_better=more_is_better)).add(kind, value)
    yield from found.values()


@click.command()
@click.option("--objects", default=50_000, show_default=True, help="Objects in the file.")
@click.option("--revisions", default=200_000, show_default=True, help="Revisions of them, all but one of each to go.")
@click.option("--repeats", default=3, show_default=True, help="Packs by each server, alternating.")
@click.option("--only", type=click.Choice(KINDS), help="Measure one of the two.")
@click.option("--idle", is_flag=True, help="Pack without loads and commits going on.")
def main(objects: int, revisions: int, repeats: int, only: str | None, idle: bool) -> None:
    """Time packs by zeod and by ZEO side by side."""
    for line in table(figures(repeats, objects, revisions, [only] if only else KINDS, idle=idle)):
        click.echo(line)


if __name__ == "__main__":
    main()
