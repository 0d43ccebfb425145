"""`open`: from the name of a place to a database, in one line."""

import os
from collections.abc import Mapping
from inspect import signature
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from zeo_client.db import DB
from zeo_client.registry import storage_factory
from zeo_core.errors import ConfigurationError
from zeo_core.storage import Transacts

__all__ = ["DEFAULT_PORT", "open"]

DEFAULT_PORT: Final = 9672

_DB_OPTIONS: Final = frozenset(signature(DB).parameters) - {"storage", "storage_args"}


def open(  # noqa: A001 - zeo_client.open is what it is called
    where: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None, **options: Any
) -> DB:
    """Return the DB at `where`; closing it closes its storage.

        zeo://host:port             a server, by default on port 9672; its storage "1"
        zeo://host:port/name        another of its storages
        zeo:///path/to/socket       a server on a Unix socket; ?storage=name for another storage
        Data.fs, file:///path       a file, in this process; it is created if it does not exist
        memory://                   a database that ends with the process

    Options that DB knows go to it (pool_size, cache_size in objects, database_name, ...), all others to the storage
    (for a server: wait_timeout, read_only, ...; for a file: create, read_only). `storage_options` are for the storage
    in any case: cache_size means objects to the DB, and bytes to the storage of a server.

    ConfigurationError if `where` cannot be understood.
    """
    for_db = {name: value for name, value in options.items() if name in _DB_OPTIONS}
    for_storage = {name: value for name, value in options.items() if name not in _DB_OPTIONS}
    storage = _open_storage(os.fspath(where), {**for_storage, **(storage_options or {})})
    try:
        return DB(storage, **for_db)
    except BaseException:
        storage.close()
        raise


def _open_storage(where: str, options: dict[str, Any]) -> Transacts:
    scheme, separator, rest = where.partition("://")
    if not separator:
        return _registered("filestorage", where, os.path.expanduser(where), options)
    if scheme == "zeo":
        return _client_storage(where, options)
    if scheme == "file":
        return _registered("filestorage", where, unquote(rest), options)
    if scheme == "memory":
        return _registered("mappingstorage", where, unquote(rest) or "memory", options)
    raise ConfigurationError(f"cannot open {where!r}: neither zeo://, file:// or memory:// nor the name of a file")


def _registered(name: str, where: str, argument: str, options: dict[str, Any]) -> Transacts:
    """Return the storage that the entry point `name` makes of `argument`."""
    if not argument:
        raise ConfigurationError(f"cannot open {where!r}: it names no file")
    try:
        factory = storage_factory(name)
    except ConfigurationError as error:
        raise ConfigurationError(f"cannot open {where!r}: {error}") from None
    return factory(argument, **options)


def _client_storage(where: str, options: dict[str, Any]) -> Transacts:
    from zeo_client.storage import ClientStorage  # a program on a file alone has no use for sockets

    url = urlsplit(where)
    if url.netloc:
        return ClientStorage(_host_and_port(where, url), **{"storage": unquote(url.path[1:]) or "1", **options})
    if url.path in ("", "/"):
        raise ConfigurationError(f"cannot open {where!r}: it names neither a host nor a socket")
    names = parse_qs(url.query).get("storage", ["1"])
    return ClientStorage(unquote(url.path), **{"storage": names[-1], **options})


def _host_and_port(where: str, url: SplitResult) -> tuple[str, int]:
    try:
        host, port = url.hostname, url.port
    except ValueError as error:
        raise ConfigurationError(f"cannot open {where!r}: {error}") from None
    if host is None:
        raise ConfigurationError(f"cannot open {where!r}: it names no host")
    return host, DEFAULT_PORT if port is None else port
