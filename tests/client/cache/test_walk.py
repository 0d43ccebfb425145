"""Walks over rows: when they are recognised, and how far they reach."""

from zeo_client.cache.walk import ROWS_MAX, WALKS_MAX, Walks


def test_a_row_alone_is_no_walk() -> None:
    walks = Walks()
    assert [walks.reach(place) for place in (5, 9, 7, 1)] == [0, 0, 0, 0]


def test_a_walk_reads_more_and_more() -> None:
    walks = Walks()
    place, windows = 1, []
    assert walks.reach(place) == 0
    for _ in range(8):
        place += 1
        rows = walks.reach(place)
        windows.append(rows)
        place += rows
        walks.expect(place + 1, rows)
    assert windows == [2, 4, 8, 16, 32, 32, 32, 32]
    assert windows[-1] == ROWS_MAX


def test_walks_side_by_side_do_not_disturb_each_other() -> None:
    walks = Walks()
    starts = [1000 * number for number in range(1, WALKS_MAX + 1)]
    assert [walks.reach(start) for start in starts] == [0] * WALKS_MAX
    assert [walks.reach(start + 1) for start in starts] == [2] * WALKS_MAX


def test_the_oldest_of_too_many_is_forgotten() -> None:
    walks = Walks()
    for start in range(1000, 1000 * (WALKS_MAX + 2), 1000):
        walks.reach(start)
    assert walks.reach(1001) == 0
    assert walks.reach(3001) == 2
