"""zeo:// URLs: where a served storage is.

zeo://host:port             by default on port 9672; the storage "1"
zeo://host:port/name        another storage; so does zeo://host:port?storage=name
zeo:///path/to/socket       a Unix socket; ?storage=name for another storage
"""

from typing import Final, NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from zeo_core.errors import ConfigurationError

__all__ = ["DEFAULT_PORT", "ServedAt", "parse_zeo_url"]

DEFAULT_PORT: Final = 9672


class ServedAt(NamedTuple):
    """A server's address, a pair of host and port or a socket's path, and the name of one of its storages."""

    address: tuple[str, int] | str
    storage: str


def parse_zeo_url(where: str) -> ServedAt:
    """Return what a URL that begins with zeo:// means; ConfigurationError if nothing."""
    url = urlsplit(where)
    asked = parse_qs(url.query).get("storage", ["1"])[-1]
    if url.netloc:
        return ServedAt(_host_and_port(where, url), unquote(url.path[1:]) or asked)
    if url.path in ("", "/"):
        raise ConfigurationError(f"cannot open {where!r}: it names neither a host nor a socket")
    return ServedAt(unquote(url.path), asked)


def _host_and_port(where: str, url: SplitResult) -> tuple[str, int]:
    try:
        host, port = url.hostname, url.port
    except ValueError as error:
        raise ConfigurationError(f"cannot open {where!r}: {error}") from None
    if host is None:
        raise ConfigurationError(f"cannot open {where!r}: it names no host")
    return host, DEFAULT_PORT if port is None else port
