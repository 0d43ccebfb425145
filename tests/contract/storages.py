"""The storages that keep the contract, and the few steps that every test of a storage takes.

A storage joins the suite by one entry in KINDS.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.contract.served import RELAYED, SERVED
from zeo_core.ids import ZERO_TID, Oid, Tid
from zeo_core.transaction import UndoEntry
from zeo_core.zodb import ZODBLog, ZODBStorage
from zeo_server.storages.demo import DemoStorage
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage


@dataclass(frozen=True)
class Kind:
    """One kind of storage: `open` gives the one that lives in a directory, which may have been used before."""

    name: str
    open: Callable[[Path], AbstractContextManager[ZODBStorage]]
    iterates: bool  # it offers `transactions`
    keeps: bool  # what was committed is there when the directory is opened again
    undoes: bool = False  # it takes back transactions
    groups: bool = True  # it is in this process, so that a test can write groups of transactions itself
    packs: bool = False  # it drops old revisions
    slow: bool = False  # it takes a while to start


@contextmanager
def _mapping_storage(_directory: Path) -> Iterator[ZODBStorage]:
    with closing(MappingStorage()) as storage:
        yield storage


@contextmanager
def _file_storage(directory: Path) -> Iterator[ZODBStorage]:
    with closing(FileStorage(directory / "Data.fs")) as storage:
        yield storage


@contextmanager
def _demo_storage(_directory: Path) -> Iterator[ZODBStorage]:
    with closing(DemoStorage()) as storage:
        yield storage


@contextmanager
def _demo_storage_on_files(directory: Path) -> Iterator[ZODBStorage]:
    base, changes = FileStorage(directory / "Data.fs"), FileStorage(directory / "changes.fs")
    with closing(DemoStorage(base=base, changes=changes)) as storage:
        yield storage


KINDS = [
    Kind("mapping", _mapping_storage, iterates=True, keeps=False, undoes=True, packs=True),
    Kind("file", _file_storage, iterates=True, keeps=True, undoes=True, packs=True),
    Kind("demo", _demo_storage, iterates=True, keeps=False, packs=True),
    Kind("demo on files", _demo_storage_on_files, iterates=True, keeps=True, packs=True),
    Kind("client", SERVED.open, iterates=True, keeps=True, undoes=True, groups=False),
    Kind("relayed", RELAYED.open, iterates=True, keeps=True, undoes=True, groups=False, slow=True),
]


class Undoing(ZODBLog):
    """What the tests of undoing ask of a storage, in this process or on a server."""

    @abstractmethod
    def undo(self, transaction_id: bytes, transaction: Any) -> Any: ...

    @abstractmethod
    def undo_log(self) -> Iterator[UndoEntry]: ...

    @abstractmethod
    def undoLog(self, first: int = 0, last: int = -20, filter: Any = None) -> list[dict[str, Any]]: ...  # noqa: A002, N802

    @abstractmethod
    def undoInfo(self, first: int = 0, last: int = -20, specification: Any = None) -> list[dict[str, Any]]: ...  # noqa: N802

    @abstractmethod
    def deleteObject(self, oid: Oid, serial: Tid, transaction: Any) -> None: ...  # noqa: N802

    @abstractmethod
    def record_iternext(self, next: Oid | None = None) -> tuple[Oid, Tid, bytes, Oid | None]: ...  # noqa: A002


@dataclass(eq=False)
class Txn:
    """A transaction as storages see it."""

    user: str | bytes = ""
    description: str | bytes = ""
    extension: Any = field(default_factory=dict)


def commit(
    storage: ZODBStorage,
    data: dict[Oid, bytes],
    serials: dict[Oid, Tid] | None = None,
    *,
    txn: Txn | None = None,
    current: Iterable[tuple[Oid, Tid]] = (),
    announce: Callable[[Tid], None] | None = None,
) -> Tid:
    """Commit objects, each made from its current revision unless `serials` says otherwise; abort if that fails."""
    txn = txn or Txn()
    storage.tpc_begin(txn)
    try:
        for oid, record in data.items():
            serial = serials[oid] if serials and oid in serials else current_serial(storage, oid)
            storage.store(oid, serial, record, "", txn)
        for oid, serial in current:
            storage.check_current(oid, serial, txn)
        assert not storage.tpc_vote(txn)
        return storage.tpc_finish(txn, announce)
    except BaseException:
        storage.tpc_abort(txn)
        raise


def current_serial(storage: ZODBStorage, oid: Oid) -> Tid:
    """Return the serial to store with: the current one, or that of a new object."""
    try:
        return storage.load(oid)[1]
    except KeyError:
        return ZERO_TID
