"""Open a large Data.fs with its index, with zeod's FileStorage and with ZODB's, and see what the index takes.

    python -m benchmarks.opening [--objects N] [--repeats N]

Each opening is in a process of its own. Prints the seconds that it took, with the index and without, and the memory
that the index takes, in bytes an object.
"""

import json
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.trees import write_tree

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


def _compare(path: Path, repeats: int) -> None:
    results: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(repeats):
        for kind in KINDS:
            results[kind].append(measure(kind, path))
    for kind, found in results.items():
        medians = [statistics.median(one[name] for one in found) for name in ("seconds", "bytes")]
        click.echo(f"  {kind:8}{medians[0]:8.2f} s{medians[1]:8.1f} bytes an object")


@click.command()
@click.option("--objects", default=1_000_000, show_default=True, help="Objects in the file.")
@click.option("--repeats", default=3, show_default=True, help="Openings by each storage, alternating.")
def main(objects: int, repeats: int) -> None:
    """Time openings by zeod and by ZODB side by side."""
    with tempfile.TemporaryDirectory(dir=".") as directory:
        path = Path(directory, "Data.fs")
        write_tree(path, objects, objects, _PER_TRANSACTION)
        click.echo(f"{objects} objects, {path.stat().st_size / 1e6:.0f} MB; medians of {repeats}")
        click.echo("with the index")
        _compare(path, repeats)
        os.unlink(f"{path}.index")
        click.echo("without")
        _compare(path, repeats)


if __name__ == "__main__":
    main()
