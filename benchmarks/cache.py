"""One load: over the network, from a disk cache, and from memory; ours beside that of ZEO's client.

    python -m benchmarks.cache [--objects N] [--repeats N]

Clients read all objects of a database in an order of chance, one by one. The first of a kind finds empty caches; the
second is a new client on the files that the first left, whose memory holds nothing yet, and reads in the same order, as
a program does that was started again; the third reads once more what the second has in memory. A fourth is new again,
and reads in another order. ZEO's client has one cache, its file, which the system keeps in memory: its later readings
are alike. Then one object again and again, from memory, with a disk cache and without. Each kind has its own server.
"""

import gc
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks.figures import Figure, table
from benchmarks.servers import KINDS, serve
from benchmarks.work import OBJECTS, make_database

__all__ = ["figures", "open_client", "read_us"]

_CACHE_BYTES = 200_000_000
_SAME_OBJECT = 100_000


def open_client(kind: str, port: int, cache: Path | None) -> Any:
    """Open a client with a cache on disk, or one in memory."""
    if kind == "zeo":
        from ZEO.ClientStorage import ClientStorage as ZEOStorage

        return ZEOStorage(("127.0.0.1", port), cache_size=_CACHE_BYTES, cache=None if cache is None else str(cache))
    from zeo_client.storage import ClientStorage

    return ClientStorage(
        ("127.0.0.1", port), cache_size=_CACHE_BYTES, memory_cache_size=_CACHE_BYTES, cache=cache, name=f"bench {port}"
    )


def read_us(storage: Any, oids: list[bytes]) -> float:
    """Load objects as of the last transaction; return microseconds for one."""
    before = (int.from_bytes(storage.lastTransaction(), "big") + 1).to_bytes(8, "big")
    gc.collect()
    start = time.perf_counter()
    for oid in oids:
        storage.loadBefore(oid, before)
    return (time.perf_counter() - start) / len(oids) * 1e6


def _measure(kind: str, port: int, directory: Path, oids: list[bytes]) -> dict[str, float]:
    times: dict[str, float] = {}
    cache = directory / "cache.zec"
    for cached, suffix in ((None, "without disk cache"), (cache, "with an empty disk cache")):
        storage = open_client(kind, port, cached)
        times[f"load over the network, {suffix}"] = read_us(storage, oids)
        times[f"one object from memory, {suffix}"] = read_us(storage, oids[:1] * _SAME_OBJECT)
        storage.close()
    start = time.perf_counter()
    storage = open_client(kind, port, cache)
    times["new client on the disk cache: open"] = (time.perf_counter() - start) * 1e6
    times["... its first reading"] = read_us(storage, oids)
    times["... its second reading"] = read_us(storage, oids)
    storage.close()
    storage = open_client(kind, port, cache)
    times["another client, reading in another order"] = read_us(storage, random.Random(2).sample(oids, len(oids)))
    storage.close()
    return times


def figures(repeats: int, objects: int = OBJECTS) -> Iterator[Figure]:
    """Measure both clients, each with a server of its own."""
    found: dict[str, Figure] = {}
    oids = [number.to_bytes(8, "big") for number in range(1, objects + 1)]
    random.Random(1).shuffle(oids)
    for _ in range(repeats):
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as name:
                make_database(Path(name) / "Data.fs")
                with serve(kind, Path(name) / "Data.fs") as server:
                    for task, us in _measure(kind, server.port, Path(name), oids).items():
                        found.setdefault(task, Figure(task, "us")).add(kind, us)
    yield from found.values()


@click.command()
@click.option("--objects", default=OBJECTS, show_default=True, help=f"How many objects are read, up to {OBJECTS}.")
@click.option("--repeats", default=3, show_default=True)
def main(objects: int, repeats: int) -> None:
    """Print a table of microseconds, medians."""
    for line in table(figures(repeats, objects)):
        click.echo(line)


if __name__ == "__main__":
    main()
