"""Where a command finds its server: the argument that all of them take."""

from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import click

from zeo_client.storage import ClientStorage
from zeo_client.transport.address import Address, parse_address
from zeo_client.uris import DEFAULT_PORT
from zeo_core.errors import ConfigurationError

__all__ = ["Place", "connect", "parse_place"]


class Place(NamedTuple):
    """A server's address and the name of one of its storages, "" if none was given."""

    address: Address
    storage: str

    @property
    def storage_or_default(self) -> str:
        """The storage's name, "1" if none was given."""
        return self.storage or "1"


def parse_place(text: str) -> Place:
    """Return what `text` means: HOST:PORT, PORT, a socket's path, or a zeo:// URL as zeo_client.open takes it.

    click.BadParameter if it means nothing; as the type of an argument, that ends the command with status 2.
    """
    try:
        return _parse(text)
    except ConfigurationError as error:
        raise click.BadParameter(str(error)) from error


def _parse(text: str) -> Place:
    if not text.startswith("zeo://"):
        return Place(parse_address(text), "")
    url = urlsplit(text)
    if not url.netloc:
        return Place(parse_address(unquote(url.path)), parse_qs(url.query).get("storage", [""])[-1])
    try:
        host, port = url.hostname or "", url.port or DEFAULT_PORT
    except ValueError as error:
        raise ConfigurationError(f"{text!r} is no address: {error}") from error
    return Place(parse_address((host, port)), unquote(url.path[1:]))


def connect(where: Place, timeout_s: float, *, read_only: bool) -> ClientStorage:
    """Return a client of the storage; ClientDisconnected, ConfigurationError if there is no such storage."""
    try:
        return ClientStorage(where.address, where.storage_or_default, read_only=read_only, wait_timeout=timeout_s)
    except ValueError as error:
        raise ConfigurationError(f"{where.address}: {error}") from error
