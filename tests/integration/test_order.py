"""What a client answers while it hears of commits: checked against the log, answer by answer.

Invariants 3, 4 and 6. Threads load what a snapshot of theirs shows, through a proxy that delays and splits, and are
stopped at random lines (`tests.reordering`) while the storage's own commits and those of others arrive. Every answer is
noted, and compared with what was committed.
"""

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, NamedTuple

import pytest

from tests.client.peer import Background
from tests.fixtures_zeod import StartZeod
from tests.proxy import Proxy
from tests.reordering import reordered
from zeo_client.storage import ClientStorage
from zeo_core.errors import ClientDisconnected, ConflictError
from zeo_core.ids import MAX_TID, ZERO_TID, Oid, Tid, pack_id, successor

OIDS = [pack_id(number) for number in range(1, 9)]
READERS = 3
COMMITS = 25
"""So many in each round, of each writer; after a round everything is compared."""


class Answer(NamedTuple):
    oid: Oid
    before: Tid
    data: bytes
    tid: Tid
    end_tid: Tid | None


class Transaction:
    def __init__(self) -> None:
        self.user, self.description = "", ""
        self.extension: dict[str, Any] = {}


class Race:
    """One storage under test, which is the sink of itself; and what was answered and committed."""

    def __init__(self, storage: ClientStorage, other: ClientStorage, seed: int) -> None:
        self.storage, self.other = storage, other
        self.wrong: list[str] = []
        self.answers: list[Answer] = []
        self.log: dict[Tid, dict[Oid, bytes]] = {}
        self.compared = 0
        self._announced = storage.last_tid()
        self._numbers = itertools.count()
        self._seed = seed
        storage.register_sink(self)

    # -- what is announced --------------------------------------------------------------------------------------------

    def invalidate(self, tid: Tid, oids: Sequence[Oid]) -> None:
        self._announce(tid)

    def invalidateCache(self) -> None:  # noqa: N802
        self._announced = MAX_TID  # all there is, whatever that is

    def _announce(self, tid: Tid) -> None:
        if self.storage._cache.last_tid() >= tid:
            self.wrong.append(f"{tid.hex()} was the last tid before it was announced")
        self._announced = max(self._announced, tid)

    # -- threads --------------------------------------------------------------------------------------------------

    def round(self) -> None:
        """Let all threads work until the writers have done their commits, and compare."""
        over = threading.Event()
        writers = [Background(self._write, storage, next(self._numbers)) for storage in (self.storage, self.other)]
        readers = [Background(self._read, over, next(self._numbers)) for _ in range(READERS)]
        for writer in writers:
            writer.result(120)
        over.set()
        for reader in readers:
            reader.result(120)
        self._compare()

    def _read(self, over: threading.Event, number: int) -> None:
        choice = random.Random(self._seed + number)
        while not over.is_set():
            last = self.storage.last_tid()
            if last > self._announced:
                self.wrong.append(f"{last.hex()} is the last tid, and {self._announced.hex()} was announced")
            before = successor(last)
            for oid in choice.sample(OIDS, choice.randrange(1, len(OIDS))):
                try:
                    found = self.storage.load_before(oid, before)
                except ClientDisconnected:
                    continue
                assert found is not None
                self.answers.append(Answer(oid, before, *found))

    def _write(self, storage: ClientStorage, number: int) -> None:
        choice = random.Random(self._seed + number)
        done = 0
        while done < COMMITS:
            try:
                self._commit(storage, choice, b"%d-%d" % (number, done))
                done += 1
            except (ConflictError, ClientDisconnected):
                pass

    def _commit(self, storage: ClientStorage, choice: random.Random, data: bytes) -> None:
        began = Transaction()
        storage.tpc_begin(began)
        try:
            before = successor(storage.last_tid())
            written = {oid: data + oid for oid in choice.sample(OIDS, choice.randrange(1, 4))}
            for oid, record in written.items():
                found = storage.load_before(oid, before)
                assert found is not None
                storage.store(oid, found.tid, record, "", began)
            storage.tpc_vote(began)
            tid = storage.tpc_finish(began, self._announce if storage is self.storage else None)
        except BaseException:
            storage.tpc_abort(began)
            raise
        self.log[tid] = written

    # -- the truth ----------------------------------------------------------------------------------------------------

    def _compare(self) -> None:
        tids: dict[Oid, list[Tid]] = {oid: [] for oid in OIDS}
        for tid in sorted(self.log):
            for oid in self.log[tid]:
                tids[oid].append(tid)
        last = successor(self.storage.last_tid())
        cached = [(oid, self.storage._cache.load_before(oid, last)) for oid in OIDS]
        self.answers += [Answer(oid, last, *found) for oid, found in cached if found is not None]
        for answer in self.answers:
            true = max((tid for tid in tids[answer.oid] if tid < answer.before), default=None)
            following = min((tid for tid in tids[answer.oid] if tid >= answer.before), default=None)
            if true is None or (answer.tid, answer.data) != (true, self.log[true][answer.oid]):
                self.wrong.append(f"{answer} is not what {true and true.hex()} wrote")
            elif answer.end_tid not in (None, following):
                self.wrong.append(f"{answer} ends with {following and following.hex()}")
        self.compared += len(self.answers)
        self.answers = []
        # Later answers are about the present: of the past, what was current will do.
        keep = {each[-1] for each in tids.values()}
        self.log = {tid: written for tid, written in self.log.items() if tid in keep}


def first_commit(storage: ClientStorage) -> dict[Tid, dict[Oid, bytes]]:
    """Make the objects, under oids that no server gives here."""
    began = Transaction()
    storage.tpc_begin(began)
    for oid in OIDS:
        storage.store(oid, ZERO_TID, b"first", "", began)
    storage.tpc_vote(began)
    return {storage.tpc_finish(began): dict.fromkeys(OIDS, b"first")}


@contextmanager
def race(start_zeod: StartZeod, seed: int, **options: Any) -> Iterator[tuple[Race, Proxy]]:
    server = start_zeod("-f", "Data.fs")
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(server.address, delay_s=0.001, piece_bytes=300, seed=seed))
        other = stack.enter_context(closing(ClientStorage(server.address)))
        log = first_commit(other)
        stack.enter_context(reordered(seed))
        options = {"cache_size": 4_000, "reconnect_timeout": 30, **options}
        storage = stack.enter_context(closing(ClientStorage(proxy.address, **options)))
        racing = Race(storage, other, seed)
        racing.log = log
        yield racing, proxy


def run(racing: Race, enough: Callable[[], bool], between: Callable[[], object]) -> None:
    while not enough():
        racing.round()
        assert racing.wrong == []
        between()


@pytest.mark.parametrize("cut", [False, True])
def test_no_answer_is_stale_or_mixed(start_zeod: StartZeod, cut: bool) -> None:
    with race(start_zeod, seed=1) as (racing, proxy):
        run(racing, lambda: racing.compared > 1_000, proxy.cut if cut else lambda: None)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [600])
def test_no_answer_is_stale_or_mixed_for_long(start_zeod: StartZeod, seconds: float) -> None:
    seed = random.randrange(1_000_000)
    choice = random.Random(seed)
    with race(start_zeod, seed) as (racing, proxy):
        end = time.monotonic() + seconds
        run(racing, lambda: time.monotonic() > end, lambda: proxy.cut() if choice.random() < 0.1 else None)
        assert racing.compared > 10_000
