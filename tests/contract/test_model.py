"""FileStorage, MappingStorage and DemoStorage, step by step, against a model of what a storage is.

The storages give different tids, so the model counts transactions, and each storage has its list of tids.
"""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.contract.storages import Txn, commit
from zeo_core.errors import ConflictError, MultipleUndoErrors, POSKeyError, ReadConflictError
from zeo_core.ids import ZERO_TID, Oid, Tid, pack_id, successor, unpack_id
from zeo_core.transaction import Revision
from zeo_server.storages.demo import DemoStorage
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

Storage = FileStorage | MappingStorage | DemoStorage
OIDS = [pack_id(number) for number in (0, 1, 2, 0xFFFF, 0x10000, 0x10001)]
oids = st.sampled_from(OIDS)
contents = st.dictionaries(oids, st.binary(min_size=1, max_size=12), max_size=4)
numbers = st.integers(0, 2**16)


class StorageModel(RuleBasedStateMachine):
    """A list of committed dictionaries, and the storages that must agree with it."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.file = FileStorage(self.directory / "Data.fs")
        self.mapping = MappingStorage()
        self.demo = DemoStorage()
        self.committed: list[dict[Oid, bytes | None]] = []
        self.tids: dict[str, list[Tid]] = {"file": [], "mapping": [], "demo": []}

    @property
    def storages(self) -> list[tuple[Storage, list[Tid]]]:
        return [(self.file, self.tids["file"]), (self.mapping, self.tids["mapping"]), (self.demo, self.tids["demo"])]

    def history(self, oid: Oid) -> list[int]:
        """Return the numbers of the transactions that wrote `oid`."""
        return [number for number, data in enumerate(self.committed) if oid in data]

    def serial(self, oid: Oid, tids: list[Tid]) -> Tid:
        history = self.history(oid)
        return tids[history[-1]] if history else ZERO_TID

    @initialize()
    def begin_with_a_root(self) -> None:
        self.commit({OIDS[0]: b"root"}, "")

    @rule(data=contents, user=st.text(max_size=3))
    def commit(self, data: dict[Oid, bytes], user: str) -> None:
        for storage, tids in self.storages:
            serials = {oid: self.serial(oid, tids) for oid in data}
            tids.append(commit(storage, data, serials, txn=Txn(user)))
        self.committed.append(dict(data))

    def data_before(self, oid: Oid, number: int) -> bytes | None:
        """Return the object's data before a transaction, None if it did not exist."""
        return next((data[oid] for data in reversed(self.committed[:number]) if oid in data), None)

    def finish(self, storage: Storage, txn: Txn) -> Tid:
        assert not storage.tpc_vote(txn)
        return storage.tpc_finish(txn)

    @rule(number=numbers)
    def undo(self, number: int) -> None:
        number = -1 - number % min(len(self.committed), 4)
        undone = self.committed[number]
        number += len(self.committed)
        possible = all(self.data_before(oid, len(self.committed)) == data for oid, data in undone.items())
        for storage, tids in self.storages:
            txn = Txn()
            storage.tpc_begin(txn)
            if possible:
                _, oids = storage.undo(tids[number], txn)
                assert set(oids) == set(undone)
                tids.append(self.finish(storage, txn))
            else:
                with pytest.raises(MultipleUndoErrors):
                    storage.undo(tids[number], txn)
                storage.tpc_abort(txn)
        if possible:
            self.committed.append({oid: self.data_before(oid, number) for oid in undone})

    @rule(oid=oids)
    def delete(self, oid: Oid) -> None:
        if not self.history(oid):
            return
        for storage, tids in self.storages:
            txn = Txn()
            storage.tpc_begin(txn)
            storage.deleteObject(oid, self.serial(oid, tids), txn)
            tids.append(self.finish(storage, txn))
        self.committed.append({oid: None})

    @rule(data=contents, hint=numbers, back=st.booleans())
    def restore(self, data: dict[Oid, bytes], hint: int, back: bool) -> None:
        hint %= len(self.committed)
        known = {oid: old for oid, old in self.committed[hint].items() if back}
        for storage, tids in self.storages:
            tid = pack_id(unpack_id(tids[-1]) + 100)  # not the next: a border of the demo's may come between
            txn = Txn()
            storage.tpc_begin(txn, tid)
            for oid, record in {**data, **known}.items():
                storage.restore(oid, tid, record, "", tids[hint], txn)
            assert self.finish(storage, txn) == tid
            tids.append(tid)
        self.committed.append({**data, **known})

    @rule(data=contents, oid=oids, back=st.integers(2, 4))
    def conflict(self, data: dict[Oid, bytes], oid: Oid, back: int) -> None:
        history = self.history(oid)
        for storage, tids in self.storages:
            old = tids[history[-back]] if len(history) >= back else b"\1" * 8
            serials = {other: self.serial(other, tids) for other in data}
            with pytest.raises(ConflictError) as caught:
                commit(storage, {**data, oid: b"lost"}, {**serials, oid: old})
            assert caught.value.serials == (self.serial(oid, tids), old)
            with pytest.raises(ReadConflictError):
                commit(storage, {}, current=[(oid, old)])

    @rule(data=contents, voted=st.booleans())
    def abort(self, data: dict[Oid, bytes], voted: bool) -> None:
        for storage, tids in self.storages:
            txn = Txn()
            storage.tpc_begin(txn)
            for oid, record in data.items():
                storage.store(oid, self.serial(oid, tids), record, "", txn)
            if voted:
                storage.tpc_vote(txn)
            storage.tpc_abort(txn)

    @rule(oid=oids, number=numbers, after=st.booleans())
    def load(self, oid: Oid, number: int, after: bool) -> None:
        number %= len(self.committed)
        history = self.history(oid)
        for storage, tids in self.storages:
            before = successor(tids[number]) if after else tids[number]
            seen = [index for index, other in enumerate(history) if tids[other] < before]
            if not history:
                with pytest.raises(POSKeyError):
                    storage.load_before(oid, before)
            elif not seen:
                assert storage.load_before(oid, before) is None
            else:
                at = seen[-1]
                tid, data = tids[history[at]], self.committed[history[at]][oid]
                if data is None:
                    for call in (storage.load_before, storage.load_serial):
                        with pytest.raises(POSKeyError):
                            call(oid, before if call == storage.load_before else tid)
                    continue
                end = tids[history[at + 1]] if at + 1 < len(history) else None
                assert storage.load_before(oid, before) == Revision(data, tid, end)
                assert storage.load_serial(oid, tid) == data

    @rule(first=numbers, last=numbers)
    def walk(self, first: int, last: int) -> None:
        first, last = first % len(self.committed), last % len(self.committed)
        for storage, tids in self.storages:
            walked = [
                (t.tid, {record.oid: record.data for record in t.records})
                for t in storage.transactions(tids[first], tids[last])
            ]
            assert walked == list(zip(tids, self.committed, strict=True))[first : last + 1]

    @rule(how=st.sampled_from(["saved index", "no index", "old index", "torn tail"]))
    def reopen(self, how: str) -> None:
        index, path = self.directory / "Data.fs.index", self.directory / "Data.fs"
        old = index.read_bytes() if index.exists() else b""
        self.file.close()
        if how == "no index":
            index.unlink(missing_ok=True)
        elif how == "old index" and old:
            index.write_bytes(old)
        elif how == "torn tail":
            with open(path, "ab") as file:
                file.write(successor(self.tids["file"][-1]) + bytes(20))
        self.file = FileStorage(path)

    @rule()
    def push(self) -> None:
        self.demo = self.demo.push()

    @invariant()
    def the_ends_agree(self) -> None:
        for storage, tids in self.storages:
            assert storage.last_tid() == (tids[-1] if tids else ZERO_TID)
            assert len(storage) == len({oid for data in self.committed for oid in data})

    def teardown(self) -> None:
        self.file.close()
        shutil.rmtree(self.directory)


TestStorageModel = StorageModel.TestCase
TestStorageModel.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
