"""Numbers against a dictionary; what they make of themselves as an index."""

from hypothesis import given, settings
from hypothesis import strategies as st

from zeo_core.ids import pack_id
from zeo_server.storages.file.index import Entries, Index, add_entry
from zeo_server.storages.file.numbers import Numbers

OIDS = st.one_of(st.integers(0, 300_000), st.integers(2**40, 2**40 + 5), st.integers(2**64 - 3, 2**64 - 1))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(OIDS, st.integers(0, 2**48 - 1)), max_size=30))
def test_they_are_a_dictionary(settings_made: list[tuple[int, int]]) -> None:
    numbers, model = Numbers(), dict[int, int]()
    for oid, number in settings_made:
        numbers.set(oid, number)
        model[oid] = number
        assert numbers.get(oid) == number
    assert all(numbers.get(oid) == number for oid, number in model.items())
    known = sorted((oid, number) for oid, number in model.items() if number)
    assert list(numbers.items()) == known
    assert len(numbers) == len(known)
    assert numbers.get(77_777_777) == 0
    index = Index()
    for oid, number in known:
        entries: Entries = {}
        add_entry(entries, pack_id(oid), number)
        index.update(entries)
    assert list(numbers.saved_index(5)) == list(index.saved(5))


def test_a_far_oid_takes_no_room() -> None:
    numbers = Numbers()
    numbers.set(2**50, 1)
    assert len(numbers.dense) == 0
    for oid in range(0, 200_000, 50_000):
        numbers.set(oid, oid + 1)
    assert len(numbers.dense) < 500_000
    assert numbers.get(2**50) == 1
