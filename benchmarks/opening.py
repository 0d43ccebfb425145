"""Open a large Data.fs with its index, with zeod's FileStorage and with ZODB's, and see what the index takes.

    python -m benchmarks.opening [--objects N] [--repeats N]

Each opening is in a process of its own. Prints the seconds that it took, with the index and without, and the memory
that the index takes, in bytes an object.
"""

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks.figures import Figure, table
from benchmarks.trees import write_tree

__all__ = ["KINDS", "figures", "measure"]

KINDS = ("zodb", "zeod")
_PER_TRANSACTION = 100


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def _storage_class(kind: str) -> Any:
    if kind == "zodb":
        import ZODB.FileStorage

        return ZODB.FileStorage.FileStorage
    from zeo_server.storages.file import FileStorage

    return FileStorage


def _open(kind: str, path: str, result_path: str) -> None:
    make, before = _storage_class(kind), _resident_bytes()
    start = time.perf_counter()
    storage = make(path, read_only=True)
    elapsed = time.perf_counter() - start
    result = {"seconds": elapsed, "bytes": (_resident_bytes() - before) / len(storage)}
    storage.close()
    Path(result_path).write_text(json.dumps(result))


def measure(kind: str, path: Path) -> dict[str, float]:
    """Open the file at `path`; return seconds, and bytes an object."""
    result = path.with_suffix(".json")
    process = multiprocessing.get_context("spawn").Process(target=_open, args=(kind, str(path), str(result)))
    process.start()
    process.join()
    found: dict[str, float] = json.loads(result.read_text())
    return found


def figures(repeats: int, objects: int = 1_000_000) -> Iterator[Figure]:
    """Measure openings of a file of so many objects, with its index and without."""
    with tempfile.TemporaryDirectory(dir=".") as directory:
        path = Path(directory, "Data.fs")
        write_tree(path, objects, objects, _PER_TRANSACTION)
        memory = Figure("memory of the index, an object", "bytes")
        for title in ("with the index", "without the index"):
            figure = Figure(f"open {objects:,} objects {title}", "s")
            for _ in range(repeats):
                for kind in KINDS:
                    found = measure(kind, path)
                    figure.add(kind, found["seconds"])
                    memory.add(kind, found["bytes"])
            yield figure
            Path(f"{path}.index").unlink(missing_ok=True)
        yield memory


@click.command()
@click.option("--objects", default=1_000_000, show_default=True, help="Objects in the file.")
@click.option("--repeats", default=3, show_default=True, help="Openings by each storage, alternating.")
def main(objects: int, repeats: int) -> None:
    """Time openings by zeod and by ZODB side by side."""
    for line in table(figures(repeats, objects)):
        click.echo(line)


if __name__ == "__main__":
    main()
