"""Our DB and ZODB's on the same storages: open connections, read objects, commit them.

    python -m benchmarks.objects [--objects N] [--repeats N] [--cpu]

The two object layers take turns on one storage of ours in one process: in memory, a Data.fs that the system has in its
page cache, and a ClientStorage whose cache holds everything. What the storage does itself is in both columns, so the
ratio is smaller than that of the object layers alone. On an "own file", ZODB.DB has ZODB's FileStorage and ours has
ours: the whole of either as a small program uses it. `--cpu` counts the process's CPU time, for a machine with other
work to do; a server's is not in it.
"""

import contextlib
import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import transaction
import ZODB
import ZODB.FileStorage
from BTrees.OOBTree import OOBTree
from persistent import Persistent

from benchmarks.figures import Figure, table
from benchmarks.servers import connect, serve
from zeo_client.db import DB
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

__all__ = ["LAYERS", "TASKS", "Item", "figures", "make"]

LAYERS: dict[str, Callable[..., Any]] = {"ZODB.DB": ZODB.DB, "zeod": DB}
_OPENINGS = 1000
_SMALL_COMMITS = 200
_CLIENT_CACHE_BYTES = 500_000_000


class Item(Persistent):
    """An object as applications have them: a few attributes, a reference."""

    def __init__(self, number: int, parent: object) -> None:
        self.number = number
        self.name = f"item number {number}"
        self.tags = ["a", "b", "c"]
        self.parent = parent


class _Timer:
    """Adds up the time of the blocks it is used with."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.seconds = 0.0
        self._clock = clock
        self._start = 0.0

    def __enter__(self) -> None:
        gc.collect()
        gc.disable()
        self._start = self._clock()

    def __exit__(self, *_error: object) -> None:
        self.seconds += self._clock() - self._start
        gc.enable()


def make(database: Any, objects: int) -> None:
    """Put `objects` items into an empty database: in a list to be read, a tenth of them in a BTree too."""
    with database.transaction() as conn:
        root = conn.root()
        root["items"] = [Item(number, root) for number in range(objects)]
        root["tree"] = OOBTree({item.name: item for item in root["items"][: objects // 10]})


def open_and_close(database: Any, timer: _Timer) -> int:
    """Take a connection from the pool, begin a transaction, and give the connection back."""
    manager = transaction.TransactionManager()
    database.open(manager).close()
    with timer:
        for _ in range(_OPENINGS):
            conn = database.open(manager)
            manager.begin()
            conn.close()
    return _OPENINGS


def read(database: Any, timer: _Timer) -> int:
    """Load the state of every item."""
    conn = database.open(transaction.TransactionManager())
    conn.cacheMinimize()
    items = conn.root()["items"]
    with timer:
        for item in items:
            item.number  # noqa: B018 - loads it
    conn.cacheMinimize()
    conn.close()
    return len(items)


def walk_tree(database: Any, timer: _Timer) -> int:
    """Walk the BTree and load its items."""
    conn = database.open(transaction.TransactionManager())
    conn.cacheMinimize()
    tree = conn.root()["tree"]
    with timer:
        for item in tree.values():
            item.number  # noqa: B018 - loads it
    count = len(tree)
    conn.cacheMinimize()
    conn.close()
    return count


def change(database: Any, timer: _Timer) -> int:
    """Commit a change of each item in the tree, a tenth of all, in one transaction."""
    manager = transaction.TransactionManager()
    conn = database.open(manager)
    items = list(conn.root()["tree"].values())
    for item in items:
        item.number += 1
    with timer:
        manager.commit()
    conn.cacheMinimize()
    conn.close()
    return len(items)


def change_one(database: Any, timer: _Timer) -> int:
    """Commit a change of one object, again and again."""
    manager = transaction.TransactionManager()
    conn = database.open(manager)
    [item, *_] = conn.root()["items"]
    with timer:
        for _ in range(_SMALL_COMMITS):
            item.number += 1
            manager.commit()
    conn.close()
    return _SMALL_COMMITS


TASKS: dict[str, Callable[[Any, _Timer], int]] = {
    "open, begin and close": open_and_close,
    "read objects": read,
    "walk a BTree of objects": walk_tree,
    "commit many changed objects": change,
    "commit one changed object": change_one,
}


@contextlib.contextmanager
def _storages(directory: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """Give empty storages, for each layer one, by their names."""
    with serve("zeod", directory / "served.fs") as server:
        shared = {
            "memory": MappingStorage(),
            "file": FileStorage(str(directory / "local.fs")),
            "client": connect("zeod", server.port, cache_size=_CLIENT_CACHE_BYTES),
        }
        storages: dict[str, dict[str, Any]] = {name: dict.fromkeys(LAYERS, one) for name, one in shared.items()}
        own = [ZODB.FileStorage.FileStorage(str(directory / "zodb.fs")), FileStorage(str(directory / "zeod.fs"))]
        storages["own file"] = dict(zip(LAYERS, own, strict=True))
        yield storages
        for storage in [*shared.values(), *own]:
            storage.close()


def _measure(
    name: str, storages: dict[str, Any], objects: int, repeats: int, clock: Callable[[], float]
) -> Iterator[Figure]:
    """Measure every task on one kind of storage, the layers taking turns; microseconds for one unit of it."""
    for storage in set(storages.values()):
        make(DB(storage), objects)
    for task, work in TASKS.items():
        figure = Figure(f"{task}, {name}", "us")
        for turn in range(repeats + 1):
            for layer, open_database in LAYERS.items():
                # A new one for each turn: a storage tells one DB of commits, and this one was not told of the other's.
                timer = _Timer(clock)
                units = work(open_database(storages[layer], cache_size=2 * objects), timer)
                if turn:  # the first warms the storage's caches
                    figure.add(layer, timer.seconds / units * 1e6)
        yield figure


def figures(
    repeats: int,
    objects: int = 100_000,
    wanted: Sequence[str] = (),
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Figure]:
    """Measure the object layers on the `wanted` kinds of storage, or on all."""
    with tempfile.TemporaryDirectory(dir=".") as directory, _storages(Path(directory)) as storages:
        for name, by_layer in storages.items():
            if not wanted or name in wanted:
                yield from _measure(name, by_layer, objects, repeats, clock)


@click.command()
@click.option("--objects", default=100_000, show_default=True, help="Items in the database.")
@click.option("--repeats", default=5, show_default=True, help="Runs of each task with each layer, alternating.")
@click.option("--cpu", is_flag=True, help="Count CPU time instead of the clock's.")
@click.option(
    "--storage", "wanted", multiple=True, help="Only this one: memory, file, client or 'own file'; repeatable."
)
def main(objects: int, repeats: int, cpu: bool, wanted: tuple[str, ...]) -> None:
    """Time the object layers side by side."""
    for line in table(figures(repeats, objects, wanted, time.process_time if cpu else time.perf_counter)):
        click.echo(line)


if __name__ == "__main__":
    main()
