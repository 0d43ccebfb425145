"""One handle, and two on one file; test_disk_model.py has the rest of it beside the truth."""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.client.peer import until
from zeo_client.cache.disk import DiskCache
from zeo_core.ids import ZERO_TID, Oid, Tid, pack_id, successor
from zeo_core.transaction import Revision

A, B = pack_id(1), pack_id(2)
T1, T2, T3, T4 = (pack_id(number) for number in range(11, 15))

Open = Callable[..., DiskCache]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    disks = []

    def open_disk(tid: Tid | None = T1, changed: Sequence[Oid] = (), **options: bool) -> DiskCache:
        """Open it and, unless `tid` is None, verify it: up to `tid`, these oids have changed."""
        disk = DiskCache(str(tmp_path / "cache"), "one", 1_000_000, **{"background": False} | options)
        disks.append(disk)
        if tid is not None:
            assert disk.catch_up(tid, lambda _known: (tid, changed)) == tid
        return disk

    yield open_disk
    for disk in disks:
        disk.close()


def test_nothing_is_answered_before_it_is_verified(opened: Open) -> None:
    """Lesson B10."""
    disk = opened()
    disk.store(A, Revision(b"a", T1, None))
    disk.close()
    disk = opened(None)
    assert disk.load_before(A, T2) is None
    assert disk.load_serial(A, T1) is None
    disk.store(B, Revision(b"b", T1, None))
    disk.invalidate(T2, [A])
    disk.flush()
    disk.catch_up(T1, lambda _known: (T1, ()))
    assert disk.load_before(A, T2) == ((b"a", T1, None), T1)
    assert disk.load_serial(A, T1) == (b"a", T1, None)
    assert disk.load_before(B, T2) is None


def test_it_survives_a_restart_without_what_changed(opened: Open) -> None:
    disk = opened()
    for oid in (A, B):
        disk.store(oid, Revision(b"x", T1, None))
    disk.close()
    disk = opened(T3, [B])
    assert disk.load_before(A, successor(T3)) == ((b"x", T1, None), T3)
    assert disk.load_before(B, T2) is None
    assert disk.stats()["hits"] == disk.stats()["misses"] == 1


def test_it_is_asked_up_to_where_it_knows(opened: Open) -> None:
    disk = opened()
    disk.invalidate(T3, [])
    disk.close()
    asked = []

    def ask(known: Tid) -> tuple[Tid, Sequence[Oid]]:
        asked.append(known)
        return T4, ()

    assert opened(None).catch_up(T4, ask) == T4
    assert asked == [T3]


def test_it_is_dropped_if_the_server_cannot_tell(opened: Open) -> None:
    disk = opened()
    disk.store(A, Revision(b"a", T1, None))
    disk.close()
    disk = opened(None)
    assert disk.catch_up(T3, lambda _known: None) == T3
    assert disk.load_before(A, T2) is None
    assert disk.load_before(A, successor(T3)) is None


def test_an_empty_database_has_a_cache_too(opened: Open) -> None:
    first, second = opened(ZERO_TID), opened(ZERO_TID)
    for disk in (first, second):
        disk.invalidate(T1, [A])
    first.store(A, Revision(b"a", T1, None))
    first.flush()
    assert second.load_before(A, T2) == ((b"a", T1, None), T1)


def test_a_change_holds_before_it_is_written(opened: Open) -> None:
    disk = opened()
    disk.store(A, Revision(b"a", T1, None))
    disk.store(B, Revision(b"b", T1, None))
    disk.flush()
    disk.invalidate(T2, [A])
    assert disk.load_before(A, successor(T2)) is None
    assert disk.load_before(A, T2) == ((b"a", T1, None), T1)
    assert disk.load_before(B, successor(T2)) == ((b"b", T1, None), T2)
    disk.flush()
    assert disk.load_before(A, T2) == ((b"a", T1, T2), T2)


def test_the_slower_of_two_processes(opened: Open) -> None:
    """It is not to make current again what the faster has ended, nor to be given what it has not heard of."""
    slow, fast = opened(), opened()
    slow.store(A, Revision(b"a", T1, None))  # the answer came before the change, and is written after it
    fast.invalidate(T2, [A])
    fast.store(A, Revision(b"aa", T2, None))
    fast.flush()
    slow.flush()
    assert slow.load_before(A, T2) is None
    assert slow.load_before(A, successor(T2)) == ((b"aa", T2, None), T2)  # which is what was asked for
    slow.invalidate(T2, [A])
    slow.flush()
    assert slow.load_before(A, T2) == ((b"a", T1, T2), T2)


