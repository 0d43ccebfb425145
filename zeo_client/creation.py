"""The creation of a database: what an empty storage needs to be one."""

from typing import TYPE_CHECKING, Final

from persistent.mapping import PersistentMapping

from zeo_client.connection import Connection
from zeo_core.errors import POSKeyError, ReadOnlyError
from zeo_core.ids import ROOT_OID

if TYPE_CHECKING:
    from zeo_client.db import DB

__all__ = ["ensure_root"]

_ATTEMPTS: Final = 5  # several programs may meet in an empty database; all but the first find the root made


def ensure_root(db: "DB") -> None:
    """Make the root object if there is none; ReadOnlyError if that is not possible."""

    def make(connection: Connection) -> None:
        if _has_root(connection):
            return
        if db.storage.read_only():
            raise ReadOnlyError(f"{db.storage.name()} is empty and read-only: there is no root object to open")
        root = PersistentMapping()
        connection.adopt(root, ROOT_OID)
        connection.register(root)

    db.run(make, _ATTEMPTS, note="initial database creation")


def _has_root(connection: Connection) -> bool:
    try:
        connection.get(ROOT_OID)
    except POSKeyError:
        return False
    return True
