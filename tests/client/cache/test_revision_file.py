import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from zeo_client.cache.revision_file import Batch, BusyCacheError, DamagedCacheError, Mark, RevisionFile, row_crc
from zeo_core.ids import Oid, Tid, pack_id
from zeo_core.transaction import Revision

A, B = pack_id(1), pack_id(2)
T1, T2, T3, T4 = (pack_id(number) for number in range(11, 15))
MAX_BYTES = 10_000_000

Open = Callable[..., RevisionFile]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    files = []

    def open_file(*, create: bool = False, identity: bytes = b"one") -> RevisionFile:
        file = RevisionFile(str(tmp_path / "1.cache"), identity, create=create)
        files.append(file)
        return file

    yield open_file
    for file in files:
        file.close()


@pytest.fixture
def file(opened: Open) -> RevisionFile:
    file = opened(create=True)
    file.clear(file.mark(), T1)
    return file


def write(
    file: RevisionFile,
    until: Tid,
    *revisions: tuple[Oid, Revision],
    since: Tid = T1,
    changes: Sequence[tuple[Tid, Sequence[Oid]]] = (),
    used: Sequence[int] = (),
    max_bytes: int = MAX_BYTES,
) -> bool | None:
    batch = Batch(since, changes, until, {oid + revision.tid: revision for oid, revision in revisions}, used)
    return file.write(file.mark().generation, batch, max_bytes)


def find(file: RevisionFile, oid: Oid, before: Tid) -> Revision | None:
    found = file.find(file.mark().generation, oid, before)
    return None if found is None else found.revision


def test_a_new_file_is_empty(file: RevisionFile) -> None:
    assert file.mark().horizon == T1
    assert find(file, A, T4) is None


def test_the_newest_before_a_tid_is_found(file: RevisionFile) -> None:
    old, new = Revision(b"old", T1, T3), Revision(b"new", T3, None)
    assert write(file, T3, (A, old), (A, new), (B, new), changes=[(T3, [A, B])]) is True
    assert find(file, A, T1) is None
    assert find(file, A, T2) == find(file, A, T3) == old
    assert find(file, A, T4) == find(file, A, b"\xff" * 8) == new
    generation = file.mark().generation
    assert file.find_serial(generation, A, T2) is None
    found = file.find_serial(generation, A, T1)
    assert found is not None
    assert found.revision == old


def test_a_change_ends_what_was_current(file: RevisionFile) -> None:
    write(file, T1, (A, Revision(b"a", T1, None)), (B, Revision(b"b", T1, None)))
    write(file, T2, changes=[(T2, [A])])
    assert find(file, A, T4) == (b"a", T1, T2)
    assert find(file, B, T4) == (b"b", T1, None)
    assert file.mark().horizon == T2


def test_a_change_that_another_process_has_written_is_not_applied_again(file: RevisionFile) -> None:
    write(file, T2, (A, Revision(b"a", T2, None)), changes=[(T2, [A])])
    write(file, T3, changes=[(T2, [A]), (T3, [B])])
    assert find(file, A, T4) == (b"a", T2, None)


def test_one_who_is_behind_adds_only_what_has_an_end(file: RevisionFile) -> None:
    """Lesson B16: it may have changed since, and who wrote the change cannot have ended it."""
    write(file, T3, changes=[(T2, [A]), (T3, [B])])
    assert write(file, T1, (A, Revision(b"a", T1, None)), (B, Revision(b"b", pack_id(9), T1))) is False
    assert find(file, A, T4) is None
    assert find(file, B, T4) == (b"b", pack_id(9), T1)


def test_changes_that_nobody_told_the_file_cost_it_what_is_current(file: RevisionFile) -> None:
    write(file, T1, (A, Revision(b"a", T1, None)), (B, Revision(b"b", pack_id(9), T1)))
    assert write(file, T4, since=T3, changes=[(T4, [])]) is True
    assert find(file, A, T4) is None
    assert find(file, B, T1) == (b"b", pack_id(9), T1)
    assert file.mark().horizon == T4


def test_an_end_may_come_later(file: RevisionFile) -> None:
    write(file, T1, (A, Revision(b"a", T1, None)))
    write(file, T1, (A, Revision(b"a", T1, T3)))
    write(file, T1, (A, Revision(b"a", T1, None)))
    assert find(file, A, T2) == (b"a", T1, T3)


def test_another_generation_is_not_read_and_not_written(file: RevisionFile) -> None:
    write(file, T1, (A, Revision(b"a", T1, None)))
    before = file.mark()
    cleared = file.clear(before, T3)
    assert cleared is not None
    assert file.mark() == cleared
    assert cleared.generation != before.generation
    assert file.find(before.generation, A, T2) is None
    assert file.write(before.generation, Batch(T1, [], T1, {A + T1: Revision(b"a", T1, None)}, ()), MAX_BYTES) is None
    assert file.clear(before, T4) is None
    assert file.forget(before, T4, []) is False
    assert find(file, A, T2) is None


def test_what_changed_at_an_unknown_time_is_forgotten(file: RevisionFile) -> None:
    """Lesson B11."""
    write(file, T1, (A, Revision(b"a", T1, None)), (A, Revision(b"0", pack_id(9), T1)), (B, Revision(b"b", T1, None)))
    mark = file.mark()
    assert file.forget(mark, T3, [A])
    assert find(file, A, T4) == (b"0", pack_id(9), T1)
    assert find(file, B, T4) == (b"b", T1, None)
    assert file.mark() == Mark(mark.generation, T3)
    assert file.forget(mark, T2, [B])  # the file is further already: B did not change up to there
    assert find(file, B, T4) == (b"b", T1, None)


