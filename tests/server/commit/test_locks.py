from collections.abc import Collection

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from zeo_core.ids import Oid, pack_id
from zeo_server.commit.locks import ObjectLocks

A, B, C = (pack_id(n) for n in (1, 2, 3))


def test_an_object_that_nobody_wants_is_granted_at_once() -> None:
    locks: ObjectLocks[str] = ObjectLocks()
    assert locks.request("first", [A, B])
    assert locks.holds("first")
    assert locks.release("first") == []
    assert len(locks) == 0


def test_disjoint_requests_do_not_wait_for_each_other() -> None:
    locks: ObjectLocks[str] = ObjectLocks()
    assert locks.request("first", [A])
    assert locks.request("second", [B])


def test_first_come_first_served() -> None:
    locks: ObjectLocks[str] = ObjectLocks()
    assert locks.request("first", [A])
    assert not locks.request("second", [A, B])
    # "third" could have B now, but "second" was here before
    assert not locks.request("third", [B])
    assert locks.waiting() == 2
    assert locks.release("first") == ["second"]
    assert locks.release("second") == ["third"]
    assert locks.release("third") == []
    assert len(locks) == 0


def test_one_release_grants_several_in_the_order_they_came() -> None:
    locks: ObjectLocks[str] = ObjectLocks()
    locks.request("first", [A, B, C])
    for name, oid in (("x", C), ("y", A), ("z", B)):
        locks.request(name, [oid])
    assert locks.release("first") == ["x", "y", "z"]


def test_one_who_gives_up_waiting_makes_way() -> None:
    locks: ObjectLocks[str] = ObjectLocks()
    locks.request("first", [A])
    locks.request("second", [A, B])
    locks.request("third", [B])
    assert locks.release("second") == ["third"]
    assert locks.release("first") == []
    assert locks.holds("third")


def test_sharers_do_not_exclude_each_other_but_a_writer_does() -> None:
    locks: ObjectLocks[str] = ObjectLocks()
    assert locks.request("s1", [A], shared=[C])
    assert locks.request("s2", [B], shared=[C])
    assert not locks.request("writer", [C])
    # no overtaking: a stream of sharers must not starve the writer
    assert not locks.request("s3", [], shared=[C])
    assert locks.release("s1") == []
    assert locks.release("s2") == ["writer"]
    assert locks.release("writer") == ["s3"]


def test_a_waiting_writer_that_leaves_lets_the_sharers_behind_it_in() -> None:
    locks: ObjectLocks[str] = ObjectLocks()
    locks.request("s1", [], shared=[C])
    locks.request("writer", [C])
    locks.request("s2", [], shared=[C])
    locks.request("s3", [], shared=[C])
    assert locks.release("writer") == ["s2", "s3"]


def test_an_owner_asks_once() -> None:
    locks: ObjectLocks[str] = ObjectLocks()
    locks.request("first", [A])
    with pytest.raises(ValueError, match="first"):
        locks.request("first", [B])


def test_release_by_a_stranger_is_harmless() -> None:
    locks: ObjectLocks[str] = ObjectLocks()
    assert locks.release("nobody") == []


def test_a_request_for_nothing_is_granted() -> None:
    locks: ObjectLocks[str] = ObjectLocks()
    assert locks.request("empty", [])
    assert locks.release("empty") == []


OIDS = st.integers(0, 4).map(pack_id)


class LocksAgainstModel(RuleBasedStateMachine):
    """The model keeps requests in the order they came and works out from scratch who holds: whoever collides with
    nobody that came earlier and is still there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.locks: ObjectLocks[int] = ObjectLocks()
        self.requests: dict[int, tuple[frozenset[Oid], frozenset[Oid]]] = {}
        self.number = 0

    def holders(self) -> set[int]:
        found = set()
        earlier: list[tuple[Collection[Oid], Collection[Oid]]] = []
        for owner, (alone, shared) in self.requests.items():
            if not any((alone & (set(w) | set(s))) or (shared & set(w)) for w, s in earlier):
                found.add(owner)
            earlier.append((alone, shared))
        return found

    @rule(alone=st.frozensets(OIDS, max_size=4), shared=st.frozensets(OIDS, max_size=3))
    def request(self, alone: frozenset[Oid], shared: frozenset[Oid]) -> None:
        shared -= alone
        self.number += 1
        self.requests[self.number] = alone, shared
        granted = self.locks.request(self.number, sorted(alone), sorted(shared))
        assert granted == (self.number in self.holders())

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from(list(self.requests)))
        before = self.holders()
        del self.requests[owner]
        assert self.locks.release(owner) == sorted(self.holders() - before)

    @precondition(lambda self: any(alone for alone, _ in self.requests.values()))
    @rule(data=st.data())
    def keep_one(self, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from([owner for owner, (alone, _) in self.requests.items() if alone]))
        kept = data.draw(st.sampled_from(sorted(self.requests[owner][0])))
        before = self.holders()
        self.requests[owner] = frozenset([kept]), frozenset()
        assert self.locks.release(owner, keep=kept) == sorted(self.holders() - before)

    @precondition(lambda self: self.requests)
    @rule(alone=st.frozensets(OIDS, max_size=4), shared=st.frozensets(OIDS, max_size=3), data=st.data())
    def inherit(self, alone: frozenset[Oid], shared: frozenset[Oid], data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from(list(self.requests)))
        shared -= alone
        self.number += 1
        others = [each for other, each in self.requests.items() if other != owner]
        possible = (
            owner in self.holders()
            and not self.requests[owner][1]
            and self.requests[owner][0] <= alone
            and not any((alone - self.requests[owner][0]) & (a | s) or shared & a for a, s in others)
        )
        assert self.locks.inherit(self.number, owner, sorted(alone), sorted(shared)) == possible
        if possible:
            heir = {self.number: (alone, shared)}
            self.requests = {
                name: each
                for old, was in self.requests.items()
                for name, each in (heir if old == owner else {old: was}).items()
            }

    @invariant()
    def the_oldest_never_waits(self) -> None:
        # this is what "no deadlock" means here: as long as there is anybody, somebody holds all it asked for
        if self.requests:
            assert self.locks.holds(next(iter(self.requests)))

    @invariant()
    def agrees(self) -> None:
        holders = self.holders()
        assert all(self.locks.holds(owner) == (owner in holders) for owner in self.requests)
        assert self.locks.waiting() == len(self.requests) - len(holders)
        assert len(self.locks) == len({oid for pair in self.requests.values() for oids in pair for oid in oids})


TestLocksAgainstModel = LocksAgainstModel.TestCase
TestLocksAgainstModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_what_an_owner_covers() -> None:
    locks: ObjectLocks[str] = ObjectLocks()
    assert not locks.covers("a", (), ())
    assert locks.request("a", [A, B], [C])
    assert locks.covers("a", [A], [C, B])
    assert not locks.covers("a", [C], [])
    assert not locks.request("b", [A], [])
    assert not locks.covers("b", [A], [])


def test_who_waits_for_what_an_owner_has() -> None:
    locks: ObjectLocks[str] = ObjectLocks()
    locks.request("first", [A, B, C])
    assert locks.waited_for("first") == {}
    locks.request("second", [B])
    locks.request("third", [B, A])
    locks.request("sharer", [], [C])
    assert locks.waited_for("first") == {A: "third", B: "second"}
    assert locks.behind("first") == ["third"]
