import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from zeo_client.cache.memory import ENTRY_OVERHEAD_BYTES, MemoryCache
from zeo_core.ids import MAX_TID, ZERO_TID, Oid, Tid, pack_id, successor
from zeo_core.transaction import Revision

A, B, C = pack_id(1), pack_id(2), pack_id(3)
T0, T1, T2, T3, T4, T5 = (pack_id(number) for number in range(10, 16))

OIDS = [pack_id(number) for number in range(1, 6)]
some_oids = st.sets(st.sampled_from(OIDS), max_size=4)
sizes = st.integers(0, 60)


class History:
    """What the server holds: every revision of every object, in plain lists."""

    def __init__(self) -> None:
        self.last = 40
        self.revisions: dict[Oid, list[tuple[Tid, bytes]]] = {}

    def commit(self, oids: set[Oid], size: int, branch: str) -> Tid:
        self.last += 2  # so that there are tids between
        tid = pack_id(self.last)
        for oid in oids:
            data = f"{oid[-1]}@{self.last}{branch}".encode().ljust(size)
            self.revisions.setdefault(oid, []).append((tid, data))
        return tid

    def load_before(self, oid: Oid, before: Tid) -> Revision | None:
        end = None
        for tid, data in reversed(self.revisions.get(oid, [])):
            if tid < before:
                return Revision(data, tid, end)
            end = tid
        return None

    def cut(self, keep: int) -> None:
        """Be restored from a backup."""
        self.last = keep
        for oid in self.revisions:
            self.revisions[oid] = [entry for entry in self.revisions[oid] if entry[0] <= pack_id(keep)]


class CacheMachine(RuleBasedStateMachine):
    """The cache, fed as ClientStorage feeds it, beside the whole truth: it may forget, it may never lie."""

    def __init__(self) -> None:
        super().__init__()
        self.truth = History()
        self.cache = MemoryCache(6 * (ENTRY_OVERHEAD_BYTES + 30))
        self.branch = ""
        self.known = ZERO_TID
        self.missed: set[Oid] | None = None  # what changed while the connection is lost
        self.verify(False)

    def check(self, oid: Oid, before: Tid) -> Revision | None:
        found = self.cache.load_before(oid, before)
        if found is not None:
            assert found.end_tid is not None or before <= successor(self.known), "it answers for a time it cannot know"
            true = self.truth.load_before(oid, before)
            assert true is not None
            assert (found.data, found.tid) == (true.data, true.tid)
            if found.end_tid is not None:
                assert found.end_tid == true.end_tid
            elif self.missed is None:
                assert true.end_tid is None
        return found

    def check_all(self) -> None:
        for oid in OIDS:
            for number in range(19, self.truth.last + 4):
                self.check(oid, pack_id(number))

    @precondition(lambda self: self.missed is None)
    @rule(oids=some_oids, size=sizes, own=st.booleans())
    def commit(self, oids: set[Oid], size: int, own: bool) -> None:
        tid = self.truth.commit(oids, size, self.branch)
        self.cache.invalidate(tid, oids)
        self.known = tid  # all that is known to have changed up to it has been applied
        self.check_all()
        if own:
            for oid in oids:
                revision = self.truth.load_before(oid, MAX_TID)
                assert revision is not None
                self.cache.store(oid, revision)
        assert self.cache.last_tid() < tid
        self.cache.advance(tid)
        assert self.cache.last_tid() == tid

    @precondition(lambda self: self.missed is None)
    @rule(oid=st.sampled_from(OIDS), back=st.integers(-2, 14))
    def load(self, oid: Oid, back: int) -> None:
        before = MAX_TID if back == -2 else pack_id(self.truth.last - back)
        if self.check(oid, before) is None:
            answer = self.truth.load_before(oid, before)
            if answer is not None:
                self.cache.store(oid, answer)

    @rule(oid=st.sampled_from(OIDS), back=st.integers(-1, 14))
    def look(self, oid: Oid, back: int) -> None:
        self.check(oid, pack_id(self.truth.last - back))

    @rule(oid=st.sampled_from(OIDS), back=st.integers(0, 14))
    def load_serial(self, oid: Oid, back: int) -> None:
        tid = pack_id(self.truth.last - back)
        found = self.cache.load_serial(oid, tid)
        if found is not None:
            assert (tid, found.data) in self.truth.revisions[oid]

    @precondition(lambda self: self.missed is None)
    @rule()
    def lose(self) -> None:
        self.missed = set()

    @precondition(lambda self: self.missed is not None)
    @rule(oids=some_oids, size=sizes)
    def commit_unheard(self, oids: set[Oid], size: int) -> None:
        self.truth.commit(oids, size, self.branch)
        assert self.missed is not None
        self.missed |= oids

    @precondition(lambda self: self.missed is not None)
    @rule(too_old=st.booleans())
    def verify(self, too_old: bool) -> None:
        if too_old:
            self.cache.clear()
        else:
            self.cache.forget(self.missed or ())
        self.missed, self.known = None, pack_id(self.truth.last)
        self.cache.advance(self.known)

    @precondition(lambda self: self.missed is not None)
    @rule(back=st.integers(1, 6))
    def fork(self, back: int) -> None:
        """Lesson B12: the server comes back from a backup, and goes on with other transactions."""
        self.branch += "'"
        self.truth.cut(max(20, self.truth.last - 2 * back))
        self.verify(True)

    @invariant()
    def nothing_is_wrong(self) -> None:
        self.check_all()

    @invariant()
    def the_size_is_bounded_and_counted_right(self) -> None:
        stats = self.cache.stats()
        assert stats["bytes"] <= stats["max_bytes"]
        held = self.cache._revisions
        assert stats["revisions"] == len(held)
        assert stats["bytes"] == sum(len(revision.data) + ENTRY_OVERHEAD_BYTES for revision in held.values())
        older = {oid + tid for oid, tids in self.cache._older.items() for tid in tids}
        assert older == {key for key in held if len(key) == 16}
        assert all(tids == sorted(set(tids)) != [] for tids in self.cache._older.values())


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def cache_at(tid: Tid, max_bytes: int = 1_000_000) -> MemoryCache:
    cache = MemoryCache(max_bytes)
    cache.advance(tid)
    return cache


