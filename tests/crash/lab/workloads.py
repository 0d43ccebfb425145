"""What is done under the eyes of the laboratory, and what has to hold of whatever a power cut leaves of it.

A workload prepares a directory; then it works in it, and marks what it has been promised. `check` opens what is left
and raises an AssertionError, or whatever error the opening raises, if a promise is broken. It may change the directory.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

from ZODB.FileStorage import FileStorage as ZODBFileStorage

from tests.crash.blob_committer import commit as commit_blobs
from tests.crash.blob_committer import oid_of
from tests.crash.blob_committer import open_storage as open_blob_storage
from tests.server.storages.file.graphs import node, state
from zeo_core.errors import StorageError
from zeo_core.ids import ZERO_TID, Oid, Tid, pack_id
from zeo_core.transaction import ObjectWrite, PreparedTransaction, TransactionMetadata
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file.backup import Backup, Repository, Restore, verify

__all__ = ["WORKLOADS", "Backups", "Blobs", "Commits", "Pack", "Workload"]

Mark = Callable[[str], None]

_BLOBS = 3

_PACKED_EVERY = 25
"""A pack of what is left takes a process, and a second: not every crash has one."""

OIDS = [pack_id(number) for number in range(8)]


class Workload(Protocol):
    """One way to use the storages. `told_by` are the errors that tell of a disk that fails."""

    told_by: tuple[type[Exception], ...]

    def prepare(self, directory: Path) -> None:
        """Make what is there before."""

    def work(self, directory: Path, mark: Mark) -> None:
        """Do it."""

    def check(self, directory: Path, marks: Sequence[str]) -> None:
        """Assert that what was promised by these marks is there, and nothing that was never written."""


def _commit(storage: FileStorage, *transactions: dict[int, bytes | None]) -> list[Tid]:
    group = storage.write_group([_prepared(objects) for objects in transactions])
    storage.publish(group)
    return list(group.tids)


def _prepared(objects: dict[int, bytes | None]) -> PreparedTransaction:
    writes = tuple(ObjectWrite(pack_id(number), ZERO_TID, data) for number, data in objects.items())
    return PreparedTransaction(TransactionMetadata(b"user", b"what", b""), writes)


def _number(mark: str) -> int:
    return int(mark.rpartition(" ")[2])


class Commits:
    """Transactions small and large, in groups, expected in vain, with pages of zeros; then the end, with its index."""

    told_by: tuple[type[Exception], ...] = (StorageError,)

    def __init__(self) -> None:
        self._expected: list[dict[Oid, bytes]] = []
        """The state after each transaction, from that before the work on."""

    def prepare(self, directory: Path) -> None:
        with closing(FileStorage(directory / "Data.fs")) as storage:
            _commit(storage, {number: node(text=f"old {number}") for number in range(5)})
            self._expected = [state(storage, OIDS)]

    def work(self, directory: Path, mark: Mark) -> None:
        with closing(FileStorage(directory / "Data.fs")) as storage:
            groups: list[list[dict[int, bytes | None]]] = [
                [{0: node(text="first")}],
                [{1: node(text="x" * 3000)}, {2: node(text="second"), 3: node(text="y" * 700)}],
                [{4: None}],
                [{5: node(text="\0" * 5000), 0: node(text="z")}, {5: node(text="again")}, {6: node(0, 1)}],
                [{7: node(text="last")}],
            ]
            for number, group in enumerate(groups):
                if number == 2:
                    storage.anticipate(_prepared({1: node(text="expected in vain " * 40)}))
                self._foresee(group)
                mark(f"begun {len(self._expected) - 1}")
                _commit(storage, *group)
                mark(f"committed {len(self._expected) - 1}")
            last = _prepared({0: node(text="expected rightly")})
            storage.anticipate(last)
            self._foresee([{0: node(text="expected rightly")}])
            mark(f"begun {len(self._expected) - 1}")
            storage.publish(storage.write_group([last]))
            mark(f"committed {len(self._expected) - 1}")

    def _foresee(self, group: list[dict[int, bytes | None]]) -> None:
        for objects in group:
            after = dict(self._expected[-1])
            for number, data in objects.items():
                if data is None:
                    after.pop(pack_id(number), None)
                else:
                    after[pack_id(number)] = data
            self._expected.append(after)

    def check(self, directory: Path, marks: Sequence[str]) -> None:
        promised = max((_number(mark) for mark in marks if mark.startswith("committed")), default=0)
        possible = max((_number(mark) for mark in marks if mark.startswith("begun")), default=0)
        path = directory / "Data.fs"
        with closing(FileStorage(path)) as storage:
            found = state(storage, OIDS)
            assert found in self._expected[promised : possible + 1], "no state that there was, or a promise is broken"
            count = sum(1 for _ in storage.transactions())
            assert 1 + promised <= count <= 1 + possible
            [tid] = _commit(storage, {7: node(text="after the power came back")})
            after = state(storage, OIDS)
        with closing(FileStorage(path)) as storage:
            assert state(storage, OIDS) == after
            assert storage.last_tid() == tid
        with closing(ZODBFileStorage(str(path), read_only=True)) as zodb:
            assert zodb.lastTransaction() == tid
            for oid, data in after.items():
                assert zodb.load(oid)[0] == data


class Pack:
    """A pack with garbage, and commits before and after it."""

    told_by: tuple[type[Exception], ...] = (StorageError,)

    def __init__(self) -> None:
        self._expected: list[dict[Oid, bytes]] = []
        self._checks = 0

    def prepare(self, directory: Path) -> None:
        with closing(FileStorage(directory / "Data.fs")) as storage:
            _commit(storage, {0: node(1, 2, text="root"), 1: node(text="one"), 2: node(text="two"), 6: node(7)})
            for turn in range(6):
                _commit(storage, {1 + turn % 2: node(text=f"turn {turn} " * 30)})
            self._expected = [state(storage, OIDS[:4])]

    def work(self, directory: Path, mark: Mark) -> None:
        with closing(FileStorage(directory / "Data.fs")) as storage:
            for turn in range(2):
                for _ in storage.pack_steps(time.time()):
                    pass
                self._expected.append(self._expected[-1] | {OIDS[1]: node(text=f"after pack {turn}")})
                mark(f"begun {len(self._expected) - 1}")
                _commit(storage, {1: node(text=f"after pack {turn}")})
                mark(f"committed {len(self._expected) - 1}")

    def check(self, directory: Path, marks: Sequence[str]) -> None:
        promised = max((_number(mark) for mark in marks if mark.startswith("committed")), default=0)
        possible = max((_number(mark) for mark in marks if mark.startswith("begun")), default=0)
        path = directory / "Data.fs"
        with closing(FileStorage(path)) as storage:
            found = state(storage, OIDS[:4])
            assert found in self._expected[promised : possible + 1]
            [tid] = _commit(storage, {3: node(text="after the power came back")})
            if self._checks % _PACKED_EVERY == 0:
                for _ in storage.pack_steps(time.time(), gc=False):
                    pass
            self._checks += 1
            after = state(storage, OIDS[:4])
            assert after == found | {OIDS[3]: node(text="after the power came back")}
            assert storage.last_tid() == tid
        with closing(FileStorage(path)) as storage:
            assert state(storage, OIDS[:4]) == after


class Blobs:
    """Blobs that are committed, again and again under the same oids."""

    told_by: tuple[type[Exception], ...] = (StorageError, OSError)  # the files that are to be blobs are its own

    def prepare(self, directory: Path) -> None:
        with closing(open_blob_storage(str(directory))) as storage:
            commit_blobs(storage, 1, _BLOBS)

    def work(self, directory: Path, mark: Mark) -> None:
        mark("committed 1")
        with closing(open_blob_storage(str(directory))) as storage:
            for turn in (2, 3):
                mark(f"begun {turn}")
                commit_blobs(storage, turn, _BLOBS)
                mark(f"committed {turn}")

    def check(self, directory: Path, marks: Sequence[str]) -> None:
        promised = max((_number(mark) for mark in marks if mark.startswith("committed")), default=1)
        possible = max((_number(mark) for mark in marks if mark.startswith("begun")), default=1)
        with closing(open_blob_storage(str(directory))) as storage:
            turns = [self._check_transaction(storage, each) for each in storage.transactions()]
            assert turns in [list(range(1, last + 1)) for last in range(promised, possible + 1)]
            commit_blobs(storage, turns[-1] + 1, _BLOBS)
        with closing(open_blob_storage(str(directory))) as storage:
            assert [self._check_transaction(storage, each) for each in storage.transactions()][-1] == turns[-1] + 1

    @staticmethod
    def _check_transaction(storage: FileStorage, transaction: object) -> int:
        turn = int(transaction.metadata.description)  # type: ignore[attr-defined]
        oids = [record.oid for record in transaction.records]  # type: ignore[attr-defined]
        assert oids == [oid_of(number) for number in range(_BLOBS)]
        for record in transaction.records:  # type: ignore[attr-defined]
            content = Path(storage.loadBlob(record.oid, record.tid)).read_bytes()  # type: ignore[attr-defined]
            assert content == b"%d " % turn + b"x" * (turn * 997 % 60_000)
        return turn


class Backups:
    """A full backup, an incremental one, and one more in full after a pack."""

    told_by: tuple[type[Exception], ...] = (StorageError,)

    def __init__(self) -> None:
        self._contents: list[bytes] = []
        """Of the file at each backup."""

    def prepare(self, directory: Path) -> None:
        with closing(FileStorage(directory / "Data.fs")) as storage:
            _commit(storage, {number: node(text=f"old {number}") for number in range(5)})

    def work(self, directory: Path, mark: Mark) -> None:
        path, repository = directory / "Data.fs", directory / "repository"
        self._contents = []
        for turn in range(3):
            with closing(FileStorage(path)) as storage:
                _commit(storage, {turn: node(text=f"turn {turn} " * 60)})
            self._contents.append(path.read_bytes())
            mark(f"begun {turn}")
            for _ in Backup(str(path), str(repository), full=turn == 2).steps():
                pass
            mark(f"backed up {turn}")

    def check(self, directory: Path, marks: Sequence[str]) -> None:
        promised = max((_number(mark) for mark in marks if mark.startswith("backed up")), default=-1)
        possible = max((_number(mark) for mark in marks if mark.startswith("begun")), default=-1)
        repository, target = str(directory / "repository"), directory / "restored.fs"
        if promised >= 0 or (os.path.isdir(repository) and Repository(repository).parts):
            for _ in verify(repository):
                pass
            for _ in Restore(repository, str(target)).steps():
                pass
            assert target.read_bytes() in self._contents[max(promised, 0) : possible + 1]
        for _ in Backup(str(directory / "Data.fs"), repository).steps():
            pass
        target.unlink(missing_ok=True)
        for _ in Restore(repository, str(target)).steps():
            pass
        with closing(FileStorage(target)) as restored, closing(FileStorage(directory / "Data.fs")) as origin:
            assert state(restored, OIDS) == state(origin, OIDS)


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "commits": Commits,
    "pack": Pack,
    "blobs": Blobs,
    "backups": Backups,
}
