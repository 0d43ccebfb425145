"""Where a database is, as the commands of `zeofs` take it: a file, a server, a section of a zeo.conf, memory.

Data.fs, file:///path       a file
zeo://host:port/name        a storage of a server, see zeo_server.cli.zeofs.urls
zeo.conf#name               the storage that has this name in a zeo.conf; its only one, if it has just one: zeo.conf
memory://                   nowhere: what is written there is gone with the command
"""

import importlib.metadata
import os
from typing import Any
from urllib.parse import unquote

from zeo_core.errors import ConfigurationError
from zeo_server.cli.zeofs.urls import parse_zeo_url
from zeo_server.config import StorageSection, load
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

__all__ = ["file_at", "open_storage"]

_ENTRY_POINTS = "zeod.storages"  # zeo_client is reached through them: the server's side does not import it
_WAIT_TIMEOUT_S = 10.0
_BLOB_CACHE_BYTES = 1 << 30  # a copy wants each blob once


def file_at(where: str) -> str | None:
    """Return the path if `where` names a file, as a database of its own, else None."""
    scheme, separator, rest = where.partition("://")
    if separator:
        return unquote(rest) if scheme == "file" else None
    if not os.path.exists(where) and "#" in where:
        return None
    return None if where.endswith(".conf") else where


def open_storage(where: str, *, read_only: bool, blob_dir: str | None = None) -> Any:
    """Return the storage at `where`, under ZODB's names; ConfigurationError if it means none.

    `read_only` opens a file beside a server that has it open. `blob_dir` is a file's directory for blobs; of a server's
    storage, one in which blobs are put that are fetched.
    """
    path = file_at(where)
    if path is not None:
        return FileStorage(path, read_only=read_only, blob_dir=blob_dir)
    scheme, separator, _ = where.partition("://")
    if scheme == "zeo" and separator:
        return _client_storage(where, read_only=read_only, blob_dir=blob_dir)
    if blob_dir is not None:
        raise ConfigurationError(f"{where}: a directory for blobs can only be given for a file")
    if scheme == "memory" and separator:
        return MappingStorage(where)
    if separator:
        raise ConfigurationError(f"cannot open {where!r}: neither zeo://, file:// or memory:// nor the name of a file")
    section = _section(where)
    return (section.open_to_read or section.open)() if read_only else section.open()


def _client_storage(where: str, *, read_only: bool, blob_dir: str | None) -> Any:
    place = parse_zeo_url(where)
    for entry_point in importlib.metadata.entry_points(group=_ENTRY_POINTS, name="clientstorage"):
        options = {"read_only": read_only, "wait_timeout": _WAIT_TIMEOUT_S, "cache_size": 0, "client_label": "zeofs"}
        if blob_dir is not None:
            options |= {"blob_dir": blob_dir, "blob_cache_size": _BLOB_CACHE_BYTES}
        try:
            return entry_point.load()(place.address, place.storage, **options)
        except ValueError as error:  # the server has no such storage
            raise ConfigurationError(f"{where}: {error}") from error
    raise ConfigurationError(f"cannot open {where!r}: no installed package offers a storage for zeo://")


def _section(where: str) -> StorageSection:
    path, _, name = where.partition("#")
    sections = {section.name: section for section in load(path).storages}
    if not name and len(sections) == 1:
        return next(iter(sections.values()))
    if name not in sections:
        known = ", ".join(f"{path}#{known}" for known in sections)
        raise ConfigurationError(f"{where}: there is no such storage in {path}, but {known}")
    return sections[name]
