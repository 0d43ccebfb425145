"""Databases and storages from configuration files: ZConfig's format, with the sections and keys of ZODB's and ZEO's.

    <zodb main>
      cache-size 20000
      <zeoclient>
        server db.example.org:9672
      </zeoclient>
    </zodb>

The functions have the names of ZODB.config's. An application with a schema of its own imports the sections into it with
`<import package="zeo_client"/>` where it says `<import package="ZODB"/>`; component.xml describes them.
"""

import os
from collections.abc import Iterable
from io import StringIO
from typing import IO, Any

import ZConfig
from ZConfig.loader import ConfigLoader

from zeo_client.db import DB
from zeo_core.errors import ConfigurationError
from zeo_core.storage import Transacts

__all__ = [
    "databaseFromConfig",
    "databaseFromFile",
    "databaseFromString",
    "databaseFromURL",
    "database_from_file",
    "database_from_string",
    "database_from_url",
    "getDbSchema",
    "getStorageSchema",
    "sections_from_url",
    "storageFromFile",
    "storageFromString",
    "storageFromURL",
]

_DATABASES = '<multisection type="ZODB.database" name="*" attribute="database" required="yes"/>'
_STORAGE = '<section type="ZODB.storage" name="*" attribute="storage" required="yes"/>'
_ANY = (
    '<multisection type="ZODB.database" name="*" attribute="databases"/>'
    '<multisection type="ZODB.storage" name="*" attribute="storages"/>'
)


class _Loader(ConfigLoader):
    """Loads files that were written for ZODB: the sections that they import are there already."""

    def importSchemaComponent(self, pkgname: str) -> None:  # noqa: N802 - ZConfig's name
        """Import the sections of a package."""
        if pkgname not in ("ZEO", "ZODB", "zeo_client"):
            super().importSchemaComponent(pkgname)


def getDbSchema() -> Any:  # noqa: N802 - ZODB.config's name, as those below
    """Return the ZConfig schema of a file with one or more <zodb> sections."""
    return _schema(_DATABASES)


def getStorageSchema() -> Any:  # noqa: N802
    """Return the ZConfig schema of a file with one storage section."""
    return _schema(_STORAGE)


def databaseFromString(s: str) -> DB:  # noqa: N802
    """Return the database that the first <zodb> section of `s` says; all its sections' are in its `databases`.

    ConfigurationError if it cannot be understood, and what opening its storages raises.
    """
    return databaseFromFile(StringIO(s))


def databaseFromFile(f: IO[str]) -> DB:  # noqa: N802
    """Return the database that an open file says; see databaseFromString."""
    return databaseFromConfig(_load_file(getDbSchema(), f).database)


def databaseFromURL(url: str | os.PathLike[str]) -> DB:  # noqa: N802
    """Return the database that the file of this name or URL says; see databaseFromString."""
    return databaseFromConfig(_load_url(getDbSchema(), url).database)


def databaseFromConfig(database_factories: Iterable[Any]) -> DB:  # noqa: N802
    """Open the databases of loaded sections, which know each other, and return the first; all of them or none."""
    databases: dict[str, Any] = {}
    opened: list[DB] = []
    try:
        for factory in database_factories:
            opened.append(factory.open(databases))  # noqa: PERF401 - those that were opened are closed on an error
    except BaseException:
        for db in opened:
            db.close()
        raise
    return opened[0]


def storageFromString(s: str) -> Transacts:  # noqa: N802
    """Return the storage that the section in `s` says; errors as for databaseFromString."""
    return storageFromFile(StringIO(s))


def storageFromFile(f: IO[str]) -> Transacts:  # noqa: N802
    """Return the storage that an open file says."""
    storage: Transacts = _load_file(getStorageSchema(), f).storage.open()
    return storage


def storageFromURL(url: str | os.PathLike[str]) -> Transacts:  # noqa: N802
    """Return the storage that the file of this name or URL says."""
    storage: Transacts = _load_url(getStorageSchema(), url).storage.open()
    return storage


def sections_from_url(url: str | os.PathLike[str]) -> list[Any]:
    """Return the sections of a file with databases, storages or both, not yet opened."""
    config = _load_url(_schema(_ANY), url)
    return [*config.databases, *config.storages]


database_from_string = databaseFromString
database_from_file = databaseFromFile
database_from_url = databaseFromURL


def _schema(content: str) -> Any:
    return ZConfig.loadSchemaFile(StringIO(f'<schema><import package="zeo_client"/>{content}</schema>'))


def _load_file(schema: Any, file: IO[str]) -> Any:
    try:
        config, _handlers = _Loader(schema).loadFile(file)
    except ZConfig.ConfigurationError as error:
        raise ConfigurationError(_one_line(getattr(file, "name", "configuration"), error)) from error
    return config


def _load_url(schema: Any, url: str | os.PathLike[str]) -> Any:
    try:
        config, _handlers = _Loader(schema).loadURL(os.fspath(url))
    except ZConfig.ConfigurationError as error:
        raise ConfigurationError(_one_line(os.fspath(url), error)) from error
    return config


def _one_line(path: str, error: ZConfig.ConfigurationError) -> str:
    """Return ZConfig's error as `file, line 3: what is wrong`; the file may be one that `path` includes."""
    where = (error.url or path).removeprefix("file://")
    line = getattr(error, "lineno", None)
    message = " ".join(str(error.message).split()).removesuffix(".")
    return f"{where}, line {line}: {message}" if line and line > 0 else f"{where}: {message}"
