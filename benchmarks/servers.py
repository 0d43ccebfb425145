"""The servers that are compared, as real processes on loopback: zeod, and ZEO's runzeo with msgpack and uvloop."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["KINDS", "Server", "await_port", "connect", "free_port", "serve"]

KINDS = ("zeo", "zeod")

_START_S = 20.0
_STOP_S = 5.0

_CONF = """
<zeo>
  address 127.0.0.1:{port}
  msgpack true
</zeo>
<filestorage 1>
  path {path}
{blobs}</filestorage>
<eventlog>
  level warning
  <logfile>
    path {path}.log
  </logfile>
</eventlog>
"""


class Server(NamedTuple):
    """A running server: the port it listens on, and its process."""

    port: int
    pid: int


def free_port() -> int:
    """Return a TCP port that nobody listens on at the moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def serve(kind: str, path: Path, blobs: Path | None = None) -> Iterator[Server]:
    """Run a server of `kind` on the Data.fs at `path`, with a directory for blobs if one is given."""
    port = free_port()
    conf = path.with_suffix(f".{kind}.conf")
    conf.write_text(_CONF.format(port=port, path=path, blobs=f"  blob-dir {blobs}\n" if blobs else ""))
    module = {"zeo": "ZEO.runzeo", "zeod": "zeo_server.cli.zeod"}[kind]
    process = subprocess.Popen(
        [sys.executable, "-m", module, "-C", str(conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await_port(port, process)
        yield Server(port, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:  # runzeo, now and then
            process.kill()
            process.wait()


def connect(kind: str, port: int, cache_size: int = 20_000_000) -> Any:
    """Return a client's storage of the same kind as the server."""
    if kind == "zeo":
        from ZEO.ClientStorage import ClientStorage as ZEOStorage

        return ZEOStorage(("127.0.0.1", port), cache_size=cache_size)
    from zeo_client.storage import ClientStorage

    return ClientStorage(("127.0.0.1", port), cache_size=cache_size)


def await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server that was started listens."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with status {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{process.args!r} does not listen on port {port}")
