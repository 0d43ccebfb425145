"""FileStorage, MappingStorage and DemoStorage, step by step, against a model of what a storage is.

The storages give different tids, so the model counts transactions, and each storage has its list of tids. And each has
its account of what packs have left (packs.py), since a DemoStorage packs its changes only and collects no garbage.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.contract.packs import Committed, Left
from tests.contract.storages import Txn, commit
from tests.server.storages.file.graphs import record
from zeo_core.errors import ConflictError, MultipleUndoErrors, POSKeyError, ReadConflictError, StorageError, UndoError
from zeo_core.ids import ZERO_TID, Oid, Tid, pack_id, successor, tid_from_time, tid_to_time, unpack_id
from zeo_core.storage import Progress
from zeo_core.transaction import Revision
from zeo_server.storages.demo import DemoStorage
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

Storage = FileStorage | MappingStorage | DemoStorage
Drawn = dict[Oid, tuple[list[Oid], str]]
OIDS = [pack_id(number) for number in (0, 1, 2, 0xFFFF, 0x10000, 0x10001)]
MAX_PACKS = 3  # in one run of the model: each starts a process
oids = st.sampled_from(OIDS)
contents = st.dictionaries(oids, st.tuples(st.lists(oids, max_size=2), st.text("ab", max_size=3)), max_size=4)
numbers = st.integers(0, 2**16)


@dataclass
class Player:
    """A storage that plays, the tids it gave, and what must be left in it."""

    storage: Storage
    left: Left
    tids: list[Tid] = field(default_factory=list)
    border: int = 0
    """The first transaction that is not the base's; of a storage that is no DemoStorage the first of all."""

    def serial(self, oid: Oid) -> Tid:
        history = self.left.history(oid)
        return self.tids[history[-1]] if history else ZERO_TID


