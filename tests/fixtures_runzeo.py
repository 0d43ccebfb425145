"""`start_runzeo`: real processes of ZEO's own server, speaking msgpack, for comparisons with a peer."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

__all__ = ["RunZEO", "StartRunZEO", "start_runzeo"]

START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 5

_CONF = """
<zeo>
  address 127.0.0.1:{port}
  msgpack true
{options}</zeo>
<filestorage 1>
  path {path}
{blobs}</filestorage>
<eventlog>
  <logfile>
    path {log}
  </logfile>
</eventlog>
"""


class RunZEO:
    """A running runzeo on `address`."""

    def __init__(self, directory: Path, path: Path, blobs: Path | None = None, options: str = "") -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address: tuple[str, int] = probe.getsockname()
        self._log = directory / "runzeo.log"
        conf = directory / "runzeo.conf"
        section = f"  blob-dir {blobs}\n" if blobs else ""
        text = _CONF.format(port=self.address[1], path=path, blobs=section, log=self._log, options=options)
        conf.write_text(text)
        command = [sys.executable, "-m", "ZEO.runzeo", "-C", str(conf)]
        self._process = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._await_port()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:  # runzeo sometimes waits for ever for its own threads
            self._process.kill()
            self._process.wait()

    def _await_port(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(self.address, 1).close()
            except OSError:
                time.sleep(0.02)  # between two looks at the condition
            else:
                return
        self._process.kill()
        self._process.wait()
        raise AssertionError(f"runzeo did not start; its log:\n{self._log.read_text() if self._log.exists() else ''}")


StartRunZEO = Callable[..., RunZEO]
"""Takes the path of the Data.fs, of its blob directory if it is to have one, and lines for <zeo>."""


@pytest.fixture
def start_runzeo(tmp_path: Path) -> Iterator[StartRunZEO]:
    """Start runzeo on a Data.fs, with or without blobs."""
    started: list[RunZEO] = []

    def start(path: Path, blobs: Path | None = None, options: str = "") -> RunZEO:
        server = RunZEO(tmp_path, path, blobs, options)
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()
