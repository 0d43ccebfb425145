"""Blobs over the network: `python -m benchmarks.blobs [--repeats N] [--mb N] [--small N]`.

One large blob, and many of 100 kB, stored in one transaction and loaded by a client whose cache is empty: ZEO 6.2's
client with its server, and ours with zeod, alternating, on real processes and loopback. A store is on disk when zeod's
client hears of it; ZEO never syncs blobs. Prints MB/s, medians.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click
from ZODB.Connection import TransactionMetaData

from benchmarks.figures import Figure, table
from benchmarks.servers import serve

__all__ = ["SMALL_BYTES", "figures", "main"]

SMALL_BYTES = 100_000

_NEW = b"\0" * 8

Ids = list[tuple[bytes, bytes]]


def _client(kind: str, port: int, cache: Path) -> Any:
    if kind == "zeo":
        from ZEO.ClientStorage import ClientStorage as ZEOStorage

        return ZEOStorage(("127.0.0.1", port), blob_dir=str(cache))
    from zeo_client.storage import ClientStorage

    return ClientStorage(("127.0.0.1", port), blob_dir=str(cache))


def _store_s(storage: Any, blobs: list[bytes]) -> tuple[float, Ids]:
    """Commit blobs in one transaction; return the seconds from the first storeBlob, and their oids and serials."""
    paths = []
    for number, data in enumerate(blobs):
        paths.append(os.path.join(storage.temporaryDirectory(), f"new-{number}"))
        Path(paths[-1]).write_bytes(data)
    transaction = TransactionMetaData()
    oids = [storage.new_oid() for _ in blobs]
    start = time.perf_counter()
    storage.tpc_begin(transaction)
    for oid, path in zip(oids, paths, strict=True):
        storage.storeBlob(oid, _NEW, b"a record", path, "", transaction)
    storage.tpc_vote(transaction)
    tid = storage.tpc_finish(transaction)
    return time.perf_counter() - start, [(oid, tid) for oid in oids]


def _load_s(storage: Any, ids: Ids) -> float:
    start = time.perf_counter()
    for oid, tid in ids:
        storage.loadBlob(oid, tid)
    return time.perf_counter() - start


def _round(kind: str, port: int, directory: Path, blobs: list[bytes]) -> tuple[float, float]:
    """Return the MB/s of storing by one client and of loading by another."""
    total = sum(map(len, blobs)) / 1e6
    with tempfile.TemporaryDirectory(dir=directory) as caches:
        with closing(_client(kind, port, Path(caches, "writer"))) as storage:
            store_s, ids = _store_s(storage, blobs)
        with closing(_client(kind, port, Path(caches, "reader"))) as storage:
            return total / store_s, total / _load_s(storage, ids)


def _work(mb: int, small: int) -> dict[str, Callable[[], list[bytes]]]:
    return {
        f"1 blob of {mb} MB": lambda: [os.urandom(1_000_000) * mb],
        f"{small} blobs of {SMALL_BYTES // 1000} kB": lambda: [os.urandom(SMALL_BYTES) for _ in range(small)],
    }


def figures(repeats: int, mb: int = 100, small: int = 200) -> Iterator[Figure]:
    """Measure MB/s."""
    with tempfile.TemporaryDirectory(dir=".") as name:
        directory = Path(name).absolute()
        with (
            serve("zeo", directory / "zeo.fs", directory / "zeo") as zeo,
            serve("zeod", directory / "zeod.fs", directory / "zeod") as zeod,
        ):
            for title, make in _work(mb, small).items():
                found = [Figure(f"{what} {title}", "MB/s", more_is_better=True) for what in ("store", "load")]
                for _ in range(repeats):
                    for kind, port in (("zeo", zeo.port), ("zeod", zeod.port)):
                        for figure, rate in zip(found, _round(kind, port, directory, make()), strict=True):
                            figure.add(kind, rate)
                yield from found


@click.command()
@click.option("--repeats", default=5, show_default=True, help="Rounds on each server, alternating.")
@click.option("--mb", default=100, show_default=True, help="Size of the large blob.")
@click.option("--small", default=200, show_default=True, help="How many blobs of 100 kB.")
def main(repeats: int, mb: int, small: int) -> None:
    """Time blobs on zeod and on ZEO side by side."""
    for line in table(figures(repeats, mb, small)):
        click.echo(line)


if __name__ == "__main__":
    main()
