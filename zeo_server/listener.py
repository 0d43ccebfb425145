"""Where clients connect: TCP addresses and Unix sockets, with errors that name the address."""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, TypeAlias

from zeo_core.errors import ConfigurationError

__all__ = ["BACKLOG", "HANDSHAKE_TIMEOUT_S", "Address", "Listener", "address_text", "bind", "check_address"]

BACKLOG = 1024
"""Connections that may wait to be accepted: after a restart all clients come at once."""

HANDSHAKE_TIMEOUT_S = 10.0
"""How long a new connection may take to agree on TLS."""

Address: TypeAlias = tuple[str, int] | str
"""(host, port), where an empty host is every interface and port 0 any free port; or the path of a Unix socket."""


@dataclass(frozen=True, slots=True)
class Listener:
    """An open door. `address` has the port that was chosen if any free one was asked for."""

    address: Address
    _servers: tuple[asyncio.Server, ...]
    _socket_inode: int | None

    @classmethod
    async def open(
        cls,
        address: Address,
        protocol: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None = None,
        bound: Sequence[socket.socket] | None = None,
    ) -> "Listener":
        """Listen at `address` and make a `protocol` for each connection; ConfigurationError if that is not possible.

        `bound` is what `bind` returned for that address, if it has been called already.
        """
        loop = asyncio.get_running_loop()
        options = _options(tls)
        sockets = bind(address) if bound is None else bound
        try:
            if isinstance(address, str):
                server = await loop.create_unix_server(protocol, sock=sockets[0], **options)
                return cls(address, (server,), os.stat(address).st_ino)
            port = sockets[0].getsockname()[1]
            servers = [await loop.create_server(protocol, sock=each, **options) for each in sockets]
            return cls((address[0], port), tuple(servers), None)
        except OSError as error:
            raise ConfigurationError(f"cannot listen on {address_text(address)}: {_reason(error)}") from error

    @classmethod
    async def adopt(
        cls,
        sockets: Sequence[socket.socket],
        protocol: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None = None,
    ) -> "Listener":
        """Accept at sockets that somebody else has bound, and that stay when this process ends."""
        loop = asyncio.get_running_loop()
        servers: list[asyncio.Server] = []
        for each in sockets:
            create = loop.create_unix_server if each.family == socket.AF_UNIX else loop.create_server
            servers.append(await create(protocol, sock=each, **_options(tls)))
        name = sockets[0].getsockname()
        return cls(name if isinstance(name, str) else (name[0], name[1]), tuple(servers), None)

    def open_to_others(self) -> bool:
        """Tell whether other machines may reach it: it is at a TCP address that is not loopback."""
        names = [each.getsockname() for server in self._servers for each in server.sockets]
        return any(not isinstance(name, str | bytes) and not ip_address(name[0]).is_loopback for name in names)

    def close(self) -> None:
        """Accept nobody from now on; connections stay. The file of a Unix socket goes, if it is still ours."""
        for server in self._servers:
            server.close()
        if isinstance(self.address, str):
            with contextlib.suppress(OSError):
                if os.stat(self.address).st_ino == self._socket_inode:
                    os.unlink(self.address)


def _options(tls: ssl.SSLContext | None) -> dict[str, Any]:
    if tls is None:
        return {"backlog": BACKLOG}
    return {"backlog": BACKLOG, "ssl": tls, "ssl_handshake_timeout": HANDSHAKE_TIMEOUT_S}


def bind(address: Address) -> list[socket.socket]:
    """Return sockets bound to `address`, for `Listener.open`; ConfigurationError if that is not possible."""
    try:
        return [_unix_socket(address)] if isinstance(address, str) else _tcp_sockets(*address)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {address_text(address)}: {_reason(error)}") from error


def check_address(address: Address) -> None:
    """See whether one could listen at `address`, and leave nothing behind; ConfigurationError if not."""
    try:
        if isinstance(address, str):
            _check_socket_path(address)
        else:
            _close_all(_tcp_sockets(*address))
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {address_text(address)}: {_reason(error)}") from error


def address_text(address: Address) -> str:
    """Return an address as configuration files and zeo:// URLs have it."""
    if isinstance(address, str):
        return address
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _tcp_sockets(host: str, port: int) -> list[socket.socket]:
    """Return bound sockets, one for each address of `host`; an empty host takes IPv4 and IPv6 with one."""
    if not host and socket.has_dualstack_ipv6():
        return [socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)]
    found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)  # noqa: S104
    sockets: list[socket.socket] = []
    for family, target in dict.fromkeys((entry[0], str(entry[4][0])) for entry in found):
        try:
            sockets.append(socket.create_server((target, port), family=family, backlog=BACKLOG))
        except OSError as error:
            # localhost has an IPv6 address by name on many machines that have no IPv6
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                _close_all(sockets)
                raise
        else:
            port = port or sockets[0].getsockname()[1]  # one port for all
    if not sockets:
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    return sockets


def _close_all(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()


def _unix_socket(path: str) -> socket.socket:
    """Return a socket bound to `path`; the file that a dead server left is removed, a living one's is not."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        listening.bind(path)
    except OSError:
        listening.close()
        raise
    return listening


def _check_socket_path(path: str) -> bool:
    """Tell whether there is a socket at `path`; OSError if there is something else, or nothing could be made there."""
    directory = os.path.dirname(os.path.abspath(path))
    os.stat(directory)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, f"no socket can be made in {directory}")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "a file that is no socket has this name")
    return True


def _remove_stale(path: str) -> None:
    if not _check_socket_path(path):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        else:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the address is already in use"
    return error.strerror or str(error)
