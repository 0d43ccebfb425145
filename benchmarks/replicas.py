"""What a replica costs: `python -m benchmarks.replicas`. Loads and commits at a server, and through a second one.

"direct" is the first server itself, "replica" a second one that serves the first one's storage on, with a warm cache
unless it is said. Readers have no cache of their own to speak of.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from benchmarks.figures import Figure, compare, table
from benchmarks.parallel import process_loads_us
from benchmarks.servers import await_port, connect, free_port, serve
from benchmarks.work import LATEST, OBJECTS, cold_load_us, make_database, small_commit_us

__all__ = ["figures", "main"]

_CONTENDERS = ("direct", "replica")
_LOADS, _COMMITS, _TOLD = 2000, 200, 50

_CONF = """
<zeo>
  address 127.0.0.1:{port}
</zeo>
<zeoclient 1>
  server 127.0.0.1:{first}
</zeoclient>
<eventlog>
  level error
</eventlog>
"""


@contextmanager
def _relay(directory: Path, first: int) -> Iterator[int]:
    """Serve the storage of the server at port `first` on; the port is given."""
    port = free_port()
    conf = directory / f"relay-{port}.conf"
    conf.write_text(_CONF.format(port=port, first=first))
    command = [sys.executable, "-m", "zeo_server.cli.zeod", "-C", str(conf)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await_port(port, process)
        yield port
    finally:
        process.terminate()
        process.wait()


def _warm(port: int) -> None:
    """Have a replica load everything."""
    storage = connect("zeod", port)
    oids = [number.to_bytes(8, "big") for number in range(1, OBJECTS + 1)]
    for start in range(0, len(oids), 1000):
        storage.prefetch(oids[start : start + 1000], LATEST)
    storage.close()


class _Ear:
    """Hears when a storage is told of a transaction."""

    def __init__(self) -> None:
        self.told_s: dict[bytes, float] = {}

    def invalidate(self, tid: bytes, _oids: Any, *_: Any) -> None:
        self.told_s[tid] = time.monotonic()

    def invalidateCache(self) -> None:  # noqa: N802 - its name
        pass


def _told_us(writer_port: int, reader_port: int) -> float:
    """Return the median time from a commit at one server, answered, until a client of another one knows of it."""
    writer, reader, ear = connect("zeod", writer_port), connect("zeod", reader_port), _Ear()
    reader.register_sink(ear)
    oid, serial, done_s = writer.new_oid(), b"\0" * 8, {}
    for _ in range(_TOLD):
        transaction = _Transaction()
        writer.tpc_begin(transaction)
        writer.store(oid, serial, b"x" * 300, "", transaction)
        writer.tpc_vote(transaction)
        start_s = time.monotonic()
        serial = writer.tpc_finish(transaction)
        done_s[serial] = start_s
        deadline = start_s + 5
        while serial not in ear.told_s and time.monotonic() < deadline:
            time.sleep(0.0002)
    writer.close()
    reader.close()
    delays = sorted(ear.told_s[tid] - start_s for tid, start_s in done_s.items() if tid in ear.told_s)
    return delays[len(delays) // 2] * 1e6


class _Transaction:
    user = description = ""
    extension: dict[str, Any] = {}  # noqa: RUF012 - nothing is ever put there


def figures(repeats: int = 3) -> Iterator[Figure]:
    """Measure both, taking turns."""
    with tempfile.TemporaryDirectory(dir=".") as name:
        directory = Path(name).absolute()
        path = directory / "Data.fs"
        make_database(path)
        with serve("zeod", path) as first, _relay(directory, first.port) as second:
            ports = {"direct": first.port, "replica": second}
            _warm(second)

            def cold_us(contender: str) -> float:
                if contender == "direct":
                    return cold_load_us("zeod", first.port, _LOADS)
                with _relay(directory, first.port) as fresh:
                    return cold_load_us("zeod", fresh, _LOADS)

            yield compare(
                "one load", "us", _CONTENDERS, repeats, lambda each: cold_load_us("zeod", ports[each], _LOADS)
            )
            yield compare("one load, the replica's cache empty", "us", _CONTENDERS, repeats, cold_us)
            yield compare(
                "loads of 4 readers together",
                "/s",
                _CONTENDERS,
                repeats,
                lambda each: 1e6 / process_loads_us("zeod", ports[each], _LOADS),
                more_is_better=True,
            )
            yield compare(
                "finish until a reader there knows",
                "us",
                _CONTENDERS,
                repeats,
                lambda each: _told_us(first.port, ports[each]),
            )
            yield compare(
                "one commit", "us", _CONTENDERS, repeats, lambda each: small_commit_us("zeod", ports[each], _COMMITS)
            )


@click.command()
@click.option("--repeats", default=3, show_default=True, help="Turns of each contender.")
def main(repeats: int) -> None:
    """Measure loads and commits directly and through a replica."""
    for line in table(figures(repeats)):
        click.echo(line)


if __name__ == "__main__":
    main()
