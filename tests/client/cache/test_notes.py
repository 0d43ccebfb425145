from zeo_client.cache import notes as notes_module
from zeo_client.cache.notes import CHANGES_MAX, USED_MAX, Notes
from zeo_core.ids import pack_id
from zeo_core.transaction import Revision

A, B = pack_id(1), pack_id(2)
T1, T2, T3, T4 = (pack_id(number) for number in range(11, 15))


def test_what_is_current_ends_when_its_change_is_heard() -> None:
    """Lesson B1: it is written later, and would then be taken for current."""
    notes = Notes(T1)
    notes.add(A, Revision(b"a", T1, None))
    notes.add(B, Revision(b"b", T1, None))
    notes.change(T2, [A])
    notes.add(A, Revision(b"aa", T2, None))
    batch = notes.take()
    assert batch is not None
    assert batch.revisions == {A + T1: (b"a", T1, T2), B + T1: (b"b", T1, None), A + T2: (b"aa", T2, None)}
    assert (batch.since, batch.changes, batch.until) == (T1, [(T2, (A,))], T2)


def test_an_end_that_was_heard_is_not_taken_back() -> None:
    notes = Notes(T1)
    notes.add(A, Revision(b"a", T1, None))
    notes.change(T2, [A])
    notes.add(A, Revision(b"a", T1, None))
    batch = notes.take()
    assert batch is not None
    assert batch.revisions[A + T1].end_tid == T2


def test_nothing_to_write() -> None:
    notes = Notes(T1)
    assert notes.take() is None
    notes.use(1)
    assert notes.take() is None


def test_how_far_a_row_of_the_file_is_known_to_be_true() -> None:
    notes = Notes(T1)
    notes.change(T2, [A])
    notes.change(T3, [])
    assert notes.true_until(A, T1) == T1
    assert notes.true_until(A, T2) == T3
    assert notes.true_until(B, T1) == T3
    assert notes.true_until(B, T4) == T4  # another process is ahead
    assert notes.true_until(B, pack_id(1)) == pack_id(1)  # what was in between was never heard here
    batch = notes.take()
    assert batch is not None
    assert notes.true_until(B, T1) == T3  # it is not written yet
    notes.written(batch)
    assert notes.true_until(B, T1) == T1
    assert notes.true_until(B, T3) == T3


def test_what_could_not_be_written_comes_again_unless_it_was_changed() -> None:
    notes = Notes(T1)
    for oid in (A, B):
        notes.add(oid, Revision(b"x", T1, None))
    batch = notes.take()
    assert batch is not None
    notes.change(T2, [A])
    notes.put_back(batch)
    again = notes.take()
    assert again is not None
    assert list(again.revisions) == [B + T1]
    assert again.changes == [(T2, (A,))]


def test_there_is_an_end_to_what_is_noted() -> None:
    notes = Notes(T1)
    for number in range(USED_MAX + 10):
        notes.use(number)
    notes.change(T2, [A])
    for number in range(CHANGES_MAX):
        notes.change(pack_id(100 + number), [B])
    batch = notes.take()
    assert batch is not None
    assert len(list(batch.used)) == USED_MAX
    assert len(batch.changes) < CHANGES_MAX
    assert batch.since > T2  # the file will see that it lacks something
    assert notes.true_until(A, T2) == T2


def test_large_revisions_are_refused_when_too_much_waits() -> None:
    notes = Notes(T1)
    half = bytes(notes_module.NOTES_MAX_BYTES // 2)
    assert notes.add(A, Revision(half, T1, None))
    assert not notes.add(B, Revision(half, T1, None))
    assert notes.take() is not None
    assert notes.add(B, Revision(half, T1, None))
