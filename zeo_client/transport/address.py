"""Where a server listens: host and port, or a Unix socket's path."""

from typing import NamedTuple, TypeAlias

from zeo_core.errors import ConfigurationError

__all__ = ["DEFAULT_HOST", "Address", "AddressLike", "parse_address", "parse_addresses"]

DEFAULT_HOST = "127.0.0.1"

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
        return _checked(DEFAULT_HOST, where, where)
    if isinstance(where, tuple) and len(where) == 2:
        return _checked(where[0], where[1], where)
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
        return Address("", 0, text)
    host, colon, port = text.rpartition(":")
    if not colon and text.isdigit():
        return _checked(DEFAULT_HOST, int(text), text)
    if not colon or not port.isdigit():
        raise ConfigurationError(f"{text!r} is no address: give 'host:port', a port, or a path with a '/' in it")
    return _checked(host.removeprefix("[").removesuffix("]"), int(port), text)


def _checked(host: object, port: object, where: object) -> Address:
    if not isinstance(host, str | None) or not isinstance(port, int) or not 0 < port < 65536:
        raise ConfigurationError(f"{where!r} is no address: a port is a number from 1 to 65535")
    return Address(host or DEFAULT_HOST, port)
