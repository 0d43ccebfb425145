from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zeo_client.cache.disk import DiskCache, Known, Reached
from zeo_client.cache.layered import LayeredCache
from zeo_client.cache.memory import MemoryCache
from zeo_core.ids import Oid, Tid, pack_id, successor
from zeo_core.transaction import Revision

A, B = pack_id(1), pack_id(2)
T1, T2, T3, T4 = (pack_id(number) for number in range(11, 15))


class Interrupted(DiskCache):
    """A disk cache during whose reading something else happens."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "one", 1_000_000, background=False)
        self.meanwhile: Callable[[], None] = lambda: None

    def reach(self, oid: Oid, tid: Tid) -> Reached | None:
        found = super().reach(oid, tid)
        self.meanwhile()
        return found

    def load_ahead(self, reached: Reached, tid: Tid) -> list[tuple[Oid, Known]]:
        found = super().load_ahead(reached, tid)
        self.meanwhile()
        return found


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Interrupted]:
    disk = Interrupted(str(tmp_path))
    yield disk
    disk.close()


@pytest.fixture
def memory() -> MemoryCache:
    return MemoryCache(100_000)


@pytest.fixture
def cache(memory: MemoryCache, disk: Interrupted) -> LayeredCache:
    """A cache of a client that was begun anew: A is on the disk, and not in memory."""
    cache = LayeredCache(memory, disk)
    cache.advance(cache.catch_up(T2, lambda _known: None))
    disk.store(A, Revision(b"a", T1, None))
    disk.flush()
    return cache


def test_what_is_found_on_the_disk_is_kept_in_memory(cache: LayeredCache, memory: MemoryCache) -> None:
    assert cache.load_before(A, T3) == (b"a", T1, None)
    assert memory.load_before(A, T3) == (b"a", T1, None)
    assert cache.load_before(B, T3) is None
    assert cache.load_serial(A, T1) == (b"a", T1, None)
    stats = cache.stats()
    assert (stats["revisions"], stats["disk_hits"], stats["disk_misses"]) == (1, 1, 1)


def test_a_serial_is_found_on_the_disk(cache: LayeredCache) -> None:
    assert cache.load_serial(A, T1) == (b"a", T1, None)
    assert cache.load_serial(A, T2) is None


def test_what_is_stored_is_in_both(cache: LayeredCache, memory: MemoryCache, disk: Interrupted) -> None:
    cache.store(B, Revision(b"b", T2, None))
    disk.flush()
    assert memory.load_before(B, T3) == (b"b", T2, None)
    assert disk.load_before(B, T3) == ((b"b", T2, None), T2)


def test_a_change_is_heard_while_the_disk_is_read(cache: LayeredCache, memory: MemoryCache, disk: Interrupted) -> None:
    """Lesson B1: what was read is of the time before it, and not to be kept as current."""
    disk.meanwhile = lambda: cache.invalidate(T3, [A])
    assert cache.load_before(A, T3) == (b"a", T1, None)
    disk.meanwhile = lambda: None
    cache.advance(T3)
    assert memory.load_before(A, successor(T3)) is None
    assert cache.load_before(A, successor(T3)) is None
    disk.flush()
    assert cache.load_before(A, T3) == (b"a", T1, T3)


def test_the_history_is_another_after_the_disk_is_read(
    cache: LayeredCache, memory: MemoryCache, disk: Interrupted
) -> None:
    def connect_anew() -> None:
        cache.advance(cache.catch_up(T1, lambda _known: None))

    disk.meanwhile = connect_anew
    cache.load_before(A, T3)
    disk.meanwhile = lambda: None
    assert memory.load_before(A, T2) is None
    assert cache.load_before(A, T2) is None


def test_each_is_brought_up_from_where_it_is(cache: LayeredCache, memory: MemoryCache, disk: Interrupted) -> None:
    memory.store(B, Revision(b"b", T2, None))
    memory.advance(T3)
    asked = []

    def ask(known: Tid) -> tuple[Tid, list[Oid]]:
        asked.append(known)
        return T4, [B]

    assert cache.catch_up(T3, ask) == T4
    assert asked == [T3, T2]
    cache.advance(T4)
    assert cache.load_before(A, successor(T4)) == (b"a", T1, None)
    assert cache.load_before(B, T3) is None


def test_both_are_known_to_be_as_far_as_the_one_that_is_behind(cache: LayeredCache, memory: MemoryCache) -> None:
    memory.advance(T1)
    assert cache.catch_up(T2, lambda known: (T4, []) if known == T1 else (T2, [])) == T2
    cache.invalidate(T3, [A])
    cache.advance(T3)
    assert cache.load_before(A, successor(T3)) is None


def test_who_walks_finds_the_rest_in_memory(cache: LayeredCache, memory: MemoryCache, disk: Interrupted) -> None:
    oids = [pack_id(number) for number in range(100, 110)]
    for oid in oids:
        disk.store(oid, Revision(oid, T1, None))
    disk.flush()
    for oid in oids:
        assert cache.load_before(oid, T3) == (oid, T1, None)
    assert cache.stats()["disk_hits"] == 4  # 0, 1 with 2 and 3, 4 with 5 to 8, 9


def test_a_change_is_heard_while_the_disk_is_read_ahead(
    cache: LayeredCache, memory: MemoryCache, disk: Interrupted
) -> None:
    oids = [pack_id(number) for number in range(100, 104)]
    for oid in oids:
        disk.store(oid, Revision(oid, T1, None))
    disk.flush()
    cache.load_before(oids[0], T3)
    disk.meanwhile = lambda: cache.invalidate(T3, [oids[3]])
    cache.load_before(oids[1], T3)
    assert memory.load_before(oids[3], T4) is None
    cache.advance(T3)
    assert cache.load_before(oids[3], T4) is None
