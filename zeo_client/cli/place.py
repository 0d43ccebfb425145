"""Where a command finds its server: the argument that all of them take, and the options for a server with TLS."""

import functools
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import click

from zeo_client.monitoring import Figures, ask
from zeo_client.storage import ClientStorage
from zeo_client.tls_files import client_context
from zeo_client.transport.address import Address, parse_address
from zeo_client.uris import DEFAULT_PORT
from zeo_core.errors import ConfigurationError

__all__ = ["Place", "connect", "figures_at", "parse_place", "with_server"]


class Place(NamedTuple):
    """A server's address and the name of one of its storages, "" if none was given."""

    address: Address
    storage: str
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    """What the server's certificate is for, if that is not the host of the address."""

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


def with_server(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the argument WHERE, which it gets as a Place, and the options for TLS."""

    @click.argument("where", type=parse_place)
    @click.option("--tls", is_flag=True, help="Connect under TLS; the options that follow mean that, too.")
    @_file_option("ca", "Trust the servers that the authorities in FILE, or in a directory, have signed.")
    @_file_option("certificate", "Show the certificate in FILE.")
    @_file_option("key", "The certificate's key, if it is not in the same file.")
    @click.option(
        *("--tls-server-name", "server_name"),
        envvar="ZEO_TLS_SERVER_NAME",
        metavar="NAME",
        help="What the server's certificate is for, if not the host of the address.",
    )
    @functools.wraps(command)
    def located(
        where: Place,
        tls: bool,
        ca: str | None,
        certificate: str | None,
        key: str | None,
        server_name: str | None,
        **options: Any,
    ) -> Any:
        if key is not None and certificate is None:
            raise click.UsageError("--tls-key is of no use without --tls-certificate")
        if tls or ca or certificate or server_name:
            where = where._replace(tls=client_context(certificate, key, None, ca), server_name=server_name)
        return command(where=where, **options)

    return located


def _file_option(name: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    variable = f"ZEO_TLS_{name.upper()}"
    return click.option(f"--tls-{name}", name, envvar=variable, type=click.Path(), metavar="FILE", help=text)


def figures_at(where: Place, timeout_s: float = 10.0) -> dict[str, Figures]:
    """Return the figures of each storage of the server; raises what `ask` does."""
    return ask(where.address, timeout_s, where.tls, where.server_name)


def connect(where: Place, timeout_s: float, *, read_only: bool) -> ClientStorage:
    """Return a client of the storage; ClientDisconnected, ConfigurationError if there is no such storage."""
    try:
        return ClientStorage(
            where.address,
            where.storage_or_default,
            read_only=read_only,
            wait_timeout=timeout_s,
            ssl=where.tls,
            ssl_server_hostname=where.server_name,
        )
    except ValueError as error:
        raise ConfigurationError(f"{where.address}: {error}") from error
