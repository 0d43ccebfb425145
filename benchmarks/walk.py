"""Walking a BTree of objects and prefetching them, over ZEO 6.2 and zeod, on loopback and over a link of 1 ms.

    python -m benchmarks.walk [--objects N] [--repeats N] [--round-trip MS]

Each run has a new client with an empty cache and a DB of its kind: ZODB's on ZEO, ours on zeod. The two servers, each
on a Data.fs of its own with the same objects, take turns.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import transaction
import ZODB
from BTrees.OOBTree import OOBTree
from persistent import Persistent

from benchmarks.figures import Figure, compare, table
from benchmarks.link import link_to
from benchmarks.servers import KINDS, connect, serve
from zeo_client.db import DB

__all__ = ["Item", "figures"]

_CACHE_BYTES = 200_000_000


class Item(Persistent):
    """An object as applications have them."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = f"item number {number}"
        self.tags = ["a", "b", "c"]


def _open(kind: str, port: int, objects: int) -> Any:
    storage = connect(kind, port, cache_size=_CACHE_BYTES)
    return (ZODB.DB if kind == "zeo" else DB)(storage, cache_size=2 * objects)


def _fill(kind: str, port: int, objects: int) -> None:
    database = _open(kind, port, objects)
    connection = database.open()
    tree = connection.root()["tree"] = OOBTree()
    for number in range(objects):  # one by one, so that the tree has the shape of one that has grown
        tree[f"key {number:07}"] = Item(number)
    transaction.commit()
    connection.close()
    database.close()


def _walk(database: Any, objects: int) -> float:
    """Return the seconds that it takes to walk the tree and to load its objects."""
    connection = database.open()
    tree = connection.root()["tree"]
    start = time.perf_counter()
    numbers = [item.number for item in tree.values()]
    elapsed = time.perf_counter() - start
    connection.close()
    if numbers != list(range(objects)):
        raise RuntimeError("the walk did not meet the objects in order")
    return elapsed


def _prefetch(database: Any, objects: int) -> float:
    """Return the seconds until all objects, named by oid, are in the client's cache."""
    connection = database.open()
    oids = [number.to_bytes(8, "big") for number in range(2, objects + 2)]
    # Neither DB has a public way to load a record of the state that its connection sees.
    load = connection._snapshot.load if isinstance(database, DB) else connection._storage.load  # noqa: SLF001
    start = time.perf_counter()
    connection.prefetch(oids)
    for oid in oids:  # ZEO's prefetch does not wait: this does, and costs ours a look at its cache
        load(oid)
    elapsed = time.perf_counter() - start
    connection.close()
    return elapsed


_Task = Callable[[Any, int], float]


def _rates(name: str, task: _Task, ports: dict[str, int], objects: int, repeats: int) -> Figure:
    def rate(kind: str) -> float:
        database = _open(kind, ports[kind], objects)
        seconds = task(database, objects)
        database.close()
        return objects / seconds

    return compare(name, "/s", KINDS, repeats, rate, more_is_better=True)


def figures(repeats: int, objects: int = 20_000, round_trip_ms: float = 1.0) -> Iterator[Figure]:
    """Measure objects a second."""
    with tempfile.TemporaryDirectory(dir=".") as directory, ExitStack() as running:
        near = {kind: running.enter_context(serve(kind, Path(directory, f"{kind}.fs"))).port for kind in KINDS}
        far = {kind: running.enter_context(link_to(port, round_trip_ms / 1000)) for kind, port in near.items()}
        for kind, port in near.items():
            _fill(kind, port, objects)
        yield _rates("walk a BTree of objects", _walk, near, objects, repeats)
        yield _rates(f"walk a BTree, {round_trip_ms:g} ms away", _walk, far, objects, repeats)
        yield _rates("prefetch by oid", _prefetch, near, objects, repeats)
        yield _rates(f"prefetch by oid, {round_trip_ms:g} ms away", _prefetch, far, objects, repeats)


@click.command()
@click.option("--objects", default=20_000, show_default=True, help="Objects in the BTree.")
@click.option("--repeats", default=3, show_default=True, help="Runs of each task on each server, alternating.")
@click.option("--round-trip", default=1.0, show_default=True, help="Milliseconds that the slow link takes.")
def main(objects: int, repeats: int, round_trip: float) -> None:
    """Print objects a second, the ratio and its spread."""
    for line in table(list(figures(repeats, objects, round_trip))):
        click.echo(line)


if __name__ == "__main__":
    main()
