"""Servers that serve the storage of another one on: zeod <- zeod <- clients, each a process of its own."""

import socket
from pathlib import Path

from tests.fixtures_zeod import StartZeod, Zeod

__all__ = ["free_port", "start_on_port", "start_relay"]

_CONF = """
<zeo>
  address 127.0.0.1:{port}
{zeo}</zeo>
<zeoclient 1>
  server 127.0.0.1:{upstream}
{lines}</zeoclient>
"""


def free_port() -> int:
    """Return a port for a server that is to be restarted on it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_on_port(start_zeod: StartZeod, directory: Path, port: int, *options: str) -> Zeod:
    """Start the first server, on its Data.fs."""
    return start_zeod("-a", f"127.0.0.1:{port}", "-f", "Data.fs", *options, directory=directory)


def start_relay(
    start_zeod: StartZeod, directory: Path, upstream: int, port: int = 0, *, lines: str = "", zeo: str = ""
) -> Zeod:
    """Start a server on the storage of the one at port `upstream`, with `lines` in its <zeoclient>, `zeo` in <zeo>."""
    conf = directory / f"relay-{upstream}-{port}.conf"
    conf.write_text(_CONF.format(port=port, upstream=upstream, lines=lines, zeo=zeo))
    return start_zeod("-C", str(conf), directory=directory)
