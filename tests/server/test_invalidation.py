from hypothesis import given, settings
from hypothesis import strategies as st

from zeo_core.ids import ZERO_TID, pack_id, tid_to_time, unpack_id
from zeo_core.transaction import Invalidation, ObjectWrite, PreparedTransaction, TransactionMetadata
from zeo_server.invalidation import Audience, InvalidationLog, changes_since, recent_transactions
from zeo_server.storages.mapping import MappingStorage

A, B, C = (pack_id(n) for n in (1, 2, 3))
T = [pack_id(n) for n in range(100, 110)]


def log_of(*entries: Invalidation, size: int = 10) -> InvalidationLog:
    return InvalidationLog(size, entries)


def test_who_has_seen_the_last_has_missed_nothing() -> None:
    assert log_of(Invalidation(T[0], (A,))).since(T[0]) == (T[0], [])
    assert log_of(Invalidation(ZERO_TID, ())).since(ZERO_TID) == (ZERO_TID, [])


def test_everything_after_a_known_tid() -> None:
    log = log_of(Invalidation(T[0], ()))
    log.add(T[1], [A])
    log.add(T[2], [B, A])
    log.add(T[3], [])
    assert log.since(T[2]) == (T[3], [])
    tid, oids = log.since(T[0]) or (None, [])
    assert tid == T[3]
    assert sorted(oids) == [A, B]


def test_a_tid_between_ours_is_no_tid_of_ours() -> None:
    """Lesson B12: the client knows a transaction that is not in this history."""
    log = log_of(Invalidation(T[0], ()), Invalidation(T[2], (A,)))
    assert log.since(T[1]) is None


def test_older_than_the_log_or_newer_than_the_storage() -> None:
    log = log_of(Invalidation(T[1], ()), Invalidation(T[2], (A,)))
    assert log.since(T[0]) is None
    assert log.since(T[3]) is None


def test_the_oldest_make_way() -> None:
    log = log_of(Invalidation(T[0], ()), size=2)
    log.add(T[1], [A])
    log.add(T[2], [B])
    assert len(log) == 2
    assert log.since(T[0]) is None
    assert log.since(T[1]) == (T[2], [B])


def test_a_size_of_nothing_still_knows_the_last() -> None:
    log = log_of(Invalidation(T[0], ()), size=0)
    log.add(T[1], [A])
    assert log.since(T[1]) == (T[1], [])
    assert log.since(T[0]) is None


@given(
    changes=st.lists(st.frozensets(st.integers(0, 5).map(pack_id)), min_size=1, max_size=12),
    size=st.integers(1, 8),
    asked=st.integers(0, 30),
)
@settings(max_examples=200)
def test_an_answer_is_complete_or_there_is_none(changes: list[frozenset[bytes]], size: int, asked: int) -> None:
    history = [(pack_id(2 * n), oids) for n, oids in enumerate(changes, 1)]
    log = InvalidationLog(size, [])
    for tid, oids in history:
        log.add(tid, tuple(oids))
    answer = log.since(pack_id(asked))
    known = [tid for tid, _ in history[-size:]]
    assert (answer is not None) == (pack_id(asked) in known)
    if answer is not None:
        last, oids_changed = answer
        assert last == history[-1][0]
        assert len(oids_changed) == len(set(oids_changed))
        assert set(oids_changed) == {oid for tid, oids in history if tid > pack_id(asked) for oid in oids}


def committed(storage: MappingStorage, changes: list[tuple[bytes, ...]]) -> list[Invalidation]:
    made = []
    for oids in changes:
        writes = tuple(ObjectWrite(oid, ZERO_TID, b"data") for oid in oids)
        group = storage.write_group([PreparedTransaction(TransactionMetadata(), writes)])
        storage.publish(group)
        made.append(Invalidation(group.tids[0], oids))
    return made


def test_a_log_begins_with_the_tail_of_the_storage() -> None:
    storage = MappingStorage()
    assert recent_transactions(storage, 10) == [Invalidation(ZERO_TID, ())]
    made = committed(storage, [(A,), (B, C), (), (A,)])
    assert recent_transactions(storage, 10) == made
    assert recent_transactions(storage, 2) == made[-2:]
    assert recent_transactions(storage, 1) == made[-1:]
    assert recent_transactions(storage, 0)[-1:] == made[-1:]


def test_a_long_tail_is_not_walked_for_it() -> None:
    storage = MappingStorage()
    made = committed(storage, [(A,)] * 5000)
    found = recent_transactions(storage, 100)
    assert found == made[-len(found) :]
    assert found