def test_a_current_revision_answers_up_to_the_horizon_and_not_beyond() -> None:
    cache = cache_at(T3)
    revision = Revision(b"a", T1, None)
    cache.store(A, revision)
    assert cache.load_before(A, T1) is None
    for before in (T2, T3, successor(T3)):
        assert cache.load_before(A, before) == revision
    for before in (successor(successor(T3)), MAX_TID):
        assert cache.load_before(A, before) is None
    cache.advance(T4)
    assert cache.load_before(A, successor(T4)) == revision


def test_an_invalidated_revision_answers_for_its_own_time() -> None:
    cache = cache_at(T1)
    cache.store(A, Revision(b"a", T1, None))
    cache.store(B, Revision(b"b", T1, None))
    cache.invalidate(T3, [A])
    assert cache.load_before(A, T3) == (b"a", T1, T3)
    assert cache.load_before(A, successor(T3)) is None
    assert cache.last_tid() == T1
    assert cache.load_before(B, successor(T3)) == (b"b", T1, None)
    cache.advance(T3)
    assert cache.load_before(A, successor(T3)) is None


def test_forgotten_objects_are_not_end_dated() -> None:
    """Lesson B11: the tid of a getInvalidations reply is not the one that changed each object."""
    cache = cache_at(T1)
    cache.store(A, Revision(b"a", T1, None))
    cache.forget([A, B])
    cache.advance(T4)
    assert cache.load_before(A, T2) is None
    assert cache.load_before(A, successor(T4)) is None


