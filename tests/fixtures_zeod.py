"""`start_zeod`: real zeod processes for tests.

    server = start_zeod("-f", "Data.fs")            # in tmp_path, on a free port of 127.0.0.1
    server = start_zeod("-f", "Data.fs", "-a", "./zeod.sock")
    server.address                                  # (host, port) or the socket's path

Every server that a test leaves running is stopped when the test ends.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

__all__ = ["StartZeod", "Zeod", "start_zeod"]

START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 30

_FINDS_TESTS = {
    "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
}

_BANNER = re.compile(r'^zeod \S+ serves .* on (?P<where>\S+); connect with zeo_client\.open\("zeo://')


class Zeod:
    """A running zeod. Its standard output and its log go to files in `directory`."""

    def __init__(self, process: "subprocess.Popen[str]", directory: Path, log: Path, banner: str) -> None:
        self.process = process
        self.directory = directory
        self.banner = banner
        self.address = self._parse(banner)
        self._log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def url(self) -> str:
        """What zeo_client.open takes, as the banner says."""
        found = re.search(r'"(zeo://.*)"', self.banner)
        assert found
        return found.group(1)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop the server in order, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def kill(self) -> None:
        """End the server as a power cut would."""
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"zeod did not stop; its log:\n{self.log_text()}") from None
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()

    def log_text(self) -> str:
        """What the server has written to its standard error so far."""
        return self._log.read_text()

    def _parse(self, banner: str) -> tuple[str, int] | str:
        found = _BANNER.match(banner)
        assert found, banner
        where = found.group("where")
        if "/" in where:
            return str(self.directory / where)
        host, _, port = where.rpartition(":")
        return host.strip("[]") or "127.0.0.1", int(port)


StartZeod = Callable[..., Zeod]


@pytest.fixture
def start_zeod(tmp_path: Path) -> Iterator[StartZeod]:
    """Start zeod with command-line arguments; without -a or -C it takes a free port of 127.0.0.1."""
    started: list[Zeod] = []

    def start(*args: str, directory: Path | None = None) -> Zeod:
        where = directory or tmp_path
        if not {"-a", "-C"} & set(args):
            args = ("-a", "127.0.0.1:0", *args)
        server = launch(where, where / f"zeod-{len(started)}.log", *args)
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


def launch(directory: Path, log: Path, *args: str, module: str = "zeo_server.cli.zeod") -> Zeod:
    """Start a server, or the `module` that is to be one, and wait for the line that says where it listens."""
    command = [sys.executable, "-m", module, *args]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, cwd=directory, env=os.environ | _FINDS_TESTS, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    assert process.stdout is not None
    # a server that neither speaks nor ends is killed, which ends the wait for its line
    watchdog = threading.Timer(START_TIMEOUT_S, process.kill)
    watchdog.start()
    try:
        banner = process.stdout.readline()
    finally:
        watchdog.cancel()
    if not banner:
        process.wait()
        process.stdout.close()
        raise AssertionError(f"zeod did not start; its log:\n{log.read_text()}")
    return Zeod(process, directory, log, banner)
