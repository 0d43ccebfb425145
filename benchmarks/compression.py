"""What compressed answers bring on links of several speeds: a BTree of objects that is walked cold, and large texts.

    python -m benchmarks.compression [--objects N] [--repeats N] [--megabits 10,100,1000]

One zeod behind a link with 1 ms of round trip; clients that ask for compression and clients that do not take turns.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping

import zeo_client
from benchmarks.figures import Figure, compare, table
from benchmarks.link import link_to
from benchmarks.servers import serve
from benchmarks.walk import Item
from zeo_client.db import DB

__all__ = ["MEGABITS", "figures"]

MEGABITS = (10, 100, 1000)
_ROUND_TRIP_S = 0.001
_CACHE_BYTES = 200_000_000
_TEXTS = 8
_KINDS = {"plain": False, "compressed": True}


def _open(port: int, *, compression: bool) -> DB:
    storage = zeo_client.ClientStorage(("127.0.0.1", port), cache_size=_CACHE_BYTES, compression=compression)
    return DB(storage, cache_size=100_000)


def _fill(port: int, objects: int) -> None:
    page = Path(zeo_client.__file__).with_name("storage.py").read_text("utf-8") * 20  # 400 KB of text
    with _open(port, compression=False) as db, db.transaction() as conn:
        conn.root.tree = OOBTree({f"key {number:07}": Item(number) for number in range(objects)})
        conn.root.texts = [PersistentMapping(text=f"{number} {page}") for number in range(_TEXTS)]


def _walk(conn: Any) -> int:
    return sum(1 for item in conn.root.tree.values() if item.number >= 0)


def _read(conn: Any) -> int:
    return sum(1 for each in conn.root.texts if each["text"])


def _rate(work: Callable[[Any], int], port: int, kind: str) -> float:
    with _open(port, compression=_KINDS[kind]) as db, db.transaction() as conn:
        start = time.perf_counter()
        return work(conn) / (time.perf_counter() - start)


def figures(repeats: int, objects: int = 5000, megabits: Sequence[int] = MEGABITS) -> Iterator[Figure]:
    """Measure objects and texts a second."""
    with tempfile.TemporaryDirectory(dir=".") as directory, ExitStack() as running:
        server = running.enter_context(serve("zeod", Path(directory, "Data.fs").absolute()))
        _fill(server.port, objects)
        for speed in megabits:
            port = running.enter_context(link_to(server.port, _ROUND_TRIP_S, speed * 1e6 / 8))
            for name, work in (("walk a BTree", _walk), ("load texts of 400 KB", _read)):
                task = f"{name}, {speed} Mbit/s"
                yield compare(task, "/s", list(_KINDS), repeats, partial(_rate, work, port), more_is_better=True)


@click.command()
@click.option("--objects", default=5000, show_default=True, help="Objects in the BTree.")
@click.option("--repeats", default=3, show_default=True, help="Runs of each, taking turns.")
@click.option("--megabits", default=",".join(map(str, MEGABITS)), show_default=True, help="Speeds of the link.")
def main(objects: int, repeats: int, megabits: str) -> None:
    """Print rates and their ratios."""
    for line in table(list(figures(repeats, objects, [int(speed) for speed in megabits.split(",")]))):
        click.echo(line)


if __name__ == "__main__":
    main()
