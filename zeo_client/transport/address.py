"""Where a server listens: host and port, or a Unix socket's path."""

import os
from typing import NamedTuple, TypeAlias

from zeo_core.errors import ConfigurationError

__all__ = ["DEFAULT_HOST", "MAX_PATH_BYTES", "Address", "AddressLike", "parse_address", "parse_addresses"]

DEFAULT_HOST = "127.0.0.1"

MAX_PATH_BYTES = 107
"""What `struct sockaddr_un` has room for on Linux, its final 0 byte not counted."""


class Address(NamedTuple):
    """A TCP address, or a Unix socket when `path` is not empty."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


AddressLike: TypeAlias = str | int | tuple[str, int] | Address
"""What people write: ("db1", 9672), 9672, "db1:9672", "[::1]:9672", "/run/zeod.sock"."""


def parse_address(where: AddressLike) -> Address:
    """Return the address that `where` means; ConfigurationError, naming it, if it means none."""
    if isinstance(where, Address):
        return where
    if isinstance(where, int):
        return _tcp(DEFAULT_HOST, where, where)
    if isinstance(where, tuple) and len(where) == 2:
        return _tcp(where[0], where[1], where)
    if isinstance(where, str):
        return _from_text(where)
    raise ConfigurationError(f"{where!r} is no address: give host and port, 'host:port', a port or a path")


def parse_addresses(where: AddressLike | list[AddressLike]) -> list[Address]:
    """Return the addresses of one or several servers."""
    if isinstance(where, list):
        if not where:
            raise ConfigurationError("an empty list of addresses")
        return [parse_address(each) for each in where]
    return [parse_address(where)]


def _from_text(text: str) -> Address:
    if "/" in text:
        return _unix(text)
    host, colon, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit()):  # other scripts have digits, too
        raise ConfigurationError(f"{text!r} is no address: give 'host:port', a port, or a path with a '/' in it")
    if not colon:
        return _tcp(DEFAULT_HOST, int(port), text)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return _tcp(host, int(port), text)


def _unix(path: str) -> Address:
    try:
        size = len(os.fsencode(path))
    except UnicodeError:
        size = 0
    if not 0 < size <= MAX_PATH_BYTES or "\0" in path:
        raise ConfigurationError(f"{path!r} is no address: a socket's path has up to {MAX_PATH_BYTES} bytes, none of 0")
    return Address("", 0, path)


def _tcp(host: object, port: object, where: object) -> Address:
    if type(port) is not int or not 0 < port < 65536:
        raise ConfigurationError(f"{where!r} is no address: a port is a number from 1 to 65535")
    if not isinstance(host, str) or not _is_host(host):
        raise ConfigurationError(f"{where!r} is no address: {host!r} is not the name of a host")
    return Address(host or DEFAULT_HOST, port)


def _is_host(name: str) -> bool:
    """Tell whether the resolver would at least look at `name`."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return not set(name) & set("\0[] ")
