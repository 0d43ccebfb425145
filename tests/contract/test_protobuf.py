"""Records with a protobuf message, on every storage: kept, packed and copied as the pickled ones beside them."""

import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.contract.storages import KINDS, Kind, commit
from tests.records import message_node, node
from zeo_core.errors import POSKeyError, RecordFormatError, StorageError
from zeo_core.ids import MAX_TID, ROOT_OID, Oid, pack_id
from zeo_core.zodb import ZODBStorage
from zeo_server.storages.demo import DemoStorage
from zeo_server.storages.file import FileStorage
from zeo_server.storages.logged import LoggedStorage
from zeo_server.storages.mapping import MappingStorage

FUTURE_S = time.time() + 3600
A, B, C, D, E, F = (pack_id(number) for number in range(1, 7))

MIXED = {
    ROOT_OID: node(A),
    A: message_node(B, weak=(D,), foreign=(E,)),
    B: node(C),
    C: message_node(A, C),
    D: message_node(F),  # only weakly referred to
    E: message_node(),  # the reference to this number is one into another database
    F: node(D),
}
"""Half of each format, referring to each other both ways, and two circles."""

REACHABLE = {ROOT_OID, A, B, C}


@pytest.fixture(params=[kind for kind in KINDS if kind.packs], ids=lambda kind: kind.name)
def packing(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


def pack(storage: ZODBStorage) -> None:
    assert isinstance(storage, LoggedStorage | DemoStorage)
    storage.pack(FUTURE_S, None)


def left(storage: ZODBStorage) -> dict[Oid, bytes]:
    found = {}
    for oid in MIXED:
        try:
            found[oid] = storage.load(oid)[0]
        except POSKeyError:
            continue
    return found


def test_they_are_stored_and_loaded(storage: ZODBStorage) -> None:
    commit(storage, MIXED)
    assert left(storage) == MIXED


def test_a_pack_keeps_what_they_refer_to_and_no_more(packing: Kind, tmp_path: Path) -> None:
    with packing.open(tmp_path) as storage:
        commit(storage, MIXED)
        pack(storage)
        assert left(storage) == {oid: MIXED[oid] for oid in REACHABLE}


def test_a_pack_misses_what_they_refer_to(packing: Kind, tmp_path: Path) -> None:
    with packing.open(tmp_path) as storage:
        commit(storage, {ROOT_OID: message_node(A), A: message_node(B)})
        with pytest.raises(StorageError, match=r"0x01 refers.* to 0x02, which .*not there"):
            pack(storage)
        assert storage.load(A)[0] == message_node(B)


def test_a_damaged_one_stops_a_pack(packing: Kind, tmp_path: Path) -> None:
    with packing.open(tmp_path) as storage:
        commit(storage, {ROOT_OID: node(A), A: message_node(B)[:-1], B: node()})
        with pytest.raises(RecordFormatError, match="no protobuf object record: cut off"):
            pack(storage)
        assert storage.load(B)[0] == node()


def test_what_one_refers_to_that_came_after_the_pack_time_is_kept(packing: Kind, tmp_path: Path) -> None:
    """Lesson B31."""
    with packing.open(tmp_path) as storage:
        commit(storage, {ROOT_OID: message_node(A), A: message_node(B), B: node()})
        commit(storage, {ROOT_OID: message_node()})
        before = time.time()
        commit(storage, {ROOT_OID: message_node(A)})
        assert isinstance(storage, LoggedStorage | DemoStorage)
        storage.pack(before, None)
        assert (storage.load(A)[0], storage.load(B)[0]) == (message_node(B), node())


@pytest.mark.parametrize("target_class", [MappingStorage, FileStorage])
def test_they_are_copied_between_storages(target_class: type, tmp_path: Path) -> None:
    source = FileStorage(tmp_path / "Data.fs")
    target = MappingStorage() if target_class is MappingStorage else FileStorage(tmp_path / "Copy.fs")
    with closing(source), closing(target):
        commit(source, MIXED)
        commit(source, {A: message_node(B, C)})
        target.copyTransactionsFrom(source)
        assert left(target) == left(source) == {**MIXED, A: message_node(B, C)}
        pack(target)
        assert left(target).keys() == {ROOT_OID, A, B, C}


def test_a_demo_storage_changes_what_its_base_has(tmp_path: Path) -> None:
    base = FileStorage(tmp_path / "Data.fs")
    commit(base, MIXED)
    with closing(DemoStorage(base=base)) as storage:
        commit(storage, {A: message_node(B, D)})
        assert storage.load(A)[0] == message_node(B, D)
        before = storage.load_before(A, base.last_tid())
        assert before is None
        pack(storage)
        assert left(storage) == {**MIXED, A: message_node(B, D)}
        assert base.load_before(A, MAX_TID) is not None
