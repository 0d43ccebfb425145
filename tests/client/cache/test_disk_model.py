"""Several processes' handles on one disk cache, beside the whole truth: they may forget, they may never lie.

Each handle has its own connection: it hears of commits when the machine says so, loads as of what it has heard, and
writes when the machine says so. A handle that is dropped without being closed is a process that was killed.
"""

import shutil
import tempfile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.client.cache.truth import OIDS, History
from zeo_client.cache.disk import DiskCache
from zeo_client.cache.layered import LayeredCache
from zeo_client.cache.memory import ENTRY_OVERHEAD_BYTES, MemoryCache
from zeo_core.ids import ZERO_TID, Oid, Tid, pack_id, successor

HANDLES = 3

handles = st.integers(0, HANDLES - 1)
some_oids = st.sets(st.sampled_from(OIDS), max_size=3)
sizes = st.sampled_from([0, 40, 5000])


class Process:
    """A client: its caches, and how far it has heard."""

    def __init__(self, path: str, truth: History, max_bytes: int) -> None:
        self.truth = truth
        self.disk = DiskCache(path, "one", max_bytes, background=False)
        self.cache = LayeredCache(MemoryCache(2 * (ENTRY_OVERHEAD_BYTES + 50)), self.disk)
        self.heard = ZERO_TID
        self.branch = truth.branch
        self.connected = False
        self.connect()

    def connect(self) -> None:
        tid = self.cache.catch_up(pack_id(self.truth.last), self.truth.changes_since)
        assert tid == pack_id(self.truth.last)
        self.cache.advance(tid)
        self.heard, self.branch, self.connected = tid, self.truth.branch, True

    def hear(self) -> None:
        """Hear of the next transaction."""
        tid, oids = next(entry for entry in self.truth.log if entry[0] > self.heard)
        self.cache.invalidate(tid, oids)
        self.check_all()
        self.heard = tid
        self.cache.advance(tid)

    def load(self, oid: Oid, before: Tid) -> None:
        if self.check(oid, before):
            return
        answer = self.truth.load_as_of(oid, before, self.heard)
        if answer is not None and answer.tid <= self.heard:
            self.cache.store(oid, answer)

    def check(self, oid: Oid, before: Tid) -> bool:
        found = self.cache.load_before(oid, before)
        if found is None:
            return False
        true = self.truth.load_before(oid, before)
        assert true is not None
        assert (found.data, found.tid) == (true.data, true.tid)
        assert found.end_tid in (None, true.end_tid)
        return True

    def check_all(self) -> None:
        if self.branch != self.truth.branch:
            return  # it is still connected to what the server was before
        for oid in OIDS:
            for number in range(41, self.truth.last + 4):
                self.check(oid, pack_id(number))


class SharedCacheMachine(RuleBasedStateMachine):
    @initialize(max_bytes=st.sampled_from([60_000, 1_000_000]))
    def begin(self, max_bytes: int) -> None:
        self.path = tempfile.mkdtemp(prefix="zeod-cache-")
        self.max_bytes = max_bytes
        self.truth = History()
        self.processes = [self.process() for _ in range(HANDLES)]
        self.killed: list[Process] = []

    def process(self) -> Process:
        return Process(self.path, self.truth, self.max_bytes)

    @rule(oids=some_oids, size=sizes)
    def commit(self, oids: set[Oid], size: int) -> None:
        self.truth.commit(oids, size)

    @rule(number=handles)
    def hear(self, number: int) -> None:
        process = self.processes[number]
        if process.connected and process.branch == self.truth.branch and process.heard < pack_id(self.truth.last):
            process.hear()

    @rule(number=handles, oids=some_oids, size=sizes)
    def commit_own(self, number: int, oids: set[Oid], size: int) -> None:
        process = self.processes[number]
        if not process.connected or process.branch != self.truth.branch:
            return
        while process.heard < pack_id(self.truth.last):
            process.hear()
        tid = self.truth.commit(oids, size)
        process.cache.invalidate(tid, oids)
        for oid in oids:
            revision = self.truth.load_before(oid, successor(tid))
            assert revision is not None
            process.cache.store(oid, revision)
        process.heard = tid
        process.cache.advance(tid)

    @rule(number=handles, oid=st.sampled_from(OIDS), back=st.integers(-1, 16))
    def load(self, number: int, oid: Oid, back: int) -> None:
        process = self.processes[number]
        if process.connected and process.branch == self.truth.branch:
            before = successor(process.heard)
            process.load(oid, before if back == -1 else min(before, pack_id(max(41, self.truth.last - back))))

    @rule(number=handles)
    def flush(self, number: int) -> None:
        self.processes[number].disk.flush()

    @rule(number=handles)
    def look(self, number: int) -> None:
        self.processes[number].check_all()

    @rule(number=handles)
    def lose_and_connect(self, number: int) -> None:
        self.processes[number].connect()

    @rule(number=handles)
    def restart(self, number: int) -> None:
        self.processes[number].disk.close()
        self.processes[number] = self.process()

    @rule(number=handles)
    def kill(self, number: int) -> None:
        self.killed.append(self.processes[number])
        self.processes[number] = self.process()

    @precondition(lambda self: len(self.truth.log) > 3)
    @rule(back=st.integers(1, 3))
    def restore_backup(self, back: int) -> None:
        self.truth.restore_backup(self.truth.log[-1 - back][0])

    def teardown(self) -> None:
        if not hasattr(self, "truth"):
            return
        for process in self.processes:
            process.check_all()
            process.disk.flush()
            process.check_all()
        for process in self.processes + self.killed:
            process.disk.close()
        shutil.rmtree(self.path)


TestSharedCache = SharedCacheMachine.TestCase
TestSharedCache.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
