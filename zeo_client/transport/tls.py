"""TLS for a blocking socket that one thread reads from while another one writes to it.

`ssl.SSLSocket` cannot be used by two threads at once: OpenSSL's state of a connection is one object. Here the socket
stays plain, bytes go through OpenSSL in memory, under a lock that nobody holds while waiting for the network.

All that has arrived is deciphered at once, so that nothing readable ever hides behind a socket that polls as empty.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Final

from zeo_client.transport.address import Address

__all__ = ["READ_BYTES", "TLSSocket", "securing"]

READ_BYTES: Final = 64 * 1024
"""Read from the network at once: four of TLS's records at their largest."""


class TLSSocket:
    """A connected socket under TLS, with the methods of a socket that a Channel uses."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_hostname: str | None) -> None:
        """Shake hands, under the socket's timeout; OSError, of which ssl's errors are a kind, if that fails.

        `server_hostname` is what the server's certificate must be for, if the context checks names.
        """
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self._lock = threading.Lock()  # over the three; never held while waiting
        self._unread = True  # the server's first words may have come with the end of the handshake
        self._shake_hands()

    def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                data = self._sock.recv(READ_BYTES)
                if not data:
                    raise ConnectionResetError("the server closed the connection during TLS's handshake") from None
                self._incoming.write(data)
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._flush()  # the alert that tells the server why
                raise
            else:
                self._flush()
                return

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self._sock.sendall(data)

    def sendall(self, data: bytes | bytearray) -> None:
        """Encipher and send all; one thread at a time, as with the Channel's sending lock."""
        with self._lock:
            self._tls.write(data)
            ready = self._outgoing.read()  # with whatever the reader has left there, such as an answer to a key update
        self._sock.sendall(ready)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return what has arrived, b"" at the end; waits if nothing has, unless the flags are MSG_DONTWAIT.

        More than `size` bytes, if more were enciphered together.
        """
        plain, ended = b"", False
        if self._unread:
            self._unread = False
            with self._lock:
                plain, ended = self._decipher()
        while not (plain or ended):
            data = self._sock.recv(max(size, READ_BYTES), flags)
            with self._lock:
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
                plain, ended = self._decipher()
        return plain

    def _decipher(self) -> tuple[bytes, bool]:
        """Return all that can be read, and whether that was the end."""
        pieces: list[bytes] = []
        while True:
            try:
                piece = self._tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                return b"".join(pieces), False
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b"".join(pieces), True
            if not piece:
                return b"".join(pieces), True
            pieces.append(piece)

    def settimeout(self, seconds: float | None) -> None:
        """Bound each single operation."""
        self._sock.settimeout(seconds)

    def fileno(self) -> int:
        """Return the socket's descriptor, for select.poll."""
        return self._sock.fileno()

    def shutdown(self, how: int) -> None:
        """End the connection: a thread that waits in `recv` or `sendall` returns."""
        self._sock.shutdown(how)

    def close(self) -> None:
        """Let go of the socket."""
        self._sock.close()


def securing(
    context: ssl.SSLContext | None, hostname: str | None
) -> Callable[[socket.socket, Address], TLSSocket] | None:
    """Return what puts a connected socket under TLS, None without a context; `hostname` stands in for the address's."""
    if context is None:
        return None
    tls = context

    def secure(sock: socket.socket, address: Address) -> TLSSocket:
        name = hostname or address.host or None
        if name is None and tls.check_hostname:
            # with bytes in memory OpenSSL would check no name at all then, and ask for no other reason to trust
            raise OSError("ssl_server_hostname has to say what the server's certificate is for, on a Unix socket")
        return TLSSocket(sock, tls, name)

    return secure
