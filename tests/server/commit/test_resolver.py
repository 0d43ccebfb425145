"""Resolving conflicts on the server."""

import asyncio
import zlib

import pytest
from BTrees.Length import Length

from tests.contract.storages import commit
from tests.core import test_protobuf_resolve as messages
from tests.core.test_resolve import Counter, record, state_of
from tests.server.commit.test_coordinator import Recorder
from zeo_core.errors import StorageError
from zeo_core.ids import ZERO_TID, Oid, Tid, pack_id
from zeo_core.transaction import Revision
from zeo_server.allow_list import AllowList
from zeo_server.commit.coordinator import Coordinator
from zeo_server.commit.resolver import AT_ONCE_MAX_BYTES, MERGED_AT_ONCE_MAX_BYTES, Resolver
from zeo_server.commit.transaction import Conflict
from zeo_server.storages.mapping import MappingStorage

A = pack_id(1)


def length(value: int) -> bytes:
    return record(Length, value)


@pytest.fixture
def storage() -> MappingStorage:
    return MappingStorage()


@pytest.fixture
def resolver(storage: MappingStorage) -> Resolver:
    return Resolver(storage.load_before, AllowList())


@pytest.fixture
def conflict(storage: MappingStorage) -> Conflict:
    """One began with 10, another has stored 15, now 12 is to be stored."""
    read = commit(storage, {A: length(10)})
    committed = commit(storage, {A: length(15)})
    return Conflict(A, committed, read, length(12))


def test_both_changes_are_kept(storage: MappingStorage, resolver: Resolver, conflict: Conflict) -> None:
    assert resolver.can(conflict)
    for resolved in (resolver.resolve(conflict), resolver.resolve_at_once(conflict, storage.load_before)):
        assert resolved is not None
        assert state_of(resolved) == 17


def test_only_of_classes_on_the_list(resolver: Resolver, conflict: Conflict) -> None:
    assert not resolver.can(conflict._replace(data=record(Counter, {"n": 1})))
    assert not resolver.can(conflict._replace(data=b"no record"))
    assert not resolver.can(conflict._replace(data=None))
    assert not resolver.can(conflict._replace(read=ZERO_TID))


def test_no_class_beside_the_list_is_loaded_from_a_state(resolver: Resolver, conflict: Conflict) -> None:
    forged = length(12)[:-1] + b"cos\nsystem\n(S'touch /tmp/forged'\ntR."
    assert resolver.resolve(conflict._replace(data=forged)) is None


def test_states_that_are_gone(resolver: Resolver, conflict: Conflict) -> None:
    assert resolver.resolve(conflict._replace(read=pack_id(5))) is None
    assert resolver.resolve(conflict._replace(oid=pack_id(9))) is None


def test_what_could_hold_up_the_loop_is_not_done_in_it(
    storage: MappingStorage, resolver: Resolver, conflict: Conflict
) -> None:
    def cold(_oid: Oid, _tid: Tid) -> Revision | None:
        raise BlockingIOError

    with pytest.raises(BlockingIOError):
        resolver.resolve_at_once(conflict, cold)
    large = conflict._replace(data=length(12) + b" " * AT_ONCE_MAX_BYTES)
    with pytest.raises(BlockingIOError):
        resolver.resolve_at_once(large, storage.load_before)


class Unreadable(MappingStorage):
    """A storage that can fail to read what is committed, in the loop or only in a thread."""

    def __init__(self, *, in_thread: bool) -> None:
        super().__init__()
        self.broken = False
        self._in_thread = in_thread

    def load_before(self, oid: Oid, tid: Tid) -> Revision | None:
        if self.broken:
            raise StorageError("the disk cannot be read")
        return super().load_before(oid, tid)

    def load_cached(self, oid: Oid, tid: Tid) -> Revision | None:
        if self._in_thread:
            raise BlockingIOError
        return self.load_before(oid, tid)


@pytest.mark.parametrize("in_thread", [False, True])
async def test_what_cannot_be_read_refuses_the_vote_and_frees_the_locks(in_thread: bool) -> None:
    storage = Unreadable(in_thread=in_thread)
    coordinator = Coordinator(storage, asyncio.get_running_loop())
    ann, bob = Recorder(coordinator), Recorder(coordinator)
    first = await ann.commit(1, (A, ZERO_TID, length(1)))
    second = await ann.commit(2, (A, first, length(2)))
    storage.broken = True
    bob.begin(1, (A, first, length(3)))
    bob.vote(1)
    refused = await bob.answer(1)
    assert isinstance(refused, StorageError)
    assert "cannot be read" in str(refused)
    storage.broken = False
    await ann.commit(3, (A, second, length(4)))
    await coordinator.close()


CONTACT = {"app.contacts.PContact": messages.SETS}


def test_messages_of_a_known_schema_are_merged_without_their_class(storage: MappingStorage) -> None:
    read, committed = commit(storage, {A: messages.OLD}), commit(storage, {A: messages.COMMITTED})
    conflict = Conflict(A, committed, read, messages.NEW)
    assert not Resolver(storage.load_before, AllowList()).can(conflict)
    resolver = Resolver(storage.load_before, AllowList([], CONTACT))
    assert resolver.can(conflict)
    expected = {"guardians": [messages.ALICE, messages.BOB, messages.CAROL, messages.DAVE], "spouse": 0, "name": "B"}
    for resolved in (resolver.resolve(conflict), resolver.resolve_at_once(conflict, storage.load_before)):
        assert resolved is not None
        assert messages.shown(resolved) == expected
    assert resolver.resolve(conflict._replace(data=messages.NEW[:-1])) is None


def test_pickles_of_a_class_that_is_merged_are_left_to_the_client(storage: MappingStorage) -> None:
    """It was pickled before it came to have a message; the class itself may know what to do."""
    resolver = Resolver(storage.load_before, AllowList([], {f"{Counter.__module__}.Counter": messages.SETS}))
    assert not resolver.can(Conflict(A, pack_id(2), pack_id(1), record(Counter, {"n": 1})))


def test_compressed_records_are_for_a_thread(storage: MappingStorage) -> None:
    old, committed, new = (b".z" + zlib.compress(data) for data in (messages.OLD, messages.COMMITTED, messages.NEW))
    serials = commit(storage, {A: old}), commit(storage, {A: committed})
    conflict = Conflict(A, serials[1], serials[0], new)
    resolver = Resolver(storage.load_before, AllowList([], CONTACT))
    with pytest.raises(BlockingIOError):
        resolver.resolve_at_once(conflict, storage.load_before)
    resolved = resolver.resolve(conflict)
    assert resolved is not None
    assert messages.shown(resolved)["name"] == "B"


def test_large_messages_are_for_a_thread(storage: MappingStorage) -> None:
    many = list(range(1000, 1000 + MERGED_AT_ONCE_MAX_BYTES // 40))
    read, committed = commit(storage, {A: messages.record(many)}), commit(storage, {A: messages.record([*many, 1])})
    conflict = Conflict(A, committed, read, messages.record([*many, 2]))
    resolver = Resolver(storage.load_before, AllowList([], CONTACT))
    with pytest.raises(BlockingIOError):
        resolver.resolve_at_once(conflict, storage.load_before)
    resolved = resolver.resolve(conflict)
    assert resolved is not None
    assert messages.shown(resolved)["guardians"] == [*many, 1, 2]
