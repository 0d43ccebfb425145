"""Persistent classes and a few steps for the tests of the object layer."""

from collections.abc import Callable, Mapping
from typing import Any, Self

import transaction
from persistent import Persistent

from zeo_client.commit import StorageTransaction
from zeo_client.db import DB
from zeo_core.ids import Oid, Tid
from zeo_core.storage import Transacts


class Node(Persistent):
    """Any attributes."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class WithNewArgs(Persistent):
    """Made with an argument that is no part of the state."""

    __slots__ = ("__dict__", "_p_key")  # a name that outlives the state, which replaces all other attributes

    def __new__(cls, key: str) -> Self:
        self: Self = super().__new__(cls)
        self._p_key = key
        return self

    def __init__(self, key: str) -> None:
        self.note = key * 2

    def __getnewargs__(self) -> tuple[str]:
        return (self._p_key,)


class Slotted(Persistent):
    """State in slots."""

    __slots__ = ("left", "right")

    def __init__(self, left: Any, right: Any) -> None:
        self.left, self.right = left, right


class Plain:
    """Not persistent: part of the record of who refers to it."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


class Session:
    """A user of a database with a transaction manager of its own."""

    def __init__(self, db: DB, *, explicit: bool = False) -> None:
        self.manager = transaction.TransactionManager(explicit=explicit)
        self.conn = db.open(self.manager)

    @property
    def root(self) -> Any:
        return self.conn.root()

    def commit(self) -> None:
        self.manager.commit()


def state_of(obj: Any) -> str:
    """Say in words what `_p_changed` says."""
    return {None: "ghost", False: "clean", True: "changed"}[obj._p_changed]


def write(storage: Transacts, records: Mapping[Oid, bytes], announce: Callable[[Tid], None] | None = None) -> Tid:
    """Commit records straight to a storage, each over its current revision."""
    transaction = StorageTransaction("", "", {})
    storage.tpc_begin(transaction)
    for oid, data in records.items():
        serial = storage.current_tid(oid) or bytes(8)  # type: ignore[attr-defined]
        storage.store(oid, serial, data, "", transaction)
    storage.tpc_vote(transaction)
    return storage.tpc_finish(transaction, announce)
