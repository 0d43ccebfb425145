"""Snapshots and the hub: what a view sees, and what it is told, whatever is committed in between."""

import gc
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client.objects import write
from zeo_client import snapshot as snapshot_module
from zeo_client.snapshot import InvalidationHub, Snapshot
from zeo_core.errors import POSKeyError, ReadConflictError
from zeo_core.ids import ZERO_TID, Oid, Tid, pack_id, successor
from zeo_server.storages.mapping import MappingStorage

A, B, C = pack_id(1), pack_id(2), pack_id(3)


class Interrupted(MappingStorage):
    """A storage in which things happen right after its last tid was read, as if in another thread."""

    def __init__(self) -> None:
        super().__init__()
        self.then: Callable[[], object] | None = None

    def last_tid(self) -> Tid:
        last = super().last_tid()
        then, self.then = self.then, None
        if then is not None:
            then()
        return last


class World:
    """A storage, a hub, and commits by somebody without a snapshot."""

    def __init__(self) -> None:
        self.storage = Interrupted()
        self.hub = InvalidationHub()

    def commit(self, *oids: Oid, data: bytes = b"data") -> Tid:
        return write(self.storage, dict.fromkeys(oids, data), lambda tid: self.hub.invalidate(tid, oids))

    def snapshot(self) -> Snapshot:
        return Snapshot(self.storage, self.hub)


@pytest.fixture
def world() -> World:
    return World()


def test_the_first_view_takes_everything_for_changed(world: World) -> None:
    tid = world.commit(A)
    view = world.snapshot()
    assert view.advance() is None
    assert view.start == successor(tid)
    assert view.advance() == set()


def test_a_view_stands_still_until_it_is_told_to_move(world: World) -> None:
    old = world.commit(A, data=b"old")
    view = world.snapshot()
    view.advance()
    new = world.commit(A, B, data=b"new")
    assert view.load(A) == (b"old", old)
    assert view.advance() == {A, B}
    assert view.load(A) == (b"new", new)


def test_each_change_is_handed_over_once(world: World) -> None:
    view = world.snapshot()
    view.advance()
    world.commit(A)
    world.commit(A, B)
    assert view.advance() == {A, B}
    assert view.advance() == set()


def test_a_commit_while_the_last_tid_is_read_is_in_the_view_and_in_the_set(world: World) -> None:
    world.commit(A)
    view = world.snapshot()
    view.advance()
    world.storage.then = lambda: world.commit(A, B)
    assert view.advance() == {A, B}
    assert view.start == successor(world.storage.last_tid())


def test_a_commit_without_oids_moves_the_view(world: World) -> None:
    view = world.snapshot()
    view.advance()
    tid = world.commit()
    assert view.advance() == set()
    assert view.start == successor(tid)


def test_a_last_tid_that_moves_in_silence_means_that_anything_may_have_changed(world: World) -> None:
    view = world.snapshot()
    view.advance()
    write(world.storage, {A: b"behind the back"})
    assert view.advance() is None
    assert view.advance() == set()


def test_a_reconnection_in_the_middle_of_a_move_is_not_forgotten(world: World) -> None:
    """The client says invalidateCache, then moves its last tid: a view may look at the storage in between (B9)."""
    old = world.commit(A)
    view = world.snapshot()
    view.advance()
    world.storage.then = world.hub.invalidateCache
    assert view.advance() is None
    assert view.start == successor(old)
    write(world.storage, {A: b"what was missed while disconnected"})
    world.commit(B)
    assert view.advance() is None
    world.commit(B)
    assert view.advance() == {B}


def test_the_committer_is_not_told_of_its_own_changes(world: World) -> None:
    mine, other = world.snapshot(), world.snapshot()
    mine.advance(), other.advance()
    tid = write(world.storage, {A: b"1"}, lambda tid: world.hub.committed(tid, [A], mine))
    assert mine.advance() == set()
    assert other.advance() == {A}
    assert mine.start == other.start == successor(tid)


