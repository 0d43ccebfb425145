"""What an idle client costs the server: `python -m benchmarks.idle [--clients N]`. Prints bytes of memory for each.

A client is a socket on which the greeting and `register` went well.
"""

import os
import resource
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks.figures import Figure, compare, table
from benchmarks.servers import KINDS, Server, serve
from benchmarks.work import make_database
from zeo_core.wire.session import Greeted, Reply, Role, Session

__all__ = ["bytes_each", "figures", "main"]

_WARM_UP = 50  # clients that come and go before, so that what is made once is made
_SETTLE_S = 1.0


def _rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _register(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    session = Session(Role.CLIENT)
    while True:
        for event in session.receive(sock.recv(4096)):
            if isinstance(event, Greeted):
                sock.sendall(event.answer + session.call(1, "register", ("1", False)))
            elif isinstance(event, Reply):
                return sock


def bytes_each(server: Server, clients: int) -> float:
    """Return by how much the server grows for each of so many clients."""
    for sock in [_register(server.port) for _ in range(_WARM_UP)]:
        sock.close()
    time.sleep(_SETTLE_S)
    before = _rss_bytes(server.pid)
    socks = [_register(server.port) for _ in range(clients)]
    time.sleep(_SETTLE_S)
    grown = _rss_bytes(server.pid) - before
    for sock in socks:
        sock.close()
    return grown / clients


def figures(clients: int = 1000) -> Iterator[Figure]:
    """Measure an idle client of each server, once."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (clients * 2 + 100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    def measure(kind: str) -> float:
        with tempfile.TemporaryDirectory(dir=".") as directory:
            path = Path(directory, f"{kind}.fs").absolute()
            make_database(path)
            with serve(kind, path) as server:
                return bytes_each(server, clients)

    yield compare(f"memory for each of {clients} idle clients", "bytes", KINDS, 1, measure)


@click.command()
@click.option("--clients", default=1000, show_default=True, help="Idle clients.")
def main(clients: int) -> None:
    """Measure an idle client of zeod and of ZEO."""
    for line in table(figures(clients)):
        click.echo(line)


if __name__ == "__main__":
    main()
