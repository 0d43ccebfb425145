"""One pack of a MappingStorage's contents; what packs do to storages is in tests/contract."""

import pytest

from tests.server.storages.file.graphs import node
from tests.server.storages.test_mapping_contents import T1, T2, T3, T4, A, B, logged
from zeo_core.errors import StorageError
from zeo_core.ids import ROOT_OID, Tid, pack_id
from zeo_server.storages.mapping_contents import Contents
from zeo_server.storages.mapping_pack import MappingPack


def contents_of(*transactions: tuple[Tid, dict[bytes, bytes | None]]) -> Contents:
    contents = Contents([], {}, 0)
    contents.add([logged(tid, *[(oid, data, None) for oid, data in objects.items()]) for tid, objects in transactions])
    return contents


def packed(contents: Contents, until: Tid, *, gc: bool = True) -> Contents:
    pack = MappingPack("it", contents, until, gc=gc)
    assert not pack.is_redundant
    assert all(step.done_bytes <= step.total_bytes for step in pack.steps())
    return pack.finish()


def test_the_old_contents_stay_as_they_were() -> None:
    contents = contents_of((T1, {ROOT_OID: node(1), A: b"\x80\x02N.N."}), (T2, {ROOT_OID: node()}))
    log, size = list(contents.log), contents.byte_size
    left = packed(contents, T2)
    assert (contents.log, contents.byte_size) == (log, size)
    assert [saved.tid for saved in contents.revisions[ROOT_OID]] == [T1, T2]
    assert list(left.revisions) == [ROOT_OID]
    assert left.byte_size == len(node())
    assert [(tid, transaction.status, len(transaction.writes)) for tid, transaction in left.log] == [(T2, b"p", 1)]


def test_what_is_committed_meanwhile_is_in_it_and_keeps_what_it_refers_to() -> None:
    contents = contents_of((T1, {ROOT_OID: node(1), A: node(2), B: node(text="precious")}), (T2, {ROOT_OID: node()}))
    pack = MappingPack("it", contents, T2, gc=True)
    list(pack.steps())
    contents.add([logged(T3, (ROOT_OID, node(1), None))])
    left = pack.finish()
    assert {oid: [saved.tid for saved in found] for oid, found in left.revisions.items()} == {
        ROOT_OID: [T2, T3],
        A: [T1],
        B: [T1],
    }
    assert left.byte_size == sum(saved.size for found in left.revisions.values() for saved in found)
    assert [tid for tid, _ in left.log] == [T1, T2, T3]


def test_a_repetition_of_what_is_gone_brings_its_own_data() -> None:
    contents = contents_of((T1, {ROOT_OID: node()}), (T2, {ROOT_OID: node(text="new")}))
    contents.add([logged(T3, (ROOT_OID, node(), T1)), logged(T4, (ROOT_OID, node(), T3))])
    assert [saved.data_tid for saved in contents.revisions[ROOT_OID]] == [None, None, T1, T1]
    left = packed(contents, T2)
    assert [(saved.data, saved.data_tid) for saved in left.revisions[ROOT_OID]][1:] == [(node(), None)] * 2


def test_without_a_root_nothing_could_be_reached() -> None:
    with pytest.raises(StorageError, match="no root"):
        packed(contents_of((T1, {A: node()})), T1)
    with pytest.raises(StorageError, match="0x00 is deleted"):
        packed(contents_of((T1, {ROOT_OID: node()}), (T2, {ROOT_OID: None})), T2)


def test_a_deletion_goes_with_the_garbage_only() -> None:
    contents = contents_of((T1, {ROOT_OID: node(), A: node()}), (T2, {A: None}))
    assert list(packed(contents, T2).revisions) == [ROOT_OID]
    assert [saved.tid for saved in packed(contents, T2, gc=False).revisions[A]] == [T2]


def test_a_first_transaction_without_objects_stays() -> None:
    contents = contents_of((T1, {}), (T2, {ROOT_OID: node()}), (T3, {ROOT_OID: node()}), (T4, {pack_id(5): node()}))
    left = packed(contents, T4)
    assert [(tid, len(transaction.writes)) for tid, transaction in left.log] == [(T1, 0), (T3, 1), (T4, 0)]
    assert MappingPack("it", left, T4, gc=True).is_redundant
