"""`open`: from the name of a place to a database, in one line."""

import os
from collections.abc import Mapping
from functools import partial
from inspect import signature
from typing import Any, Final

from zeo_client.db import DB
from zeo_client.registry import storage_factory
from zeo_client.uris import Place, db_options, place_of, scheme_of
from zeo_core.errors import ConfigurationError

__all__ = ["open"]

_DB_OPTIONS: Final = frozenset(signature(DB).parameters) - {"storage", "storage_args"}


def open(  # noqa: A001 - zeo_client.open is what it is called
    where: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None, **options: Any
) -> DB:
    """Return the DB at `where`; closing it closes its storage.

        zeo://host:port             a server, by default on port 9672; its storage "1"
        zeo://host:port/name        another of its storages; or ?storage=name
        zeo:///path/to/socket       a server on a Unix socket
        Data.fs, file:///path       a file, in this process; it is created if it does not exist
        memory://                   a database that ends with the process
        demo:(base)/(changes)       a playground: two such places, of which only the changes are written to
        zconfig:///path#name        a section of a configuration file

    Options that DB knows go to it (pool_size, cache_size in objects, database_name, ...), all others to the storage
    (for a server: wait_timeout, read_only, ...; for a file: create, read_only). `storage_options` are for the storage
    in any case: cache_size means objects to the DB, and bytes to the storage of a server.

    A URI may have options too, as zodburi has them: ?wait_timeout=5&connection_pool_size=10. What is given here is used
    rather than those. ConfigurationError if `where` cannot be understood.
    """
    where = os.fspath(where)
    place = _file(where) if scheme_of(where) is None else place_of(where)
    for_db = db_options(place, where) | {name: value for name, value in options.items() if name in _DB_OPTIONS}
    for_storage = {name: value for name, value in options.items() if name not in _DB_OPTIONS}
    storage = place.open_storage(**for_storage | dict(storage_options or {}))
    try:
        return DB(storage, **for_db)
    except BaseException:
        storage.close()
        raise


def _file(where: str) -> Place:
    if not where:
        raise ConfigurationError(f"cannot open {where!r}: it names no file")
    return Place(partial(storage_factory("filestorage"), os.path.expanduser(where)), {})
