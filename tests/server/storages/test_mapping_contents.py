"""What a MappingStorage holds, without the storage."""

from zeo_core.ids import ZERO_TID, Oid, pack_id
from zeo_core.transaction import ObjectWrite, PreparedTransaction, RecordedObject, TransactionMetadata
from zeo_server.storages.mapping_contents import Contents, Logged, Saved, tid_of

A, B = pack_id(1), pack_id(2)
T1, T2, T3, T4 = map(pack_id, range(1, 5))


def logged(tid: bytes, *objects: tuple[Oid, bytes | None, bytes | None]) -> Logged:
    writes = tuple(ObjectWrite(oid, ZERO_TID, data, data_tid) for oid, data, data_tid in objects)
    return Logged(tid, PreparedTransaction(TransactionMetadata(b"user"), writes))


def test_transactions_and_revisions_grow_together() -> None:
    contents = Contents([], {}, 0)
    contents.add([logged(T1, (A, b"a1", None), (B, b"b", None)), logged(T2, (A, b"a22", None))])
    contents.add([logged(T3, (A, None, None))])
    assert contents.byte_size == 6
    assert [tid_of(saved) for saved in contents.revisions[A]] == [T1, T2, T3]
    assert contents.saved_at(A, T2) == Saved(T2, b"a22", None, TransactionMetadata(b"user"))
    assert contents.saved_at(B, T2) is None
    assert contents.saved_at(pack_id(9), T1) is None
    assert [saved.size for saved in contents.revisions[A]] == [2, 3, 0]
    found = contents.recorded(contents.log[2])
    assert (found.tid, found.status, list(found.records)) == (T3, b" ", [RecordedObject(A, T3, None, None)])


def test_only_data_that_are_truly_repeated_are_told_to_be() -> None:
    contents = Contents([], {}, 0)
    contents.add([logged(T1, (A, b"a", None)), logged(T2, (A, b"a", T1)), logged(T3, (A, b"b", T1))])
    contents.add([logged(T4, (A, b"a", T2))])
    assert [saved.data_tid for saved in contents.revisions[A]] == [None, T1, None, T1]
