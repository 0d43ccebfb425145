"""The client library: DB, Connection, ClientStorage and what they stand on."""

from zeo_client.connection import Connection
from zeo_client.db import DB
from zeo_client.opening import open  # noqa: A004 - zeo_client.open is what it is called
from zeo_client.storage import ClientStorage

__all__ = ["DB", "ClientStorage", "Connection", "open"]