def test_the_least_recently_used_goes_first() -> None:
    cache = cache_at(T1, 3 * (ENTRY_OVERHEAD_BYTES + 10))
    for oid in (A, B, C):
        cache.store(oid, Revision(b"x" * 10, T1, None))
    assert cache.load_before(A, successor(T1))
    cache.store(pack_id(4), Revision(b"x" * 10, T1, None))
    assert [cache.load_before(oid, successor(T1)) is not None for oid in (A, B, C, pack_id(4))] == [
        True,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("end_tid", [None, T2])
def test_a_record_that_does_not_fit_drives_nothing_out(end_tid: Tid | None) -> None:
    cache = cache_at(T1, 1000)
    cache.store(A, Revision(b"a", T1, None))
    cache.store(B, Revision(b"b" * 1000, T1, end_tid))
    assert cache.load_before(A, successor(T1)) == (b"a", T1, None)
    assert cache.load_before(B, T2) is None


def test_a_cache_of_no_size() -> None:
    cache = cache_at(T1, 0)
    cache.store(A, Revision(b"", T1, None))
    cache.invalidate(T2, [A])
    assert cache.load_before(A, T2) is None
    assert cache.stats() == {"hits": 0, "misses": 1, "bytes": 0, "max_bytes": 0, "revisions": 0}


def test_an_older_answer_does_not_replace_a_newer_one() -> None:
    cache = cache_at(T3)
    cache.store(A, Revision(b"new", T2, None))
    cache.store(A, Revision(b"old", T1, T2))
    cache.store(A, Revision(b"old", T1, None))  # never from a server that keeps the order
    assert cache.load_before(A, successor(T3)) == (b"new", T2, None)
    assert cache.load_before(A, T2) == (b"old", T1, T2)


def test_hits_and_misses_are_counted() -> None:
    cache = cache_at(T1)
    cache.load_before(A, T2)
    cache.store(A, Revision(b"a", T1, None))
    cache.load_before(A, T2)
    cache.load_before(A, MAX_TID)
    stats = cache.stats()
    assert (stats["hits"], stats["misses"], stats["revisions"]) == (1, 2, 1)


def test_threads_find_pairs_that_belong_together() -> None:
    """A and B always change together, A's data equal to B's; whoever reads at one tid must see them equal."""
    cache = cache_at(T0, 20 * ENTRY_OVERHEAD_BYTES)
    wrong: list[object] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            before = successor(cache.last_tid())
            found = [cache.load_before(oid, before) for oid in (A, B, A)]
            known = {(revision.data, revision.tid) for revision in found if revision is not None}
            if len(known) > 1:
                wrong.append(found)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(20, 3000):
        tid = pack_id(number)
        cache.invalidate(tid, (A, B))
        for oid in (A, B):
            cache.store(oid, Revision(b"%d" % number, tid, None))
        cache.advance(tid)
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_what_is_found_elsewhere_is_kept_if_it_is_known_to_be_current() -> None:
    cache = cache_at(T3)
    cache.keep(A, Revision(b"a", T1, None), T3, cache.cleared)
    cache.keep(B, Revision(b"b", T1, None), T2, cache.cleared)
    cache.keep(C, Revision(b"c", T1, T2), T1, cache.cleared)
    assert [cache.load_before(oid, T2) is not None for oid in (A, B, C)] == [True, False, True]


def test_what_was_found_before_a_change_is_not_kept() -> None:
    """The change is heard, and applied, between the finding and the keeping (lesson B1)."""
    cache = cache_at(T3)
    cache.invalidate(T4, [A])
    cache.keep(A, Revision(b"a", T1, None), T3, cache.cleared)
    cache.advance(T4)
    assert cache.load_before(A, T4) is None
    cache.keep(A, Revision(b"a", T5, None), T5, cache.cleared)  # another process has heard of it already
    assert cache.load_before(A, MAX_TID) is None


def test_what_was_found_before_a_clearing_is_not_kept() -> None:
    cache = cache_at(T3)
    cleared = cache.cleared
    cache.clear()
    cache.keep(A, Revision(b"a", T1, T2), T3, cleared)
    assert cache.load_before(A, T2) is None


def test_a_cache_is_brought_up() -> None:
    cache = MemoryCache(1_000_000)
    assert cache.catch_up(T1, lambda _known: None) == T1
    cache.advance(T1)
    for oid in (A, B):
        cache.store(oid, Revision(b"x", T1, None))
    assert cache.catch_up(T2, lambda known: (T3, [B]) if known == T1 else None) == T3
    cache.advance(T3)
    assert [cache.load_before(oid, T2) is not None for oid in (A, B)] == [True, False]
    assert cache.catch_up(T4, lambda _known: None) == T4
    assert cache.load_before(A, T2) is None
