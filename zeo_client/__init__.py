"""The client library: DB, Connection, ClientStorage and what they stand on, and the errors to be ready for."""

from zeo_client.connection import Connection
from zeo_client.db import DB
from zeo_client.opening import open  # noqa: A004 - zeo_client.open is what it is called
from zeo_client.storage import ClientStorage
from zeo_core.errors import (
    ClientDisconnected,
    CommitInDoubtError,
    ConflictError,
    POSKeyError,
    ReadConflictError,
    ReadOnlyError,
)

__all__ = [
    "DB",
    "ClientDisconnected",
    "ClientStorage",
    "CommitInDoubtError",
    "ConflictError",
    "Connection",
    "POSKeyError",
    "ReadConflictError",
    "ReadOnlyError",
    "open",
]