class Ear:
    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.heard_later: list[bytes] = []
        self.awaiting = 0

    def send(self, frame: bytes) -> None:
        self.heard.append(frame)

    def send_later(self, frame: bytes) -> None:
        self.heard_later.append(frame)


class Leaver(Ear):
    """Leaves, and lets another in, while it is told something."""

    def __init__(self, audience: Audience[Ear], newcomer: Ear) -> None:
        super().__init__()
        self.audience, self.newcomer = audience, newcomer

    def send(self, frame: bytes) -> None:
        super().send(frame)
        self.audience.leave(self)
        self.audience.join(self.newcomer)


def test_everybody_but_the_one_is_told() -> None:
    audience: Audience[Ear] = Audience()
    first, second, third = Ear(), Ear(), Ear()
    for ear in (first, second, third):
        audience.join(ear)
    audience.tell(b"x", but=second)
    audience.leave(third)
    audience.leave(third)
    audience.tell(b"y")
    assert (first.heard, second.heard, third.heard) == ([b"x", b"y"], [b"y"], [b"x"])
    assert len(audience) == 2
    assert second in audience
    assert third not in audience


def test_who_leaves_in_the_middle_makes_nobody_miss_anything() -> None:
    """Lesson B3: each that was registered when the transaction was committed is told of it, once."""
    audience: Audience[Ear] = Audience()
    newcomer, last = Ear(), Ear()
    leaver = Leaver(audience, newcomer)
    audience.join(leaver)
    audience.join(last)
    audience.tell(b"x")
    assert last.heard == [b"x"]
    assert newcomer.heard == []
    audience.tell(b"y")
    assert leaver.heard == [b"x"]
    assert newcomer.heard == [b"y"]


def test_a_log_of_another_size_keeps_the_newest() -> None:
    log = InvalidationLog(5, [Invalidation(pack_id(number), ()) for number in range(1, 6)])
    log.resize(2)
    assert len(log) == 2
    assert log.since(pack_id(4)) == (pack_id(5), [])
    assert log.since(pack_id(3)) is None
    log.resize(3)
    log.add(pack_id(6), ())
    assert log.since(pack_id(4)) == (pack_id(6), [])


def test_what_changed_is_read_from_the_storage() -> None:
    storage = MappingStorage()
    made = committed(storage, [(A,), (B, C), (), (A,)])
    tids = [entry.tid for entry in made]
    answer = changes_since(storage, tids[0], 0)
    assert answer is not None
    assert (answer[0], sorted(answer[1])) == (tids[-1], [A, B, C])
    assert changes_since(storage, tids[2], 0) == (tids[-1], [A])
    assert changes_since(storage, tids[-1], 0) == (tids[-1], [])


def test_what_is_too_old_or_not_of_this_storage_is_not_answered() -> None:
    storage = MappingStorage()
    (entry,) = committed(storage, [(A,)])
    assert changes_since(storage, entry.tid, tid_to_time(entry.tid) + 1) is None
    assert changes_since(storage, pack_id(unpack_id(entry.tid) - 1), 0) is None
    assert changes_since(storage, pack_id(unpack_id(entry.tid) + 1), 0) is None


def test_who_has_voted_hears_it_with_the_answer_to_its_finish() -> None:
    audience: Audience[Ear] = Audience()
    idle, busy = Ear(), Ear()
    busy.awaiting = 1
    audience.join(idle)
    audience.join(busy)
    audience.tell(b"x")
    assert (idle.heard, idle.heard_later) == ([b"x"], [])
    assert (busy.heard, busy.heard_later) == ([], [b"x"])


def test_a_transaction_that_is_known_is_noted_once() -> None:
    log = InvalidationLog(5, ())
    assert log.since(pack_id(1)) is None
    assert log.add(pack_id(2), (A,))
    assert not log.add(pack_id(2), (B,))
    assert not log.add(pack_id(1), (B,))
    assert log.add(pack_id(3), (B,))
    assert log.since(pack_id(2)) == (pack_id(3), [B])


def test_a_log_that_begins_anew_knows_the_last_only() -> None:
    log = InvalidationLog(5, [Invalidation(pack_id(number), (A,)) for number in range(1, 6)])
    log.restart(pack_id(3))
    assert len(log) == 1
    assert log.since(pack_id(3)) == (pack_id(3), [])
    assert log.since(pack_id(5)) is None


def test_who_is_registered() -> None:
    audience: Audience[Ear] = Audience()
    one, two = Ear(), Ear()
    audience.join(one)
    audience.join(two)
    members = audience.members()
    audience.leave(one)
    assert (members, audience.members()) == ((one, two), (two,))