class StorageModel(RuleBasedStateMachine):
    """A list of committed dictionaries, and the storages that must agree with it."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.committed: Committed = []
        self.file = Player(FileStorage(self.directory / "Data.fs"), Left(self.committed))
        self.mapping = Player(MappingStorage(), Left(self.committed))
        self.demo = Player(DemoStorage(), Left(self.committed))
        self.players = [self.file, self.mapping, self.demo]
        self.dropped: set[Oid] = set()
        self.packs = 0

    def drawn(self, drawn: Drawn) -> dict[Oid, bytes]:
        """Return records of what was drawn, without what garbage collection took, and referring to what is there."""
        there = {oid for oid in OIDS if self.data_before(oid, len(self.committed)) is not None} | set(drawn)
        there -= self.dropped
        return {
            oid: record(*(target for target in targets if target in there), text=text)
            for oid, (targets, text) in drawn.items()
            if oid not in self.dropped
        }

    def data_before(self, oid: Oid, number: int) -> bytes | None:
        """Return the object's data before a transaction, None if it did not exist."""
        return next((data[oid] for data in reversed(self.committed[:number]) if oid in data), None)

    def finish(self, storage: Storage, txn: Txn) -> Tid:
        assert not storage.tpc_vote(txn)
        return storage.tpc_finish(txn)

    @initialize(data=contents)
    def begin_with_a_root(self, data: Drawn) -> None:
        self.commit({**data, OIDS[0]: (OIDS[1:4], "root")}, "")

    @rule(data=contents, user=st.text(max_size=3))
    def commit(self, data: Drawn, user: str) -> None:
        records = self.drawn(data)
        for player in self.players:
            serials = {oid: player.serial(oid) for oid in records}
            player.tids.append(commit(player.storage, records, serials, txn=Txn(user)))
        self.committed.append(dict(records))

    @rule(number=numbers)
    def undo(self, number: int) -> None:
        number = -1 - number % min(len(self.committed), 4)
        undone = self.committed[number]
        number += len(self.committed)
        changed_since = any(self.data_before(oid, len(self.committed)) != data for oid, data in undone.items())
        possible = not changed_since and not any(number in player.left.packed for player in self.players)
        for player in self.players:
            txn = Txn()
            player.storage.tpc_begin(txn)
            if possible:
                _, oids = player.storage.undo(player.tids[number], txn)
                assert set(oids) == set(undone)
                player.tids.append(self.finish(player.storage, txn))
                continue
            if number in player.left.packed:
                with pytest.raises(UndoError):
                    player.storage.undo(player.tids[number], txn)
            elif changed_since:
                with pytest.raises(MultipleUndoErrors):
                    player.storage.undo(player.tids[number], txn)
            player.storage.tpc_abort(txn)
        if possible:
            self.committed.append({oid: self.data_before(oid, number) for oid in undone})

    @rule(oid=oids)
    def delete(self, oid: Oid) -> None:
        if not all(player.left.history(oid) for player in self.players):
            return
        for player in self.players:
            txn = Txn()
            player.storage.tpc_begin(txn)
            player.storage.deleteObject(oid, player.serial(oid), txn)
            player.tids.append(self.finish(player.storage, txn))
        self.committed.append({oid: None})

    @rule(data=contents, hint=numbers, back=st.booleans())
    def restore(self, data: Drawn, hint: int, back: bool) -> None:
        hint %= len(self.committed)
        known = {oid: old for oid, old in self.committed[hint].items() if back and oid not in self.dropped}
        records = {**self.drawn(data), **known}
        for player in self.players:
            tid = pack_id(unpack_id(player.tids[-1]) + 100)  # not the next: a border of the demo's may come between
            txn = Txn()
            player.storage.tpc_begin(txn, tid)
            for oid, data_of_oid in records.items():
                player.storage.restore(oid, tid, data_of_oid, "", player.tids[hint], txn)
            assert self.finish(player.storage, txn) == tid
            player.tids.append(tid)
        self.committed.append(records)

    @rule(data=contents, oid=oids, back=st.integers(2, 4))
    def conflict(self, data: Drawn, oid: Oid, back: int) -> None:
        records = self.drawn(data)
        for player in self.players:
            history = player.left.history(oid)
            old = player.tids[history[-back]] if len(history) >= back else b"\1" * 8
            serials = {other: player.serial(other) for other in records}
            if oid in self.dropped:
                continue
            with pytest.raises(ConflictError) as caught:
                commit(player.storage, {**records, oid: record(text="lost")}, {**serials, oid: old})
            assert caught.value.serials == (player.serial(oid), old)
            with pytest.raises(ReadConflictError):
                commit(player.storage, {}, current=[(oid, old)])

    @rule(data=contents, voted=st.booleans())
    def abort(self, data: Drawn, voted: bool) -> None:
        for player in self.players:
            txn = Txn()
            player.storage.tpc_begin(txn)
            for oid, data_of_oid in self.drawn(data).items():
                player.storage.store(oid, player.serial(oid), data_of_oid, "", txn)
            if voted:
                player.storage.tpc_vote(txn)
            player.storage.tpc_abort(txn)

    @rule(oid=oids, number=numbers, after=st.booleans())
    def load(self, oid: Oid, number: int, after: bool) -> None:
        number %= len(self.committed)
        for player in self.players:
            before = successor(player.tids[number]) if after else player.tids[number]
            packed = max(player.left.packed, default=-1)
            if player is self.demo and packed >= 0 and before <= player.tids[packed]:
                self.check_packed_demo(oid, before)
            else:
                self.check_load(player, oid, before)

    def check_load(self, player: Player, oid: Oid, before: Tid) -> None:
        """Assert that the storage has what the model has."""
        storage, history = player.storage, player.left.history(oid)
        seen = [number for number in history if player.tids[number] < before]
        if not history and player is self.file and oid == max(player.left.oids()):
            # A packed file remembers the highest oid ever used by a deletion of it, which may be later than `before`.
            with suppress(POSKeyError):
                assert storage.load_before(oid, before) is None
            return
        if not history:
            with pytest.raises(POSKeyError):
                storage.load_before(oid, before)
            return
        if not seen:
            assert storage.load_before(oid, before) is None
            return
        tid, data = player.tids[seen[-1]], self.committed[seen[-1]][oid]
        if data is None:
            with pytest.raises(POSKeyError):
                storage.load_before(oid, before)
            with pytest.raises(POSKeyError):
                storage.load_serial(oid, tid)
            return
        end = player.tids[history[len(seen)]] if len(seen) < len(history) else None
        assert storage.load_before(oid, before) == Revision(data, tid, end)
        assert storage.load_serial(oid, tid) == data

    def check_packed_demo(self, oid: Oid, before: Tid) -> None:
        """Assert that a state from before a pack, of which less is left, is not mistaken for another one."""
        storage, tids = self.demo.storage, self.demo.tids
        history = [number for number, data in enumerate(self.committed) if oid in data]
        seen = [number for number in history if tids[number] < before]
        try:
            found = storage.load_before(oid, before)
        except POSKeyError:
            assert not seen or self.committed[seen[-1]][oid] is None
            return
        if found is not None:
            end = tids[history[len(seen)]] if len(seen) < len(history) else None
            assert (found.data, found.tid) == (self.committed[seen[-1]][oid], tids[seen[-1]])
            assert found.end_tid == end or (found.end_tid is not None and before <= found.end_tid)
            assert end is None or (found.end_tid is not None and found.end_tid <= end)

    @rule(first=numbers, last=numbers)
    def walk(self, first: int, last: int) -> None:
        first, last = first % len(self.committed), last % len(self.committed)
        for player in self.players:
            walked = {
                player.tids.index(t.tid): {record.oid: record.data for record in t.records}
                for t in player.storage.transactions(player.tids[first], player.tids[last])
            }
            assert list(walked) == sorted(walked)
            for number in range(first, last + 1):
                data = self.committed[number]
                if number not in player.left.packed:
                    assert walked.pop(number) == data
                    continue
                found = walked.pop(number, {})
                # there may be more: what a later transaction repeats, and the mark of the highest oid
                left = {oid: record for oid, record in data.items() if number in player.left.history(oid)}
                assert left.items() <= found.items()
                assert all(data.get(oid) == record or record is None for oid, record in found.items())
            assert walked == {}

    def walk_side_by_side(
        self, walks: list[Iterator[Progress]], during: Drawn | None, at: int, at_end: Callable[[int], None]
    ) -> list[bool]:
        """Walk all packs, and commit before step `at`; return which of them came to their ends.

        `at_end` gets the place of each that does, there and then: some are done before others are at step `at`, and
        what they have collected cannot be committed to any more.
        """
        ended: dict[int, bool] = {}
        step = 0
        while len(ended) < len(walks) or (during is not None and step <= at):
            if step == at and during is not None:
                self.commit(during, "during a pack")
            step += 1
            for place, walk in enumerate(walks):
                if place not in ended:
                    try:
                        next(walk)
                    except StopIteration:
                        ended[place] = True
                        at_end(place)
                    except StorageError:
                        ended[place] = False
        return [ended[place] for place in range(len(walks))]

    def last(self, player: Player, until_s: float) -> int:
        """Return the number of the last transaction that is not later than a time."""
        return sum(tid <= tid_from_time(until_s) for tid in player.tids) - 1

    @precondition(lambda self: self.packs < MAX_PACKS)
    @rule(number=numbers, gc=st.booleans(), during=st.none() | contents, at=st.integers(0, 4))
    def pack(self, number: int, gc: bool, during: Drawn | None, at: int) -> None:
        """Pack all storages up to a transaction, side by side, and commit at one of the steps."""
        self.packs += 1
        number %= len(self.committed)
        untils = [tid_to_time(player.tids[number]) + 1e-6 for player in self.players]
        lasts = [self.last(player, until_s) for player, until_s in zip(self.players, untils, strict=True)]
        collects = [gc and player is not self.demo for player in self.players]
        refused = [
            player.left.is_refused(last, gc=collect)
            for player, last, collect in zip(self.players, lasts, collects, strict=True)
        ]
        walks: list[Iterator[Progress]] = [
            player.storage.pack_steps(until_s, gc=collect)
            for player, until_s, collect in zip(self.players, untils, collects, strict=True)
        ]

        def at_end(place: int) -> None:
            player = self.players[place]
            self.dropped |= player.left.pack(lasts[place], gc=collects[place], border=player.border)

        ended = self.walk_side_by_side(walks, during, at, at_end)
        for place in range(len(self.players)):
            # what is committed meanwhile may put in order what would have been refused
            assert ended[place] is not refused[place] or (during is not None and refused[place])

    @precondition(lambda self: self.packs < MAX_PACKS)
    @rule(steps=st.integers(1, 3))
    def give_a_pack_up(self, steps: int) -> None:
        """Begin to pack and do not end it; a step that is there has not been the last."""
        self.packs += 1
        for player in self.players:
            walk = player.storage.pack_steps(tid_to_time(player.tids[-1]), gc=False)
            before = player.storage.byte_size()
            if any(next(walk, None) is None for _ in range(steps)):
                player.left.pack(self.last(player, tid_to_time(player.tids[-1])), gc=False, border=player.border)
            else:
                walk.close()
                assert player.storage.byte_size() == before

    @rule(how=st.sampled_from(["saved index", "no index", "old index", "torn tail", "half a pack"]))
    def reopen(self, how: str) -> None:
        index, path = self.directory / "Data.fs.index", self.directory / "Data.fs"
        old = index.read_bytes() if index.exists() else b""
        self.file.storage.close()
        if how == "no index":
            index.unlink(missing_ok=True)
        elif how == "old index" and old:
            index.write_bytes(old)
        elif how == "torn tail":
            with open(path, "ab") as file:
                file.write(successor(self.file.tids[-1]) + bytes(20))
        elif how == "half a pack":
            for suffix in (".pack", ".pack.index"):
                (self.directory / f"Data.fs{suffix}").write_bytes(b"half")
        self.file.storage = FileStorage(path)
        assert not list(self.directory.glob("*.pack*"))

    @rule()
    def push(self) -> None:
        assert isinstance(self.demo.storage, DemoStorage)
        self.demo.storage = self.demo.storage.push()
        self.demo.border = len(self.committed)

    @invariant()
    def the_ends_agree(self) -> None:
        for player in self.players:
            assert player.storage.last_tid() == (player.tids[-1] if player.tids else ZERO_TID)
            # The mark of an oid that is gone looks like a deletion, and a deletion like that mark.
            assert abs(len(player.storage) - len(player.left.objects())) <= (1 if player is self.file else 0)

    def teardown(self) -> None:
        self.file.storage.close()
        shutil.rmtree(self.directory)


TestStorageModel = StorageModel.TestCase
TestStorageModel.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)


class LongStorageModel(StorageModel):
    """The same for the slow suite."""


TestLongStorageModel = pytest.mark.slow(LongStorageModel.TestCase)
TestLongStorageModel.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