def test_what_was_read_stays_longest(file: RevisionFile) -> None:
    oids = [pack_id(number) for number in range(100, 600)]
    for oid in oids:
        write(file, T1, (oid, Revision(bytes(2000), T1, None)))
    found = file.find(file.mark().generation, oids[0], T2)
    assert found is not None
    write(file, T1, used=[found.place], max_bytes=500_000)
    assert file.size() <= 500_000
    assert find(file, oids[0], T2) is not None
    assert find(file, oids[1], T2) is None
    assert find(file, oids[-1], T2) is not None
    write(file, T1, max_bytes=0)
    assert all(find(file, oid, T2) is None for oid in oids)


def test_a_file_is_opened_again(opened: Open, file: RevisionFile) -> None:
    write(file, T1, (A, Revision(b"a", T1, None)))
    mark = file.mark()
    file.close()
    again = opened()
    assert again.mark() == mark
    assert find(again, A, T2) == (b"a", T1, None)


def test_the_cache_of_another_database_is_refused(opened: Open, file: RevisionFile) -> None:
    with pytest.raises(DamagedCacheError, match="another database"):
        opened(identity=b"two")


def test_a_row_that_fails_its_check_is_not_served_and_goes(file: RevisionFile, tmp_path: Path) -> None:
    write(file, T1, (A, Revision(b"a", T1, None)), (B, Revision(b"b", T1, None)))
    with sqlite3.connect(tmp_path / "1.cache") as other:
        other.execute("UPDATE revision SET data = ? WHERE key = ?", (b"x", A + T1))
        other.execute("UPDATE revision SET data = 7 WHERE key = ?", (B + T1,))
    other.close()
    assert find(file, A, T2) is None
    write(file, T2, (A, Revision(b"aa", T2, None)), changes=[(T2, [A, B])])
    assert find(file, A, T2) is None
    assert find(file, A, T3) == (b"aa", T2, None)
    assert find(file, B, T2) is None


def test_a_mark_that_fails_its_check(file: RevisionFile, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "1.cache") as other:
        other.execute("UPDATE header SET mark = ?", (b"x" * 28,))
    other.close()
    with pytest.raises(DamagedCacheError, match="mark"):
        file.find(b"x" * 16, A, T2)


def test_a_write_waits_for_another_only_so_long(file: RevisionFile, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "1.cache", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BusyCacheError):
        write(file, T1, (A, Revision(b"a", T1, None)))
    assert find(file, A, T2) is None  # reading does not wait
    other.execute("ROLLBACK")
    other.close()
    assert write(file, T1, (A, Revision(b"a", T1, None))) is True


def test_the_check_covers_every_part_of_a_row() -> None:
    rows = [(A + T1, None, b"a"), (A + T1, T2, b"a"), (A + T2, None, b"a"), (B + T1, None, b"a"), (A + T1, None, b"b")]
    assert len({row_crc(*row) for row in rows}) == len(rows)


def following(file: RevisionFile, oid: Oid, rows: int, max_bytes: int = MAX_BYTES) -> list[tuple[Oid, Revision]]:
    first = file.find(file.mark().generation, oid, T4)
    assert first is not None
    found = file.following(file.mark().generation, first.place, rows, max_bytes)
    assert all(each.horizon == T1 for _, each in found)
    return [(oid, each.revision) for oid, each in found]


def test_what_came_after_a_row_is_read_with_it(file: RevisionFile) -> None:
    oids = [pack_id(number) for number in (7, 3, 9, 1, 5)]
    for oid in oids:
        write(file, T1, (oid, Revision(bytes(100), T1, None)))
    assert [oid for oid, _ in following(file, oids[0], 3)] == oids[1:4]
    assert following(file, oids[3], 3) == [(oids[4], Revision(bytes(100), T1, None))]
    assert [oid for oid, _ in following(file, oids[0], 4, max_bytes=150)] == oids[1:3]
    assert following(file, oids[4], 4) == []


def test_what_came_after_a_row_is_checked_as_the_row_is(file: RevisionFile) -> None:
    oids = [pack_id(number) for number in range(1, 5)]
    write(file, T1, *((oid, Revision(b"x", T1, None)) for oid in oids))
    with sqlite3.connect(file.path) as other:
        other.execute("UPDATE revision SET data = x'79' WHERE key = ?", (oids[2] + T1,))
    other.close()
    assert [oid for oid, _ in following(file, oids[0], 9)] == [oids[1], oids[3]]
    write(file, T1)
    assert find(file, oids[2], T4) is None
    first = file.find(file.mark().generation, oids[0], T4)
    assert first is not None
    assert file.following(bytes(16), first.place, 9, MAX_BYTES) == []


def test_many_rows_are_put_in_several_statements(file: RevisionFile) -> None:
    oids = [pack_id(number) for number in range(1, 451)]
    write(file, T1, *((oid, Revision(oid, T1, None)) for oid in oids))
    assert all(find(file, oid, T4) == Revision(oid, T1, None) for oid in oids)
