"""The client library: DB, Connection, ClientStorage and what they stand on, and the errors to be ready for."""

from zeo_client.blob import Blob
from zeo_client.config import database_from_file, database_from_string, database_from_url
from zeo_client.connection import Connection
from zeo_client.db import DB
from zeo_client.opening import open  # noqa: A004 - zeo_client.open is what it is called
from zeo_client.storage import ClientStorage
from zeo_core.errors import (
    BlobError,
    ClientDisconnected,
    CommitInDoubtError,
    ConflictError,
    NotCommittedError,
    POSKeyError,
    ReadConflictError,
    ReadOnlyError,
    UndoError,
    Unsupported,
    ZeodError,
)

__all__ = [
    "DB",
    "Blob",
    "BlobError",
    "ClientDisconnected",
    "ClientStorage",
    "CommitInDoubtError",
    "ConflictError",
    "Connection",
    "NotCommittedError",
    "POSKeyError",
    "ReadConflictError",
    "ReadOnlyError",
    "UndoError",
    "Unsupported",
    "ZeodError",
    "database_from_file",
    "database_from_string",
    "database_from_url",
    "open",
]
