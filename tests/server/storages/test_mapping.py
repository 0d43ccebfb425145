"""MappingStorage where the contract's suite does not reach: groups, closing."""

import pytest

from zeo_core.errors import StorageClosedError
from zeo_core.ids import MAX_TID, ZERO_TID, Oid, Tid, pack_id
from zeo_core.storage import Commits, Iterates, Loads, Transacts
from zeo_core.transaction import ObjectWrite, PreparedTransaction, TransactionMetadata
from zeo_server.storages.file.writer import FileGroup
from zeo_server.storages.mapping import MappingStorage

A, B = pack_id(1), pack_id(2)


def prepared(*objects: tuple[Oid, bytes]) -> PreparedTransaction:
    return PreparedTransaction(TransactionMetadata(), tuple(ObjectWrite(oid, ZERO_TID, data) for oid, data in objects))


def test_it_keeps_all_parts_of_the_contract() -> None:
    storage = MappingStorage()
    for part in (Loads, Iterates, Commits, Transacts):
        assert isinstance(storage, part)
    assert storage.name() == "Mapping Storage"
    assert MappingStorage("other").name() == "other"


def test_a_written_group_is_seen_when_it_is_published() -> None:
    storage = MappingStorage()
    group = storage.write_group([prepared((A, b"a")), prepared((B, b"bb")), prepared()])
    later = storage.write_group([prepared()])
    assert list(group.tids) == sorted(set(group.tids))
    assert later.tids[0] > group.tids[-1]
    assert storage.current_tid(A) is None
    assert storage.last_tid() == ZERO_TID
    assert list(storage.transactions()) == []
    announced: list[tuple[Tid, list[Oid], Tid]] = []
    storage.publish(group, lambda tid, oids: announced.append((tid, list(oids), storage.last_tid())))
    first, second, third = group.tids
    assert announced == [(first, [A], ZERO_TID), (second, [B], first), (third, [], second)]
    assert storage.last_tid() == third
    assert storage.current_tid(B) == second
    assert storage.byte_size() == 3
    storage.publish(later)
    assert storage.last_tid() == later.tids[0]


def test_another_storages_group_is_refused() -> None:
    with pytest.raises(TypeError):
        MappingStorage().publish(FileGroup([], [], {}, 4))


def test_a_closed_storage_refuses_everything() -> None:
    storage = MappingStorage()
    storage.publish(storage.write_group([prepared((A, b"a"))]))
    storage.close()
    storage.close()
    for call in (
        lambda: storage.load_before(A, MAX_TID),
        lambda: storage.current_tid(A),
        lambda: storage.write_group([]),
        lambda: storage.transactions(),
    ):
        with pytest.raises(StorageClosedError, match="Mapping Storage is closed"):
            call()
