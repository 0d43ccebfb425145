"""How fast `zeofs` reads a large file, against the cheapest parser that Python allows.

    python -m benchmarks.zeofs [--megabytes N] [--repeats N] [--file FILE]

Makes a Data.fs with the sizes and classes of a usual one (FILE is kept, and used again), then runs each command and the
parser of `benchmarks.cheapest` that does the least for the same answer, by turns, each in a process of its own. Prints
medians, their ratio, and the most memory that each took.
"""

import multiprocessing
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from persistent import Persistent
from persistent.mapping import PersistentMapping
from zodbpickle import binary, pickle

from benchmarks import cheapest
from zeo_core.ids import pack_id
from zeo_server.storages.file.check import Check
from zeo_server.storages.file.format import DATA_HEADER, DATA_HEADER_SIZE, LENGTH, MAGIC, TRANSACTION_HEADER
from zeo_server.storages.file.rebuild import Rebuild
from zeo_server.storages.file.stats import Stats

_PER_TRANSACTION = 20
_REVISIONS = 2.0  # of each object
_MEAN_BYTES = 910  # of a record, its header included; what the three kinds below come to
_RECORDS = 3000  # different ones
_CLASSES = 40

Task = Callable[[str, int], object]


def _steps(made: Any) -> None:
    deque(made.steps(), maxlen=0)


TASKS: dict[str, tuple[Task, Task]] = {
    "check --no-references": (lambda path, _: _steps(Check(path)), cheapest.walk),
    "check": (lambda path, _: _steps(Check(path, read_records=True)), cheapest.references),
    "index --rebuild": (lambda path, _: _steps(Rebuild(path)), cheapest.index),
    "stats": (lambda path, _: _steps(Stats(path)), cheapest.stats),
}


class _Reference:
    def __init__(self, number: int, of: type) -> None:
        self.key = (binary(pack_id(number)), of)


def _classes() -> list[type]:
    module = ModuleType("application_content")
    sys.modules[module.__name__] = module
    for number in range(_CLASSES):
        setattr(module, f"Document{number}", type(f"Document{number}", (Persistent,), {"__module__": module.__name__}))
    return [getattr(module, f"Document{number}") for number in range(_CLASSES)]


def _record(of: type, state: object) -> bytes:
    file = BytesIO()
    pickler = pickle.Pickler(file, 3)
    pickler.persistent_id = lambda value: value.key if isinstance(value, _Reference) else None
    pickler.dump(of)
    pickler.dump(state)
    return file.getvalue()


def _make_records(objects: int) -> list[bytes]:
    """Return records of three kinds: small objects, buckets of many references, texts."""
    chance, classes = random.Random(1), _classes()

    def text(length: int) -> str:
        return chance.randbytes(length // 2).hex()

    def refer(count: int) -> list[_Reference]:
        return [_Reference(chance.randrange(objects), chance.choice(classes)) for _ in range(count)]

    def record() -> bytes:
        kind = chance.random()
        if kind < 0.5:
            return _record(PersistentMapping, {"data": {"title": text(100), "parts": refer(2), "size": 3}})
        if kind < 0.8:
            return _record(chance.choice(classes), {text(12): reference for reference in refer(20)})
        return _record(chance.choice(classes), {"body": text(1500), "title": text(40)})

    return [record() for _ in range(_RECORDS)]


def make_file(path: Path, size: int, objects: int) -> None:
    """Write a Data.fs of about `size` bytes and `objects` objects."""
    chance = random.Random(2)
    records = _make_records(objects)
    positions = [0] * objects
    with path.open("wb") as file:
        file.write(MAGIC)
        end, number = len(MAGIC), 0
        while number < objects or end < size:
            # every object once, mixed with later revisions of those that are there already
            oids = {chance.randrange(number + 1) for _ in range(_PER_TRANSACTION // 2)}
            oids.update(range(number, min(objects, number + _PER_TRANSACTION // 2)))
            number = min(objects, number + _PER_TRANSACTION // 2)
            tid, start, pieces, at = pack_id(end), end, [], end + 23 + 8
            for oid in sorted(oids):
                data = chance.choice(records)
                pieces += [DATA_HEADER.pack(pack_id(oid), tid, positions[oid], start, 0, len(data)), data]
                positions[oid] = at
                at += DATA_HEADER_SIZE + len(data)
            header = TRANSACTION_HEADER.pack(tid, at - start, b" ", 4, 4, 0) + b"user/doc"
            file.writelines([header, *pieces, LENGTH.pack(at - start)])
            end = at + 8


def _run(name: str, side: int, path: str, objects: int, answer: Any) -> None:
    started = time.perf_counter()
    TASKS[name][side](path, objects)
    seconds = time.perf_counter() - started
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    answer.send((seconds, sum(usage.ru_maxrss for usage in usages) / 1000))


def _measured(name: str, side: int, path: str, objects: int) -> tuple[float, float]:
    """Return the seconds that a task takes in a new process, and the megabytes that this one and its children had."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_run, args=(name, side, path, objects, sender))
    process.start()
    sender.close()
    result: tuple[float, float] = receiver.recv()
    process.join()
    return result


def _compare(name: str, path: str, objects: int, repeats: int) -> None:
    sides = [[_measured(name, side, path, objects) for side in (0, 1)] for _ in range(repeats)]
    ours, least = (statistics.median(times[side][0] for times in sides) for side in (0, 1))
    ratios = [one[0] / other[0] for one, other in sides]
    memory = max(one[1] for one, _ in sides)
    click.echo(
        f"{name:24}{ours:>9.2f} s{least:>9.2f} s{ours / least:>8.2f}   {min(ratios):.2f} .. {max(ratios):.2f}"
        f"{memory:>10.0f} MB"
    )


@click.command()
@click.option("--megabytes", default=1000, show_default=True, help="How large a file to make.")
@click.option("--repeats", default=3, show_default=True, help="Runs of each, by turns.")
@click.option("--file", type=click.Path(path_type=Path), help="Where to make the file, or one made before.")
@click.option("--only", type=click.Choice(sorted(TASKS)), help="One of the commands instead of all.")
def main(megabytes: int, repeats: int, file: Path | None, only: str | None) -> None:
    """Time the commands of zeofs on a large file, and the cheapest parser that Python allows."""
    with tempfile.TemporaryDirectory(dir=".") as directory:
        path = file or Path(directory, "Data.fs")
        size = megabytes * 1_000_000
        objects = int(size / _MEAN_BYTES / _REVISIONS)
        if not path.exists():
            make_file(path, size, objects)
        click.echo(f"{path.stat().st_size / 1e6:,.0f} MB, {objects:,} objects, {os.cpu_count()} processors")
        click.echo(f"{'':24}{'zeofs':>11}{'least':>11}{'ratio':>8}   {'of single runs':14}{'memory':>9}")
        for name in [only] if only else TASKS:
            _compare(name, str(path), objects, repeats)


if __name__ == "__main__":
    main()
