"""A storage of another server: what it answers is as of what is shown, whatever has arrived."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from tests.client.peer import until
from tests.server.in_process import InProcess, in_process
from tests.server.relay import commit
from zeo_client.storage import ClientStorage
from zeo_core.errors import ClientDisconnected, POSKeyError, ReadOnlyError, UndoError
from zeo_core.ids import MAX_TID, ZERO_TID, Oid, Tid, pack_id, successor
from zeo_core.storage import HasBlobs, Iterates, LoadsCached, Packs, Prefetches, Spools, Undoes
from zeo_core.transaction import Revision, TransactionMetadata
from zeo_core.upstream import UpstreamTransaction
from zeo_server.storages.mapping import MappingStorage
from zeo_server.storages.relayed import THREADS, RelayedStorage, load_threads

A, B, C = pack_id(1), pack_id(2), pack_id(3)


class Sink:
    """Hears, and shows nothing."""

    def __init__(self) -> None:
        self.heard: list[Tid] = []

    def invalidate(self, tid: Tid, oids: Sequence[Oid]) -> None:
        self.heard.append(tid)

    def in_turn(self, show: Callable[[], None]) -> None:
        show()

    def invalidateCache(self) -> None:  # noqa: N802
        self.heard.append(ZERO_TID)


@contextmanager
def relayed(server: InProcess, sink: Sink, cache_size: int = 1_000_000) -> Iterator[RelayedStorage]:
    assert isinstance(server.address, tuple)
    storage = RelayedStorage(ClientStorage(server.address, cache_size=cache_size), read_only=True)
    try:
        storage.follow(sink)
        yield storage
    finally:
        storage.close()


@pytest.fixture
def server() -> Iterator[InProcess]:
    with in_process({"1": MappingStorage()}) as serving:
        yield serving


def test_what_it_can_do_is_read_off_its_class(server: InProcess) -> None:
    with relayed(server, Sink()) as storage:
        for capability in (LoadsCached, Prefetches, Iterates, Undoes, Packs, Spools):
            assert isinstance(storage, capability), capability
        assert not isinstance(storage, HasBlobs)


def test_what_has_arrived_is_not_seen_before_it_is_shown(server: InProcess) -> None:
    first = commit(server, A, B, data=b"old")
    sink = Sink()
    with relayed(server, sink) as storage:
        assert storage.last_tid() == first
        second = commit(server, A, data=b"new")
        until(lambda: sink.heard == [second])

        assert storage.load_before(A, MAX_TID) == Revision(b"old", first, None)
        assert storage.load_cached(A, MAX_TID) == Revision(b"old", first, None)
        assert storage.load_before(B, MAX_TID) == Revision(b"old", first, None)
        assert [entry.tid for entry in storage.revisions(A, 10)] == [first]
        assert [entry.tid for entry in storage.transactions()] == [first]
        assert [entry.tid for entry in storage.undo_log()] == [first]
        with pytest.raises(POSKeyError):
            storage.load_serial(A, second)

        storage.show(second, [A])
        assert storage.last_tid() == second
        assert storage.load_before(A, MAX_TID) == Revision(b"new", second, None)
        assert storage.load_before(A, second) == Revision(b"old", first, second)
        assert storage.load_serial(A, second) == b"new"
        assert [entry.tid for entry in storage.revisions(A, 10)] == [second, first]
        assert [entry.tid for entry in storage.transactions(second)] == [second]


def test_the_loop_does_not_wait_for_what_is_not_in_memory(server: InProcess) -> None:
    tid = commit(server, A, B, C)
    with relayed(server, Sink()) as storage:
        with pytest.raises(BlockingIOError):
            storage.load_cached(A, MAX_TID)
        storage.prefetch([A, B], MAX_TID)
        assert storage.load_cached(A, MAX_TID) == storage.load_cached(B, MAX_TID) == Revision(b"data", tid, None)
        with pytest.raises(BlockingIOError):
            storage.load_cached(C, MAX_TID)


def test_what_has_no_room_in_the_cache_is_at_hand_once(server: InProcess) -> None:
    tid = commit(server, A, data=b"x" * 5000)
    with relayed(server, Sink(), cache_size=1000) as storage:
        for _ in range(2):
            storage.load_before(A, MAX_TID)
            assert storage.load_cached(A, MAX_TID) == Revision(b"x" * 5000, tid, None)
            with pytest.raises(BlockingIOError):
                storage.load_cached(A, MAX_TID)
        storage.load_before(A, MAX_TID)
        with pytest.raises(BlockingIOError):
            storage.load_cached(A, tid)  # before it was there


def test_what_does_not_exist_is_at_hand_once(server: InProcess) -> None:
    tid = commit(server, A)
    with relayed(server, Sink()) as storage:
        assert storage.load_before(A, tid) is None
        assert storage.load_cached(A, tid) is None
        with pytest.raises(POSKeyError):
            storage.load_before(B, MAX_TID)
        with pytest.raises(POSKeyError):
            storage.load_cached(B, MAX_TID)
        with pytest.raises(BlockingIOError):
            storage.load_cached(B, MAX_TID)


def test_no_more_is_kept_at_hand_than_threads_can_bring(server: InProcess) -> None:
    commit(server, A)
    with relayed(server, Sink()) as storage:
        for number in range(10, 11 + THREADS):
            with pytest.raises(POSKeyError):
                storage.load_before(pack_id(number), MAX_TID)
        with pytest.raises(BlockingIOError):
            storage.load_cached(pack_id(10), MAX_TID)
        with pytest.raises(POSKeyError):
            storage.load_cached(pack_id(11), MAX_TID)


class Interrupted(ClientStorage):
    """Something happens right after each load."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.then: Callable[[], object] = lambda: None
        super().__init__(address, cache_size=1000)

    def load_before(self, oid: Oid, tid: Tid) -> Revision | None:
        revision = super().load_before(oid, tid)
        self.then()
        return revision


