"""A TCP proxy that makes a network of the loopback: it delays, splits, throttles and cuts connections.

    with Proxy(server.address, delay_s=0.002, piece_bytes=100, lifetime_bytes=50_000, seed=1) as proxy:
        ClientStorage(proxy.address)
        proxy.cut()                 # every connection, now
        proxy.refusing = True       # connections are made and end at once
    proxy.lose_reply_to = b"tpc_finish"     # once: the server does it, and the connection is cut before it can say so
    proxy.target = other.address            # for connections from now on
    proxy.cut_after = lambda data: b"tpc_finish" in data    # what comes back after such data is never seen

Order within a connection is kept, as TCP keeps it. Everything random comes from `seed`.
"""

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

__all__ = ["Proxy"]

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by a reset, which drops what was not yet delivered


def _never(_data: bytes) -> bool:
    return False


class Proxy:
    """A proxy in front of `target`, (host, port) or a Unix socket's path, on a free port of 127.0.0.1."""

    def __init__(
        self,
        target: tuple[str, int] | str,
        *,
        delay_s: float = 0.0,
        piece_bytes: int = 64 * 1024,
        lifetime_bytes: int = 0,
        seed: int = 0,
    ) -> None:
        self.refusing = False
        self.cut_after: Callable[[bytes], bool] = _never
        self.connections = 0
        self.target = target
        self.lose_reply_to: bytes | None = None
        self._delay_s = delay_s  # each piece waits a random time up to this
        self._piece_bytes = piece_bytes  # and has a random size up to this
        self._lifetime_bytes = lifetime_bytes  # a connection is cut after a random number of bytes up to this
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._mute: set[tuple[socket.socket, socket.socket]] = set()
        self._doomed: set[tuple[socket.socket, socket.socket]] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"zeo://127.0.0.1:{self.address[1]}"

    def cut(self) -> None:
        """End every connection, in the middle of whatever it carries."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._cut(pair)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.refusing:
                    client.close()
                    continue
                self._join_with_server(client)

    def _join_with_server(self, client: socket.socket) -> None:
        try:
            server = self._connect()
        except OSError:
            client.close()
            return
        self.connections += 1
        for sock in (client, server):
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = (client, server)
        with self._lock:
            self._pairs.add(pair)
        for source, sink in (pair, (server, client)):
            thread = threading.Thread(target=self._pump, args=(source, sink, pair, self._seed()), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _connect(self) -> socket.socket:
        if isinstance(self.target, tuple):
            return socket.create_connection(self.target)
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(self.target)
        except OSError:
            server.close()
            raise
        return server

    def _seed(self) -> int:
        with self._lock:
            return self._random.getrandbits(32)

    def _pump(
        self, source: socket.socket, sink: socket.socket, pair: tuple[socket.socket, socket.socket], seed: int
    ) -> None:
        choice = random.Random(seed)
        left = choice.randrange(1, self._lifetime_bytes + 1) if self._lifetime_bytes else 0
        with contextlib.suppress(OSError):
            while data := source.recv(choice.randrange(1, self._piece_bytes + 1)):
                if self._delay_s:
                    time.sleep(choice.random() * self._delay_s)
                if source is pair[1] and pair in self._doomed:
                    break
                if source is pair[0] and self.cut_after(data):
                    self._doomed.add(pair)
                if left and len(data) >= left:
                    sink.sendall(data[:left])
                    break
                left -= len(data) if left else 0
                if pair in self._mute:
                    break
                if self.lose_reply_to is not None and source is pair[0] and self.lose_reply_to in data:
                    self.lose_reply_to = None
                    self._mute.add(pair)
                sink.sendall(data)
        self._cut(pair)

    def _cut(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            if pair not in self._pairs:
                return
            self._pairs.discard(pair)
        for sock in pair:
            with contextlib.suppress(OSError):
                if self._seed() & 1 and sock.family != socket.AF_UNIX:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
