"""A link with a round trip of its own: a process that hands on, after a while, all that it gets, in both directions.

Bytes wait, but do not hold up one another: as on a long line, and not as at a slow peer. A line may also have a speed.
"""

import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import click

__all__ = ["link_to"]

_READ_BYTES = 1 << 20
_PIECE_BYTES = 16 * 1024  # of a line that has a speed: what it has sent arrives, whatever follows


@contextmanager
def link_to(port: int, round_trip_s: float, bytes_s: float = 0.0) -> Iterator[int]:
    """Run such a process in front of `port` of 127.0.0.1, and give its own port; `bytes_s` 0 is as fast as can be."""
    command = [sys.executable, "-m", "benchmarks.link", str(port), str(round_trip_s), str(bytes_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    if process.stdout is None:
        raise RuntimeError("the link does not say where it listens")
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class _Line:
    """One direction of a connection."""

    def __init__(self, source: socket.socket, sink: socket.socket, delay_s: float, bytes_s: float) -> None:
        self._source, self._sink, self._delay_s, self._bytes_s = source, sink, delay_s, bytes_s
        self._free = 0.0  # when the line has sent what came before
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._came = threading.Semaphore(0)
        for target in (self._receive, self._send):
            threading.Thread(target=target, daemon=True).start()

    def _receive(self) -> None:
        data = b"first"
        while data:
            data = self._source.recv(_PIECE_BYTES if self._bytes_s else _READ_BYTES)
            now = time.perf_counter()
            if self._bytes_s:
                self._free = now = max(now, self._free) + len(data) / self._bytes_s
            self._waiting.append((now + self._delay_s, data))
            self._came.release()

    def _send(self) -> None:
        while True:
            self._came.acquire()
            due, data = self._waiting.popleft()
            time.sleep(max(0.0, due - time.perf_counter()))
            if not data:
                self._sink.shutdown(socket.SHUT_WR)
                return
            self._sink.sendall(data)


@click.command()
@click.argument("port", type=int)
@click.argument("round_trip_s", type=float)
@click.argument("bytes_s", type=float)
def main(port: int, round_trip_s: float, bytes_s: float) -> None:
    """Hand on between a port of its own, which it prints, and PORT."""
    listener = socket.create_server(("127.0.0.1", 0))
    click.echo(listener.getsockname()[1])
    while True:
        client, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", port))
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _Line(client, server, round_trip_s / 2, bytes_s)
        _Line(server, client, round_trip_s / 2, bytes_s)


if __name__ == "__main__":
    main()
