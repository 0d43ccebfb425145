"""The contract of walking a storage's log."""

import pytest

from tests.contract.storages import Txn, commit
from zeo_core.ids import MAX_TID, ZERO_TID, Tid, pack_id, successor
from zeo_core.storage import Iterates
from zeo_core.transaction import extension_map
from zeo_core.zodb import ZODBStorage

A, B = pack_id(1), pack_id(2)


def walk(storage: ZODBStorage, start: Tid | None = None, stop: Tid | None = None) -> list[Tid]:
    assert isinstance(storage, Iterates)
    return [transaction.tid for transaction in storage.transactions(start, stop)]


def test_a_walk_tells_everything_in_order(logged_storage: ZODBStorage) -> None:
    assert isinstance(logged_storage, Iterates)
    first = commit(logged_storage, {A: b"a1", B: b"b1"}, txn=Txn("user", "what", {"k": [1, None, "x"]}))
    second = commit(logged_storage, {})
    third = commit(logged_storage, {B: b"b2"})
    walked = [(t.tid, t.status, t.metadata, list(t.records)) for t in logged_storage.transactions()]
    assert [entry[0] for entry in walked] == [first, second, third]
    assert {entry[1] for entry in walked} == {b" "}
    assert (walked[0][2].user, walked[0][2].description) == (b"user", b"what")
    assert extension_map(walked[0][2].extension) == {"k": [1, None, "x"]}
    assert walked[1][2].extension == b""
    assert walked[0][3] == [(A, first, b"a1", None), (B, first, b"b1", None)]
    assert walked[1][3] == []
    assert walked[2][3] == [(B, third, b"b2", None)]


def test_an_extension_given_as_bytes_is_kept_as_it_is(logged_storage: ZODBStorage) -> None:
    assert isinstance(logged_storage, Iterates)
    commit(logged_storage, {A: b"a"}, txn=Txn(extension=b"}q\x00."))
    assert [t.metadata.extension for t in logged_storage.transactions()] == [b"}q\x00."]


def test_records_can_be_walked_again_and_later(logged_storage: ZODBStorage) -> None:
    assert isinstance(logged_storage, Iterates)
    tids = [commit(logged_storage, {A: b"a%d" % number, B: b"b"}) for number in range(3)]
    walked = list(logged_storage.transactions())
    for _ in range(2):
        for number, transaction in enumerate(walked):
            expected = [(A, tids[number], b"a%d" % number, None), (B, tids[number], b"b", None)]
            assert list(transaction.records) == expected
    next(iter(walked[1].records))
    assert len(list(walked[2].records)) == 2


def test_a_walk_starts_and_stops_where_it_is_told(logged_storage: ZODBStorage) -> None:
    assert walk(logged_storage) == []
    tids = [commit(logged_storage, {A: b"%d" % number}) for number in range(20)]
    assert walk(logged_storage) == walk(logged_storage, ZERO_TID, MAX_TID) == tids
    for start in range(20):
        assert walk(logged_storage, tids[start]) == tids[start:]
        assert walk(logged_storage, successor(tids[start])) == tids[start + 1 :]
        assert walk(logged_storage, None, tids[start]) == tids[: start + 1]
        assert walk(logged_storage, tids[start], tids[start + 3 if start < 17 else 19]) == tids[start : start + 4]
    assert walk(logged_storage, tids[5], tids[4]) == []
    assert walk(logged_storage, MAX_TID) == []


@pytest.mark.parametrize("started", [False, True])
def test_the_end_is_fixed_when_the_walk_begins(logged_storage: ZODBStorage, started: bool) -> None:
    assert isinstance(logged_storage, Iterates)
    tids = [commit(logged_storage, {A: b"%d" % number}) for number in range(3)]
    transactions = logged_storage.transactions()
    walked = [next(transactions).tid] if started else []
    commit(logged_storage, {A: b"later"})
    walked += [transaction.tid for transaction in transactions]
    assert walked == tids
