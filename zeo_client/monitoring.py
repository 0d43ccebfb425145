"""What a server says of itself to whoever asks: without registering, so also while it is busy, and to monitors.

ZEO's question and answer: instead of the greeting's echo the client sends "ruok", and the server answers with one JSON
object, a map from the names of its storages to their figures (facts of ZEO's plug-in for Nagios).
"""

import json
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final

from zeo_client.transport.address import Address
from zeo_core.errors import ClientDisconnected, RemoteProtocolError
from zeo_core.wire.frames import FrameDecoder, encode_frame

__all__ = ["Figures", "ask"]

Figures = Mapping[str, Any]
"""What one storage tells: loads, stores, commits, aborts, conflicts, connections, last-transaction, ... and of zeod
more than of ZEO's server."""

_MAX_BYTES: Final = 16 * 1024 * 1024  # for thousands of storages; whoever sends more is no server of this kind
_READ_BYTES: Final = 65536


def ask(
    address: Address, timeout_s: float = 10.0, tls: ssl.SSLContext | None = None, server_name: str | None = None
) -> dict[str, Figures]:
    """Return the figures of each storage that the server at `address` serves.

    With `tls` the connection is under TLS; `server_name` is what the server's certificate is for, by default the host.
    ClientDisconnected if it cannot be reached or is silent, RemoteProtocolError if it is no such server.
    """
    try:
        with _connect(address, timeout_s, tls, server_name) as connection:
            connection.sendall(encode_frame(b"ruok"))
            greeting, answer = _frames(connection, 2)
    except OSError as error:
        raise ClientDisconnected(f"{address}: {error.strerror or error}") from error
    try:
        storages = json.loads(answer)
    except ValueError:
        raise RemoteProtocolError(f"{address}: answers {answer[:20]!r} after the greeting {greeting[:20]!r}") from None
    if not isinstance(storages, dict) or not all(isinstance(figures, dict) for figures in storages.values()):
        raise RemoteProtocolError(f"{address}: answers with something else than figures of storages")
    return storages


def _connect(address: Address, timeout_s: float, tls: ssl.SSLContext | None, server_name: str | None) -> socket.socket:
    connection = _connect_plainly(address, timeout_s)
    if tls is None:
        return connection
    try:
        return tls.wrap_socket(connection, server_hostname=server_name or address.host or None)
    except (OSError, ValueError) as error:  # a ValueError: no name, for instance of a Unix socket's server
        connection.close()
        raise error if isinstance(error, OSError) else OSError(str(error)) from None


def _connect_plainly(address: Address, timeout_s: float) -> socket.socket:
    if not address.path:
        return socket.create_connection((address.host, address.port), timeout_s)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout_s)
        connection.connect(address.path)
    except OSError:
        connection.close()
        raise
    return connection


def _frames(connection: socket.socket, count: int) -> list[bytes]:
    decoder = FrameDecoder(_MAX_BYTES)
    frames: list[bytes] = []
    while len(frames) < count:
        data = connection.recv(_READ_BYTES)
        if not data:
            raise ConnectionResetError("it closed the connection without an answer")
        decoder.feed(data)
        while (frame := decoder.take()) is not None:
            frames.append(bytes(frame))
    return frames[:count]
