"""Pack a Data.fs with zeod's FileStorage and with ZODB's, while one thread loads and another commits.

    python -m benchmarks.pack [--objects N] [--revisions N] [--idle]

Each storage packs a copy of the same file in a process of its own. Prints the time the pack took, how long single loads
and commits took meanwhile, and how much memory the process and the packer had at most.
"""

import contextlib
import json
import multiprocessing
import random
import resource
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import click
from zodbpickle import binary, pickle

from zeo_core.ids import ZERO_TID, pack_id
from zeo_core.transaction import ObjectWrite, PreparedTransaction, TransactionMetadata
from zeo_server.storages.file import FileStorage

KINDS = ("zodb", "zeod")
_FAN_OUT = 100
_PER_TRANSACTION = 10
_LATEST = b"\x7f" + b"\xff" * 7
_FUTURE_S = 3600
_PAUSE_S = 0.001  # between two loads: a client's, which has something else to do as well


class _Reference:
    def __init__(self, number: int) -> None:
        self.oid = binary(pack_id(number))


def _record(numbers: range, text: str) -> bytes:
    file = BytesIO()
    pickler = pickle.Pickler(file, 3)
    pickler.persistent_id = lambda value: (value.oid, ("module", "Class")) if isinstance(value, _Reference) else None
    pickler.dump(("persistent.mapping", "PersistentMapping"))
    pickler.dump({"data": {"items": [_Reference(number) for number in numbers], "text": text}})
    return file.getvalue()


def _children(number: int, objects: int) -> range:
    """Return the objects that object `number` refers to: all of them make a tree."""
    first = 1 + number * _FAN_OUT
    return range(first, min(first + _FAN_OUT, objects))


def make_file(path: Path, objects: int, revisions: int) -> None:
    """Write `revisions` revisions of a tree of `objects` objects, 300 bytes each."""
    chance = random.Random(1)
    storage = FileStorage(path)
    order = [*range(objects), *[chance.randrange(objects) for _ in range(revisions - objects)]]
    for start in range(0, len(order), 20_000):
        transactions: list[PreparedTransaction] = []
        seen: set[int] = set()
        for first in range(start, min(start + 20_000, len(order)), _PER_TRANSACTION):
            numbers = dict.fromkeys(order[first : first + _PER_TRANSACTION])
            # No two transactions of a group touch one object.
            if not seen.isdisjoint(numbers):
                storage.publish(storage.write_group(transactions))
                transactions, seen = [], set()
            seen.update(numbers)
            writes = [
                ObjectWrite(pack_id(n), ZERO_TID, _record(_children(n, objects), chance.randbytes(100).hex()))
                for n in numbers
            ]
            transactions.append(PreparedTransaction(TransactionMetadata(b"user"), tuple(writes)))
        storage.publish(storage.write_group(transactions))
    storage.close()


def _open(kind: str, path: str) -> tuple[Any, Callable[[], None]]:
    """Return a storage and what packs it."""
    if kind == "zodb":
        import ZODB.FileStorage
        from ZODB.serialize import referencesf

        zodb = ZODB.FileStorage.FileStorage(path)
        return zodb, lambda: zodb.pack(time.time() + _FUTURE_S, referencesf)
    storage = FileStorage(path)

    def pack() -> None:
        for _ in storage.pack_steps(time.time() + _FUTURE_S):
            pass

    return storage, pack


class _Metadata:
    """What the storages want to know of a transaction."""

    user = description = extension_bytes = b""

    def __init__(self) -> None:
        self.extension: dict[str, Any] = {}


class _Work:
    """Loads in one thread, commits in another, until `stop`."""

    def __init__(self, storage: Any, objects: int) -> None:
        self._storage = storage
        self._objects = objects
        self._stopped = threading.Event()
        self.loads_s: list[float] = []
        self.commits_s: list[float] = []
        self._threads = [threading.Thread(target=work) for work in (self._load, self._commit)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End both threads."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _load(self) -> None:
        chance = random.Random(2)
        while not self._stopped.wait(_PAUSE_S):
            oid = pack_id(chance.randrange(self._objects))
            start = time.perf_counter()
            self._storage.loadBefore(oid, _LATEST)
            self.loads_s.append(time.perf_counter() - start)

    def _commit(self) -> None:
        chance = random.Random(3)
        while not self._stopped.wait(10 * _PAUSE_S):
            number = chance.randrange(self._objects)
            oid = pack_id(number)
            transaction = _Metadata()
            record = _record(_children(number, self._objects), "committed during the pack")
            start = time.perf_counter()
            self._storage.tpc_begin(transaction)
            self._storage.store(oid, self._storage.loadBefore(oid, _LATEST)[1], record, "", transaction)
            self._storage.tpc_vote(transaction)
            self._storage.tpc_finish(transaction)
            self.commits_s.append(time.perf_counter() - start)


def _measure(kind: str, path: str, objects: int, idle: bool, result_path: str) -> None:
    storage, pack = _open(kind, path)
    work = None if idle else _Work(storage, objects)
    start = time.perf_counter()
    pack()
    result: dict[str, Any] = {"pack": time.perf_counter() - start, "size": storage.getSize()}
    if work is not None:
        work.stop()
        for name, times in (("load", work.loads_s), ("commit", work.commits_s)):
            result[f"{name} p99"] = statistics.quantiles(times, n=100)[98] * 1000
            result[f"longest {name}"] = max(times) * 1000
            result[f"{name}s"] = len(times)
    storage.close()
    result["MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result["MB of the packer"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    Path(result_path).write_text(json.dumps(result))


def measure(kind: str, path: Path, objects: int, *, idle: bool = False) -> dict[str, float]:
    """Pack a copy of the file at `path`; return seconds ("pack"), milliseconds and megabytes."""
    copy, result = path.with_name(f"{kind}.fs"), path.with_name(f"{kind}.json")
    shutil.copy(path, copy)
    with contextlib.suppress(FileNotFoundError):
        shutil.copy(f"{path}.index", f"{copy}.index")
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_measure, args=(kind, str(copy), objects, idle, str(result)))
    process.start()
    process.join()
    found: dict[str, float] = json.loads(result.read_text())
    for remains in path.parent.glob(f"{kind}.*"):
        remains.unlink()
    return found


@click.command()
@click.option("--objects", default=50_000, show_default=True, help="Objects in the file.")
@click.option("--revisions", default=200_000, show_default=True, help="Revisions of them, all but one of each to go.")
@click.option("--repeats", default=3, show_default=True, help="Packs by each storage, alternating.")
@click.option("--idle", is_flag=True, help="Pack without loads and commits going on.")
def main(objects: int, revisions: int, repeats: int, idle: bool) -> None:
    """Time packs by zeod and by ZODB side by side."""
    with tempfile.TemporaryDirectory(dir=".") as directory:
        path = Path(directory, "Data.fs")
        make_file(path, objects, revisions)
        click.echo(f"{objects} objects, {revisions} revisions, {path.stat().st_size / 1e6:.0f} MB\n")
        results: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        for _ in range(repeats):
            for kind in KINDS:
                results[kind].append(measure(kind, path, objects, idle=idle))
    click.echo(f"{'medians':24}" + "".join(f"{kind:>12}" for kind in KINDS))
    for name in results["zodb"][0]:
        medians = [statistics.median(result[name] for result in results[kind]) for kind in KINDS]
        click.echo(f"{name:24}" + "".join(f"{median:12.2f}" for median in medians))
    click.echo("\npack in seconds; loads and commits in milliseconds")


if __name__ == "__main__":
    main()