def test_a_process_that_is_not_verified_with_the_others_history(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    """Lesson B12: the server came back from a backup, and this one has not noticed yet."""
    old, new = opened(), opened()
    old.store(A, Revision(b"lost", T1, None))
    old.flush()
    new.catch_up(T3, lambda _known: None)
    new.store(A, Revision(b"new", T3, None))
    new.flush()
    assert old.load_before(A, T2) is None
    assert old.load_before(A, successor(T3)) is None
    old.store(B, Revision(b"lost", T1, None))
    old.flush()
    assert "another history" in caplog.text
    assert new.load_before(B, T4) is None
    old.catch_up(T3, lambda _known: (T3, ()))
    assert old.load_before(A, successor(T3)) == ((b"new", T3, None), T3)


def test_two_that_verify_at_once(opened: Open) -> None:
    first, second = opened(), opened(None)

    def ask(_known: Tid) -> None:
        if not cleared:  # the first is quicker
            cleared.append(first.catch_up(T3, lambda _known: None))

    cleared: list[Tid] = []
    assert second.catch_up(T3, lambda known: (T3, ()) if known == T3 else ask(known)) == T3
    first.store(A, Revision(b"a", T3, None))
    first.flush()
    assert second.load_before(A, T4) == ((b"a", T3, None), T3)


def test_large_records_are_left_out(opened: Open) -> None:
    disk = opened()
    disk.store(A, Revision(bytes(300_000), T1, None))
    disk.flush()
    assert disk.load_before(A, T2) is None


def test_what_waits_too_long_is_dropped_and_counted(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeo_client.cache.notes.NOTES_MAX_BYTES", 100_000)
    disk = opened()
    for number in range(4):
        disk.store(pack_id(number), Revision(bytes(40_000), T1, None))
    assert disk.stats()["dropped"] == 2
    disk.flush()
    assert disk.load_before(pack_id(0), T2) is not None
    assert disk.load_before(pack_id(3), T2) is None


def test_the_disk_of_another_is_busy(opened: Open, tmp_path: Path) -> None:
    disk = opened()
    other = sqlite3.connect(tmp_path / "cache" / "1.cache", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    disk.store(A, Revision(b"a", T1, None))
    disk.flush()
    other.execute("ROLLBACK")
    other.close()
    assert disk.load_before(A, T2) is None
    disk.flush()
    assert disk.load_before(A, T2) == ((b"a", T1, None), T1)


def test_a_file_that_is_damaged_while_it_is_used(
    opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = opened()
    disk.store(A, Revision(b"a", T1, None))
    disk.flush()
    with sqlite3.connect(tmp_path / "cache" / "1.cache") as other:
        other.execute("UPDATE header SET mark = ?", (b"x" * 28,))
    other.close()
    assert disk.load_before(A, T2) is None
    assert "not used until the next connection" in caplog.text
    assert disk.load_before(A, T2) is None
    disk.catch_up(T1, lambda _known: (T1, ()))
    assert (tmp_path / "cache" / "2.cache").exists()
    disk.store(A, Revision(b"a", T1, None))
    disk.flush()
    assert disk.load_before(A, T2) == ((b"a", T1, None), T1)


def test_a_directory_that_is_taken_away(opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = opened(None)
    (tmp_path / "cache").rmdir()
    (tmp_path / "cache").touch()
    assert disk.catch_up(T1, lambda _known: (T1, ())) == T1
    assert "not used on this connection" in caplog.text
    disk.store(A, Revision(b"a", T1, None))
    assert disk.load_before(A, T2) is None
    assert disk.stats()["bytes"] == 0


def test_a_thread_writes(opened: Open) -> None:
    disk = opened(background=True)
    disk.store(A, Revision(b"a", T1, None))
    found = until(lambda: disk.load_before(A, T2))
    assert found == ((b"a", T1, None), T1)
    disk.close()
    disk.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("zeod cache")]
    assert disk.load_before(A, T2) is None


def walked(disk: DiskCache, oids: Sequence[Oid], before: Tid) -> list[tuple[Oid, Revision]]:
    """Read rows in this order, and return what was read ahead."""
    ahead = []
    for oid in oids:
        reached = disk.reach(oid, before)
        assert reached is not None
        if reached.rows_ahead:
            ahead += [(other, known.revision) for other, known in disk.load_ahead(reached, before)]
    return ahead


def test_a_walk_brings_what_lies_ahead(opened: Open) -> None:
    disk = opened()
    oids = [pack_id(number) for number in range(20)]
    for oid in oids:
        disk.store(oid, Revision(oid, T1, None))
    disk.flush()
    assert walked(disk, oids[:1] + oids[5:6] + oids[3:4], T2) == []
    assert [oid for oid, _ in walked(disk, [oids[6], oids[9]], T2)] == [*oids[7:9], *oids[10:14]]


def test_only_what_is_true_before_the_tid_is_brought(opened: Open) -> None:
    disk = opened()
    oids = [pack_id(number) for number in range(6)]
    for oid in oids[:4]:
        disk.store(oid, Revision(oid, T1, None))
    disk.flush()
    disk.invalidate(T2, [oids[2]])  # heard, and not yet written
    assert walked(disk, oids[:2], T3) == [(oids[3], Revision(oids[3], T1, None))]
    disk.flush()
    assert walked(disk, oids[:2], T2) == [
        (oids[2], Revision(oids[2], T1, T2)),
        (oids[3], Revision(oids[3], T1, None)),
    ]
    assert walked(disk, oids[:2], T3) == [(oids[3], Revision(oids[3], T1, None))]
