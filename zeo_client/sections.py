"""What the sections of an application's configuration open: databases and storages; component.xml names these classes.

They have the shape of ZODB.config's: `config` is the section with its keys, `name` its name, `open()` opens it.
"""

import logging
import os
from collections.abc import MutableMapping
from contextlib import ExitStack, closing
from ssl import SSLContext
from typing import Any

import ZConfig.datatypes

from zeo_client.client_options import effective_options
from zeo_client.db import DB
from zeo_client.registry import storage_factory
from zeo_client.tls_files import client_context
from zeo_core.errors import ConfigurationError
from zeo_core.storage import Transacts

__all__ = [
    "BlobStorage",
    "ClientStorage",
    "DemoStorage",
    "FileStorage",
    "MappingStorage",
    "Section",
    "ZODBDatabase",
    "importable_name",
    "tls",
]

logger = logging.getLogger(__name__)

_MAGIC_BYTES = 4  # a shorter Data.fs has no data
_DB_OPTIONS = (
    "pool_size",
    "pool_timeout",
    "cache_size",
    "cache_size_bytes",
    "historical_pool_size",
    "historical_cache_size",
    "historical_cache_size_bytes",
    "historical_timeout",
    "large_record_size",
    "class_factory",
)
_FILE_OPTIONS = ("read_only", "quota", "pack_gc", "pack_keep_old")
_CLIENT_OPTIONS = (
    "storage",
    "cache_size",
    "memory_cache_size",
    "staging_memory_size",
    "cache",
    "name",
    "client",
    "var",
    "blob_dir",
    "shared_blob_dir",
    "blob_cache_size",
    "blob_cache_size_check",
    "min_disconnect_poll",
    "max_disconnect_poll",
    "wait",
    "wait_timeout",
    "reconnect_timeout",
    "read_only",
    "read_only_fallback",
    "username",
    "password",
    "realm",
    "drop_cache_rather_verify",
    "server_sync",
    "compression",
    "client_label",
)


def importable_name(name: str) -> Any:
    """Return what a dotted name means; ValueError, to which ZConfig adds the place, if it cannot be imported."""
    try:
        return ZConfig.datatypes.Registry().search(name)
    except Exception as error:
        raise ValueError(f"{name!r} cannot be imported: {error}") from error


class Section:
    """A section of the configuration."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.name: str | None = config.getSectionName()


class FileStorage(Section):
    """<filestorage>: a Data.fs in this process."""

    def open(self, **options: Any) -> Transacts:
        """Open it; `options` are used rather than the section's."""
        config = self.config
        if config.packer:
            logger.warning("<filestorage> %s: packer has no effect", config.path)
        given = {name: getattr(config, name) for name in _FILE_OPTIONS}
        given |= {"create": self._create(), "blob_dir": config.blob_dir or None}
        given = {name: value for name, value in given.items() if value is not None}
        return storage_factory("filestorage")(config.path, **given | options)

    def _create(self) -> bool:
        # It stays in a configuration and is read at each start: at the second, the file has data.
        path, create = self.config.path, bool(self.config.create)
        if create and os.path.exists(path) and os.path.getsize(path) >= _MAGIC_BYTES:
            logger.warning("<filestorage> %s: has data, and is opened as it is; create has no effect", path)
            return False
        return create


class BlobStorage(Section):
    """<blobstorage>: a directory for the blobs of the <filestorage> in it."""

    def open(self) -> Transacts:
        """Open both; ConfigurationError for another storage than a <filestorage>, which needs no such section."""
        base = self.config.base
        if not isinstance(base, FileStorage) or base.config.blob_dir:
            raise ConfigurationError("<blobstorage>: only a <filestorage> without blob-dir can be given one")
        return base.open(blob_dir=self.config.blob_dir)


class MappingStorage(Section):
    """<mappingstorage>: a storage in memory."""

    def open(self) -> Transacts:
        """Open it."""
        return storage_factory("mappingstorage")(self.config.name)


class DemoStorage(Section):
    """<demostorage>: changes over a base; of the two storages in it, the one named "changes" takes what is written."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._parts: dict[str, Any] = {}
        for part in config.factories:
            role = "changes" if part.name == "changes" else "base"
            if role in self._parts:
                raise ValueError(f"<demostorage>: two storages for the {role}")
            self._parts[role] = part

    def open(self) -> Transacts:
        """Open it with its parts; a missing one is a storage in memory."""
        with ExitStack() as opened:  # closes the one if the other, or both together, cannot be opened
            parts = {role: opened.enter_context(closing(part.open())) for role, part in self._parts.items()}
            storage = storage_factory("demostorage")(self.config.name, **parts)
            opened.pop_all()
            return storage


def tls(section: Any) -> tuple[SSLContext, str | None]:
    """Make the context of an <ssl> section, and the name that the server's certificate must be for."""
    context = client_context(
        section.certificate,
        section.key,
        section.password_function,
        section.authenticate,
        check_hostname=section.check_hostname,
    )
    return context, section.server_hostname


class ClientStorage(Section):
    """<zeoclient> and <clientstorage>: a storage on a server, the first of several that answers."""

    def open(self) -> Transacts:
        """Connect; ClientDisconnected if no server answers in time, unless the section says not to wait."""
        from zeo_client import storage  # a program on a file alone has no use for sockets

        config = self.config
        where = f"<{config.getSectionType()}>"
        options = effective_options(where, {name: getattr(config, name, None) for name in _CLIENT_OPTIONS})
        if config.ssl is not None:
            options["ssl"], options["ssl_server_hostname"] = config.ssl
        return storage.ClientStorage([server.address for server in config.server], **options)


class ZODBDatabase(Section):
    """<zodb>: a database on the storage in it."""

    def open(self, databases: MutableMapping[str, Any] | None = None) -> DB:
        """Open it; it joins `databases`."""
        storage = self.open_storage()
        try:
            return DB(storage, databases=databases, **self.db_options())
        except BaseException:
            storage.close()
            raise

    def open_storage(self) -> Transacts:
        """Open its storage alone."""
        storage: Transacts = self.config.storage.open()
        return storage

    def db_options(self) -> dict[str, Any]:
        """Return what the section says for the DB, and not for its storage."""
        config = self.config
        options = {name: getattr(config, name) for name in _DB_OPTIONS}
        options["xrefs"] = config.allow_implicit_cross_references
        options["database_name"] = config.database_name or self.name or ""
        return {name: value for name, value in options.items() if value is not None}
