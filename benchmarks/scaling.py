"""How costs grow with the number of objects and of clients, for ZEO 6.2 and zeod, with the exponents that fit.

    python -m benchmarks.scaling [--objects 1e4,1e5,1e6] [--clients 1,4,16,64] [--results DIRECTORY]

Each size has a file of its own, written without either storage. 10,000,000 objects take 4 GB of disk and some minutes.
"""

import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from benchmarks import opening
from benchmarks.growth import Growth
from benchmarks.pack import measure as measure_pack
from benchmarks.plots import draw_growth
from benchmarks.processes import group
from benchmarks.servers import KINDS, connect, serve
from benchmarks.trees import write_tree
from benchmarks.work import LATEST, OBJECTS, committed, make_database

__all__ = ["by_clients", "by_objects", "table"]

_LOADS, _COMMITS = 3000, 300
_LOADS_OF_ALL, _COMMITS_OF_ALL = 12_000, 1600
_PACK_MAX_OBJECTS = 1_000_000
_PER_TRANSACTION = 100

Contenders = {"zodb": "ZODB, ZEO", "zeo": "ZODB, ZEO", "zeod": "zeod"}


def by_objects(sizes: Sequence[int]) -> list[Growth]:
    """Measure files of so many objects: opening, loading, committing, packing."""
    opened = Growth("open with the index", "s")
    scanned = Growth("open without the index", "s")
    loads, commits = Growth("cold load", "us"), Growth("small commit", "us")
    packed = Growth("pack, nothing to drop", "s")
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=".") as directory:
            path = Path(directory, "Data.fs").absolute()
            write_tree(path, size, size, _PER_TRANSACTION)
            for kind in opening.KINDS:
                opened.add(Contenders[kind], size, opening.measure(kind, path)["seconds"])
            for kind in KINDS:
                copy = path.with_name(f"{kind}.fs")
                shutil.copy(path, copy)
                shutil.copy(f"{path}.index", f"{copy}.index")
                with serve(kind, copy) as server:
                    loads.add(Contenders[kind], size, _load_us(kind, server.port, size))
                    commits.add(Contenders[kind], size, _commit_us(kind, server.port))
                copy.unlink()
                if size <= _PACK_MAX_OBJECTS:
                    packed.add(Contenders[kind], size, measure_pack(kind, path, size, idle=True)["pack"])
            Path(f"{path}.index").unlink()
            for kind in opening.KINDS:
                scanned.add(Contenders[kind], size, opening.measure(kind, path)["seconds"])
    return [opened, scanned, loads, commits, packed]


def by_clients(counts: Sequence[int]) -> list[Growth]:
    """Measure so many client processes that work at once: the time for one unit of work of all of them together."""
    loads, commits = Growth("one load of all clients'", "us"), Growth("one commit of all clients'", "us")
    with tempfile.TemporaryDirectory(dir=".") as directory:
        for kind in KINDS:
            path = Path(directory, f"{kind}.fs").absolute()
            make_database(path)
            with serve(kind, path) as server:
                for count in counts:
                    for growth, work, units in (
                        (loads, _load_many, _LOADS_OF_ALL),
                        (commits, _commit_many, _COMMITS_OF_ALL),
                    ):
                        each = max(10, units // count)
                        with group(work, [(kind, server.port, each)] * count) as clients:
                            start = time.perf_counter()
                            ended = max(clients.results(stop=False))
                        growth.add(Contenders[kind], count, (ended - start) / (each * count) * 1e6)
    return [loads, commits]


def table(growths: Sequence[Growth]) -> Iterator[str]:
    """Return the lines of a table: the costs at each size, and the exponent."""
    for growth in growths:
        yield f"\n{growth.name}, {growth.unit}"
        for contender, costs in growth.costs.items():
            cells = "".join(f"{size:>12,}: {cost:<10.4g}" for size, cost in sorted(costs.items()))
            yield f"  {contender:12}{cells}  n^{growth.exponent(contender):.2f}"


def _load_us(kind: str, port: int, objects: int) -> float:
    chance = random.Random(1)
    oids = [chance.randrange(objects).to_bytes(8, "big") for _ in range(_LOADS)]
    with closing(connect(kind, port, cache_size=1)) as storage:
        start = time.perf_counter()
        for oid in oids:
            storage.loadBefore(oid, LATEST)
        return (time.perf_counter() - start) / _LOADS * 1e6


def _commit_us(kind: str, port: int) -> float:
    with closing(connect(kind, port)) as storage:
        start = time.perf_counter()
        _commit_some(storage, _COMMITS)
        return (time.perf_counter() - start) / _COMMITS * 1e6


def _commit_some(storage: Any, count: int) -> None:
    oid, serial = storage.new_oid(), b"\0" * 8
    for _ in range(count):
        serial, _ = committed(storage, oid, serial)


def _load_many(kind: str, port: int, count: int, ready: Any, _stop: Any) -> float:
    with closing(connect(kind, port, cache_size=1)) as storage:
        storage.loadBefore((1).to_bytes(8, "big"), LATEST)
        ready()
        for number in range(count):
            storage.loadBefore((number % OBJECTS + 1).to_bytes(8, "big"), LATEST)
        return time.perf_counter()


def _commit_many(kind: str, port: int, count: int, ready: Any, _stop: Any) -> float:
    with closing(connect(kind, port)) as storage:
        _commit_some(storage, 2)
        ready()
        _commit_some(storage, count)
        return time.perf_counter()


def _sizes(_ctx: click.Context, _param: click.Parameter, value: str) -> list[int]:
    try:
        return [int(float(each)) for each in value.split(",") if each]
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of numbers with commas between") from None


@click.command()
@click.option("--objects", callback=_sizes, default="1e4,1e5,1e6", show_default=True, help="Sizes; empty for none.")
@click.option("--clients", callback=_sizes, default="1,2,4,8,16,32,64", show_default=True, help="Counts of processes.")
@click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    default="bench-results",
    show_default=True,
    help="Where the plots go.",
)
def main(objects: list[int], clients: list[int], results: Path) -> None:
    """Measure how costs grow; print them and draw them."""
    results.mkdir(parents=True, exist_ok=True)
    for along, sizes, measure in (("objects", objects, by_objects), ("clients", clients, by_clients)):
        if sizes:
            growths = measure(sizes)
            for line in table(growths):
                click.echo(line)
            draw_growth(results / f"scaling-{along}.svg", growths, along)
            click.echo(f"\ndrawn: {results / f'scaling-{along}.svg'}")


if __name__ == "__main__":
    main()
