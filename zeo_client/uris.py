"""Databases by URI: the schemes and query options of zodburi, and what of it is ours.

    zeo://host:port?storage=main&wait_timeout=5&connection_pool_size=10
    zeo://host:port,other:port/main?read_only_fallback=1
    file:///var/db/Data.fs?blob_dir=/var/db/blobs&quota=10GB
    memory://name
    demo:(file:///var/db/Data.fs)/(memory://)#database_name=playground
    zconfig:///etc/app/zodb.conf#main

zodburi finds resolvers by scheme, in the entry points of the group `zodburi.resolvers`, and has the names above for
ZODB's and ZEO's storages. To leave those alone, ours are called zeod://, zeod+file://, zeod+memory://, zeod+demo: and
zeod+zconfig://; for zeo_client.open, both names of a scheme mean the same.
"""

import logging
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from zeo_client.client_options import effective_options
from zeo_client.registry import storage_factory
from zeo_core.errors import ConfigurationError
from zeo_core.storage import Transacts

__all__ = ["DEFAULT_PORT", "Place", "db_options", "place_of", "scheme_of", "zodburi_resolver"]

logger = logging.getLogger(__name__)

DEFAULT_PORT: Final = 9672

_TRUE = frozenset(("1", "on", "true", "t", "yes", "y"))
_FALSE = frozenset(("0", "off", "false", "f", "no", "n"))
_SIZE = re.compile(r"\s*(\d+)\s*([kmg]?)b?\s*", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_PASSWORD = re.compile(r"(\bpassword=)[^&#)]*")
_DEMO = re.compile(r"demo:\((?P<base>.*)\)/\((?P<changes>.*)\)(?:#(?P<options>.*))?")


class Place(NamedTuple):
    """What a URI names: how to open its storage, given more options for it, and what it says for the DB, as text."""

    open_storage: Callable[..., Transacts]
    connection_options: Mapping[str, Any]


def _flag(text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError("neither true nor false")


def _bytes(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError("no size: a number is wanted, or one with KB, MB or GB")
    return int(match[1]) * _UNITS[match[2].lower()]


_Converters = Mapping[str, Callable[[str], Any]]

_CONNECTION = "connection_"
_DB_CONVERTERS: Final[_Converters] = {
    "connection_pool_size": int,
    "connection_pool_timeout": float,
    "connection_cache_size": int,
    "connection_cache_size_bytes": _bytes,
    "connection_historical_pool_size": int,
    "connection_historical_cache_size": int,
    "connection_historical_cache_size_bytes": _bytes,
    "connection_historical_timeout": float,
    "connection_large_record_size": _bytes,
    "database_name": str,
    "xrefs": _flag,
}

_FILE_CONVERTERS: Final[_Converters] = {
    "create": _flag,
    "read_only": _flag,
    "quota": _bytes,
    "blob_dir": str,
    "blobstorage_dir": str,
    "blobstorage_layout": str,
    "pack_gc": _flag,
    "pack_keep_old": _flag,
    "demostorage": _flag,
}

_CLIENT_CONVERTERS: Final[_Converters] = {
    "storage": str,
    "cache_size": _bytes,
    "memory_cache_size": _bytes,
    "staging_memory_size": _bytes,
    "cache": str,
    "name": str,
    "client": str,
    "var": str,
    "debug": _flag,
    "min_disconnect_poll": float,
    "max_disconnect_poll": float,
    "wait": _flag,
    "wait_for_server_on_startup": _flag,
    "wait_timeout": float,
    "reconnect_timeout": float,
    "read_only": _flag,
    "read_only_fallback": _flag,
    "drop_cache_rather_verify": _flag,
    "server_sync": _flag,
    "compression": _flag,
    "username": str,
    "password": str,
    "realm": str,
    "blob_dir": str,
    "shared_blob_dir": _flag,
    "blob_cache_size": _bytes,
    "blob_cache_size_check": int,
    "client_label": str,
    "demostorage": _flag,
}


def scheme_of(where: str) -> str | None:
    """Return the scheme of a URI, None for the name of a file."""
    if where.startswith(("demo:(", "zeod+demo:(")):
        return where.partition(":")[0]
    scheme, separator, _rest = where.partition("://")
    return scheme if separator else None


def place_of(uri: str) -> Place:
    """Return what a URI names; ConfigurationError, naming it, if it cannot be understood. Nothing is opened yet."""
    scheme = scheme_of(uri)
    resolver = _RESOLVERS.get(_usual(scheme or ""))
    if scheme is None or resolver is None:
        raise ConfigurationError(
            f"cannot open {_shown(uri)}: neither zeo://, file://, memory://, demo:(...)/(...) or zconfig://"
            " nor the name of a file"
        )
    try:
        return resolver(_usual(scheme) + uri.removeprefix(scheme))
    except ValueError as error:
        raise ConfigurationError(f"cannot open {_shown(uri)}: {error}") from None


def db_options(place: Place, uri: str) -> dict[str, Any]:
    """Return the arguments for DB that a place's options stand for; ConfigurationError if one has no known meaning."""
    options: dict[str, Any] = {}
    for name, value in place.connection_options.items():
        if name not in _DB_CONVERTERS and isinstance(value, str):
            raise ConfigurationError(f"cannot open {_shown(uri)}: there is no option {name!r}")
        # What is no text comes from a configuration file, and is what it is to be.
        value = _converted(uri, name, value, _DB_CONVERTERS[name]) if isinstance(value, str) else value
        options[name.removeprefix(_CONNECTION)] = value
    return options


def zodburi_resolver(uri: str) -> tuple[Callable[[], Transacts], dict[str, Any]]:
    """Return what zodburi wants of a resolver: a function that opens the storage, and the options for the DB."""
    place = place_of(uri)
    # What zodburi does not know itself, class_factory and xrefs of a <zodb>, it would refuse.
    passed = {name: value for name, value in place.connection_options.items() if name not in ("class_factory", "xrefs")}
    return place.open_storage, passed


def _usual(scheme: str) -> str:
    return "zeo" if scheme == "zeod" else scheme.removeprefix("zeod+")


def _shown(uri: str) -> str:
    """Return a URI for an error's text, without passwords."""
    return repr(_PASSWORD.sub(r"\1...", uri))


def _converted(uri: str, name: str, value: str, convert: Callable[[str], Any]) -> Any:
    try:
        return convert(value)
    except ValueError as error:
        raise ConfigurationError(f"cannot open {_shown(uri)}: {name}={value}: {error}") from None


def _split(uri: str, query: str, converters: _Converters) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the query's options for the storage, and the others."""
    given = dict(parse_qsl(query, keep_blank_values=True))
    known = {name: _converted(uri, name, given[name], converters[name]) for name in given if name in converters}
    return known, {name: value for name, value in given.items() if name not in converters}


def _over(base: Callable[..., Transacts], **options: Any) -> Transacts:
    """Open a playground over a storage: what is written stays in memory."""
    with ExitStack() as opened:
        storage = opened.enter_context(closing(base(**options)))
        playground = storage_factory("demostorage")(base=storage)
        opened.pop_all()
        return playground


def _file(uri: str) -> Place:
    path, _, query = uri.removeprefix("file://").partition("?")
    options, others = _split(uri, query, _FILE_CONVERTERS)
    if not path:
        raise ValueError("it names no file")
    if options.pop("blobstorage_layout", "automatic") not in ("automatic", "bushy"):
        logger.warning("file://%s: blobstorage_layout has no effect: the directory's own layout is kept", path)
    if "blobstorage_dir" in options:
        options["blob_dir"] = options.pop("blobstorage_dir")
    playground = options.pop("demostorage", False)
    open_storage = partial(storage_factory("filestorage"), unquote(path), **options)
    return Place(partial(_over, open_storage) if playground else open_storage, others)


def _memory(uri: str) -> Place:
    name, _, query = uri.removeprefix("memory://").partition("?")
    return Place(partial(storage_factory("mappingstorage"), unquote(name) or "memory"), _split(uri, query, {})[1])


def _client(uri: str) -> Place:
    url = urlsplit(uri)
    options, others = _split(uri, url.query, _CLIENT_CONVERTERS)
    playground = options.pop("demostorage", False)
    options.pop("debug", None)
    if "wait_for_server_on_startup" in options:
        options.setdefault("wait", options.pop("wait_for_server_on_startup"))
    if url.netloc:
        address: object = _host_and_port(url) if "," not in url.netloc else _several(url)
        options.setdefault("storage", unquote(url.path[1:]) or "1")
    elif url.path in ("", "/"):
        raise ValueError("it names neither a host nor a socket")
    else:
        address = unquote(url.path)
        options.setdefault("storage", "1")
    open_storage = partial(_open_client, uri, address, options)
    return Place(partial(_over, open_storage) if playground else open_storage, others)


def _open_client(uri: str, address: Any, options: dict[str, Any], **more: Any) -> Transacts:
    from zeo_client import storage  # a program on a file alone has no use for sockets

    return storage.ClientStorage(address, **effective_options(uri.partition("?")[0], options) | more)


def _host_and_port(url: SplitResult) -> tuple[str, int]:
    host, port = url.hostname, url.port
    if host is None:
        raise ValueError("it names no host")
    return host, DEFAULT_PORT if port is None else port


def _several(url: SplitResult) -> list[tuple[str, int]]:
    return [_host_and_port(urlsplit(f"//{place}")) for place in url.netloc.split(",")]


def _demo(uri: str) -> Place:
    match = _DEMO.fullmatch(uri)
    if match is None:
        raise ValueError("a playground is written demo:(URI of the base)/(URI of the changes)")
    base, changes = place_of(match["base"]), place_of(match["changes"])
    if base.connection_options or changes.connection_options:
        raise ValueError("options of the database belong behind the parentheses: demo:(...)/(...)#name=value&...")
    return Place(partial(_open_demo, base, changes), dict(parse_qsl(match["options"] or "")))


def _open_demo(base: Place, changes: Place, **options: Any) -> Transacts:
    with ExitStack() as opened:
        parts = [opened.enter_context(closing(part.open_storage())) for part in (base, changes)]
        storage = storage_factory("demostorage")(base=parts[0], changes=parts[1], **options)
        opened.pop_all()
        return storage


def _zconfig(uri: str) -> Place:
    from zeo_client import config, sections  # ZConfig is for those who have such a file

    url = urlsplit(uri)
    found = config.sections_from_url(unquote(url.netloc + url.path))
    chosen = next((section for section in found if not url.fragment or section.name == url.fragment.lower()), None)
    if chosen is None:
        names = ", ".join(section.name or "one without a name" for section in found) or "none"
        raise ValueError(f"the file has no database or storage {url.fragment!r}, but {names}")
    if isinstance(chosen, sections.ZODBDatabase):
        options = chosen.db_options()
        prefixed = {name: _CONNECTION + name for name in options if _CONNECTION + name in _DB_CONVERTERS}
        others = {prefixed.get(name, name): value for name, value in options.items()}
        return Place(partial(_open_section, chosen.open_storage), others | dict(parse_qsl(url.query)))
    return Place(partial(_open_section, chosen.open), dict(parse_qsl(url.query)))


def _open_section(open_storage: Callable[[], Transacts], **options: Any) -> Transacts:
    if options:
        raise TypeError(f"the storage is described by its file; {', '.join(sorted(options))} cannot be given beside it")
    return open_storage()


_RESOLVERS: Final[Mapping[str, Callable[[str], Place]]] = {
    "demo": _demo,
    "file": _file,
    "memory": _memory,
    "zconfig": _zconfig,
    "zeo": _client,
}