@pytest.mark.parametrize("shown", [[A], None], ids=["changed", "anything changed"])
def test_what_changed_while_it_was_loaded_is_not_kept_at_hand(server: InProcess, shown: list[Oid] | None) -> None:
    commit(server, A, data=b"x" * 5000)
    assert isinstance(server.address, tuple)
    client = Interrupted(server.address)
    storage = RelayedStorage(client)
    try:
        storage.follow(Sink())
        client.then = lambda: storage.show(storage.last_tid(), [B])
        storage.load_before(A, MAX_TID)
        assert storage.load_cached(A, MAX_TID) is not None
        client.then = lambda: storage.show(storage.last_tid(), shown)
        storage.load_before(A, MAX_TID)
        with pytest.raises(BlockingIOError):
            storage.load_cached(A, MAX_TID)
    finally:
        storage.close()


def test_what_changes_is_at_hand_no_more(server: InProcess) -> None:
    first = commit(server, A, data=b"x" * 5000)
    with relayed(server, Sink(), cache_size=1000) as storage:
        storage.load_before(A, MAX_TID)
        second = commit(server, A, data=b"y" * 5000)
        storage.show(second, [A])
        with pytest.raises(BlockingIOError):
            storage.load_cached(A, MAX_TID)
        until(lambda: storage.load_before(A, MAX_TID) == Revision(b"y" * 5000, second, None))
        assert storage.load_before(A, successor(first)) == Revision(b"x" * 5000, first, second)


def test_what_was_missed_is_asked_for(server: InProcess) -> None:
    first = commit(server, A, B)
    with relayed(server, Sink()) as storage:
        second, third = commit(server, A), commit(server, C)
        tid, oids = storage.missed()
        assert tid == third
        assert oids is not None
        assert set(oids) == {A, C}
        changes = storage.changes_since(second)
        assert changes is not None
        assert (changes[0], list(changes[1])) == (third, [C])
        storage.show(pack_id(17), None)  # no transaction of that server
        assert storage.missed() == (third, None)
        assert storage.changes_since(pack_id(17)) is None
        assert first < second


def test_a_replica_is_not_written_to(server: InProcess) -> None:
    commit(server, A)
    with relayed(server, Sink()) as storage:
        assert storage.read_only()
        for refused in (
            lambda: storage.new_oids(1),
            lambda: storage.begin(UpstreamTransaction(TransactionMetadata()), None, b" "),
            lambda: list(storage.pack_steps(0.0)),
        ):
            with pytest.raises(ReadOnlyError, match="write to the server itself"):
                refused()
        with pytest.raises(UndoError):
            storage.undo_writes(pack_id(1), {})


def test_what_the_server_tells_of_itself_is_passed_on(server: InProcess) -> None:
    tid = commit(server, A, B)
    with relayed(server, Sink()) as storage:
        assert storage.name().endswith("/1")
        assert (storage.object_count(), storage.byte_size()) == (2, server.ask(lambda: size_of(server)))
        assert storage.record_iternext()[:3] == (A, tid, b"data")
        assert set(storage.link.memory_stats()) >= {"hits", "misses", "bytes"}


def size_of(server: InProcess) -> int:
    return server.service.storages["1"].storage.byte_size()


def test_nothing_is_served_before_anything_is_known() -> None:
    with in_process() as gone:
        address = gone.address
    assert isinstance(address, tuple)
    storage = RelayedStorage(ClientStorage(address, wait=False))
    try:
        storage.follow(Sink())
        with pytest.raises(ClientDisconnected, match=str(address[1])):
            storage.check_serving()
    finally:
        storage.close()


def test_threads_of_its_own(server: InProcess) -> None:
    assert load_threads(MappingStorage()) is None
    with relayed(server, Sink()) as storage:
        storage.check_serving()
        assert load_threads(storage) is storage.threads
