"""Our objects in ZODB's words, for ZODB's own tests: what they call differently than our users do, and nothing more."""

import tempfile
from typing import Any

from persistent import PickleCache

import zeo_client
from zeo_client import broken, config
from zeo_client.connection import Connection, resetCaches
from zeo_client.serialize import ObjectReader, ObjectWriter
from zeo_core.ids import Oid, Tid
from zeo_core.record import class_name
from zeo_server.storages.demo import DemoStorage
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

__all__ = ["OURS"]


class RecordingStorage(MappingStorage):
    """Remembers what was stored and what was committed, as the stub in ZODB's testConnection does."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: list[Oid] = []
        self.finished: list[Oid] = []

    def store(self, oid: Oid, serial: Tid | None, data: bytes, version: str, transaction: Any) -> None:
        super().store(oid, serial, data, version, transaction)
        self.stored.append(oid)

    def tpc_finish(self, transaction: Any, announce: Any = None) -> Tid:
        tid = super().tpc_finish(transaction, announce)
        self.finished = list(self.stored)
        return tid


def recording_database() -> zeo_client.DB:
    """Return a database whose storage has recorded nothing yet."""
    storage = RecordingStorage()
    db = zeo_client.DB(storage)
    storage.stored.clear()
    storage.finished.clear()
    return db


class Reader:
    """ZODB's ObjectReader, made without a connection."""

    def __init__(self, conn: Any = None, cache: Any = None, factory: Any = None) -> None:
        self._reader = ObjectReader(conn, cache or PickleCache(self), lambda module, name: factory(conn, module, name))

    def getClassName(self, record: bytes) -> str:  # noqa: N802 - ZODB's name
        return class_name(record)

    def getGhost(self, record: bytes) -> Any:  # noqa: N802 - ZODB's name
        return self._reader.ghost(b"\0" * 7 + b"\1", record)

    def setGhostState(self, obj: Any, record: bytes) -> None:  # noqa: N802 - ZODB's name
        self._reader.set_state(obj, record)


def writer(obj: Any = None) -> ObjectWriter:
    """Return a writer for the connection of `obj`, for none without one."""
    jar: Any = getattr(obj, "_p_jar", None)
    return ObjectWriter(jar)


def memory_database(name: Any = None, **options: Any) -> zeo_client.DB:
    """Make a database in memory, as ZODB.MappingStorage.DB does."""
    return zeo_client.DB(MappingStorage(), **options)


def blob_storage(blob_dir: str, base: Any, layout: str = "automatic") -> FileStorage:
    """Return what ZODB has as a storage with blobs around another: a FileStorage that has both, empty as `base` is."""
    path = base.name() if isinstance(base, FileStorage) else tempfile.mktemp(".fs")
    base.close()
    return FileStorage(path, blob_dir=blob_dir)


def connection(*args: Any, **options: Any) -> Connection:
    """Open a database for one connection, as ZODB.connection does: it is closed with it."""
    db = zeo_client.DB(*args, **options)
    opened = db.open()
    opened.onCloseCallback(db.close)
    return opened


OURS: dict[str, dict[str, Any]] = {
    "": {"DB": zeo_client.DB, "connection": connection},
    "config": {name: getattr(config, name) for name in config.__all__},
    "DB": {"DB": zeo_client.DB, "recording_database": recording_database},
    "Connection": {"Connection": Connection, "resetCaches": resetCaches},
    "DemoStorage": {"DemoStorage": DemoStorage},
    "FileStorage": {"FileStorage": FileStorage},
    "MappingStorage": {"DB": memory_database, "MappingStorage": MappingStorage},
    "blob": {"Blob": zeo_client.Blob, "BlobStorage": blob_storage},
    "broken": {name: getattr(broken, name) for name in broken.__all__},
    "serialize": {"ObjectReader": Reader, "ObjectWriter": writer},
}
"""A module of ZODB -> the names in it that are ours."""
