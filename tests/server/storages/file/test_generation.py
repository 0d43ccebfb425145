from zeo_core.ids import pack_id
from zeo_server.storages.file.generation import moved_entries
from zeo_server.storages.file.index import Entries, Index, add_entry


def test_moved_entries_are_the_same_objects_further_to_the_front() -> None:
    entries: Entries = {}
    for number in (1, 2, 70_000):
        add_entry(entries, pack_id(number), 1000 + number)
    index = Index()
    index.update(moved_entries(entries, 900))
    assert [index.position(pack_id(number)) for number in (1, 2, 70_000)] == [101, 102, 70_100]
    assert len(index) == 3
