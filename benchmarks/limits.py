"""What the machine can do, measured in the same run: a socket echo, and an append with fsync."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from benchmarks.figures import Figure, compare

__all__ = ["append_fsync_us", "echo_us", "figures"]

_ECHO = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sock, _ = listener.accept()
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
reply = b"x" * int(sys.argv[1])
while sock.recv(65536):
    sock.sendall(reply)
"""


def figures(repeats: int) -> Iterator[Figure]:
    """Measure the machine."""
    yield compare("echo to another process", "us", ["machine"], repeats, lambda _: echo_us(3000))
    yield compare("append and fsync", "us", ["machine"], repeats, lambda _: append_fsync_us(500))


def echo_us(rounds: int, request_bytes: int = 45, reply_bytes: int = 350) -> float:
    """Return the mean microseconds of a blocking round trip to another process with messages of a load's size."""
    process = subprocess.Popen([sys.executable, "-c", _ECHO, str(reply_bytes)], stdout=subprocess.PIPE)
    if process.stdout is None:
        raise RuntimeError("no pipe")
    with socket.create_connection(("127.0.0.1", int(process.stdout.readline()))) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = b"x" * request_bytes
        start = time.perf_counter()
        for _ in range(rounds):
            sock.sendall(request)
            sock.recv(65536)
        elapsed = time.perf_counter() - start
    process.wait(10)
    process.stdout.close()
    return elapsed / rounds * 1e6


def append_fsync_us(rounds: int, size: int = 300) -> float:
    """Return the mean microseconds of appending `size` bytes to a file and bringing them to disk."""
    with tempfile.NamedTemporaryFile(dir=".") as file:
        start = time.perf_counter()
        for _ in range(rounds):
            os.write(file.fileno(), b"x" * size)
            os.fsync(file.fileno())
        return (time.perf_counter() - start) / rounds * 1e6