def test_too_many_changes_are_everything(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "MAX_PENDING", 2)
    view = world.snapshot()
    view.advance()
    world.commit(A, B)
    world.commit(C)
    assert view.advance() is None
    assert view.advance() == set()


def test_a_view_is_told_nothing_after_it_was_unregistered(world: World) -> None:
    view = world.snapshot()
    view.advance()
    world.hub.unregister(view)
    world.hub.invalidate(pack_id(2**60), [A])
    assert view.advance() == set()


def test_the_hub_keeps_no_view_alive(world: World) -> None:
    for _ in range(3):
        world.snapshot()
    gc.collect()
    assert len(world.hub._listeners) == 0


def test_an_object_that_is_newer_than_the_view_is_a_read_conflict(world: World) -> None:
    world.commit(B)
    view = world.snapshot()
    view.advance()
    world.commit(A)
    with pytest.raises(ReadConflictError, match=r"object 0x01 has no revision .*begin a new transaction") as info:
        view.load(A)
    assert info.value.oid == A


def test_an_object_that_is_newer_than_an_empty_database(world: World) -> None:
    view = world.snapshot()
    view.advance()
    world.commit(A)
    with pytest.raises(ReadConflictError, match="newer than this empty state"):
        view.load(A)


def test_an_unknown_object_is_a_key_error(world: World) -> None:
    view = world.snapshot()
    view.advance()
    with pytest.raises(POSKeyError):
        view.load(A)


class Reader:
    """A view with a cache that keeps what it loaded until it is told to forget it, as a Connection's does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.view = world.snapshot()
        self.cache: dict[Oid, tuple[bytes, Tid]] = {}
        self.advance()

    def advance(self) -> None:
        changed = self.view.advance()
        for oid in list(self.cache) if changed is None else changed:
            self.cache.pop(oid, None)

    def commit(self, records: dict[Oid, bytes]) -> None:
        self.advance()  # a conflict would be found otherwise, which is not what this is about
        tid = write(self.world.storage, records, lambda tid: self.world.hub.committed(tid, records, self.view))
        self.cache.update({oid: (data, tid) for oid, data in records.items()})

    def check(self) -> None:
        """Read everything: what is cached must be what the storage has for this view's state."""
        for oid in (A, B, C):
            revision = self.world.storage.load_before(oid, self.view.start)
            assert revision is not None
            assert self.cache.setdefault(oid, revision[:2]) == revision[:2]


oids = st.lists(st.sampled_from([A, B, C]), unique=True).map(tuple)
happenings = st.tuples(st.sampled_from(["commit", "own commit", "reconnect", "look"]), oids)
steps = st.lists(st.tuples(happenings, st.booleans()), max_size=12)


@given(steps=steps)
@settings(max_examples=200, deadline=None)
def test_a_cache_that_forgets_what_it_is_told_to_never_lies(
    steps: list[tuple[tuple[str, tuple[Oid, ...]], bool]],
) -> None:
    world = World()
    world.commit(A, B, C)
    reader, committer = Reader(world), Reader(world)
    for number, ((what, oids), while_reading) in enumerate(steps):
        records = dict.fromkeys(oids, b"%d" % number)
        happen: Callable[[], object] = partial(world.commit, *oids, data=b"%d" % number)
        if what == "own commit":
            happen = partial(committer.commit, records)
        elif what == "reconnect":
            happen = world.hub.invalidateCache
        if what != "look":
            if while_reading:
                world.storage.then = happen
            else:
                happen()
        reader.advance()
        reader.check()
        if what == "reconnect":  # which moves the last tid without saying why, after invalidateCache
            write(world.storage, records)
        if what == "look":
            committer.advance()
            committer.check()


def test_zero_is_where_an_empty_database_starts(world: World) -> None:
    view = world.snapshot()
    view.advance()
    assert view.start == successor(ZERO_TID)
