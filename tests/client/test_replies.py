import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeo_client import replies
from zeo_client.transport.channel import Call, OnReply
from zeo_core.errors import RemoteProtocolError
from zeo_core.ids import ZERO_TID, pack_id
from zeo_core.transaction import HistoryEntry, Revision, TransactionMetadata
from zeo_core.wire.compression import compressed

A, B = pack_id(1), pack_id(2)
T1, T2, T3 = (pack_id(number) for number in range(101, 104))
LOAD = Call("loadBefore", (A, T3), None)
ENTRY = {"tid": T1, "user_name": b"u", "description": "d", "size": 3, "time": 1.5}
CLIENT = {
    "storage": "1",
    "label": "",
    "address": "h:1",
    "read_only": False,
    "holds_locks": True,
    "since": 1.5,
    **dict.fromkeys(("loads", "stores", "commits", "bytes_in", "bytes_out"), 1),
    **dict.fromkeys(("backlog_bytes", "in_flight", "transactions"), 2),
}
CONFLICT = {"oid": A, "serials": (T2, T1), "data": b"no record"}

GOOD: list[tuple[OnReply, Any, Any]] = [
    (replies.tid, T1, T1),
    (replies.last_tid, T1, T1),
    (replies.last_tid, None, ZERO_TID),
    (replies.revision, None, None),
    (replies.revision, (b"data", T1, None), Revision(b"data", T1, None)),
    (replies.revision, (b"", T2, T3), Revision(b"", T2, T3)),
    (replies.many, ((), ()), ([], ())),
    (
        replies.many,
        (((B, b"", T2, T3), (A, b"x", T1, None)), (B,)),
        ([(B, (b"", T2, T3)), (A, (b"x", T1, None))], (B,)),
    ),
    (replies.data, b"data", b"data"),
    (replies.history, (), []),
    (replies.history, (ENTRY,), [HistoryEntry(T1, TransactionMetadata(b"u", b"d"), 3)]),
    (replies.fresh_oids, (A, B), [A, B]),
    (replies.changes, None, None),
    (replies.changes, (None, ()), None),
    (replies.changes, (T1, (A,)), (T1, (A,))),
    (replies.votes, None, (frozenset(), ())),
    (replies.votes, (), (frozenset(), ())),
    (replies.votes, (A, B), (frozenset((A, B)), ())),
    (replies.number, 0, 0),
    (replies.undo_lines, ({"id": b"x"},), [{"id": b"x"}]),
    (replies.recorded, None, None),
    (replies.recorded, (A, T1, None, T2), (A, T1, None, T2)),
    (replies.recorded_head, None, None),
    (replies.recorded_head, (T1, " ", b"u", "d", {}), (T1, b" ", TransactionMetadata(b"u", b"d"))),
    (replies.record_from, (A, T1, b"a", None), (A, T1, b"a", None)),
    (replies.info, {}, {}),
    (replies.info, {"length": 3, "size": 4, "x": ()}, {"length": 3, "size": 4, "x": ()}),
    (replies.status, {"loads": 1}, {"loads": 1}),
    (replies.clients, (CLIENT, {**CLIENT, "more": 5}), [CLIENT, {**CLIENT, "more": 5}]),
]


@pytest.mark.parametrize(("check", "answer", "result"), GOOD)
def test_a_good_answer_is_what_the_contract_has(check: OnReply, answer: Any, result: Any) -> None:
    assert check(LOAD, answer) == result


@pytest.mark.parametrize("told", [CONFLICT, {**CONFLICT, "data": None}, {"oid": A, "serials": (T2, T1)}])
def test_a_conflict_for_the_client_to_resolve(told: Any) -> None:
    assert replies.votes(LOAD, (B, told)) == (frozenset((B,)), ((A, T2, T1, None),))
    assert replies.votes(LOAD, ({**told, "committed": b"x"},)).conflicts == ((A, T2, T1, b"x"),)


def each(check: OnReply, *answers: Any) -> list[tuple[OnReply, Any]]:
    return [(check, answer) for answer in answers]


BAD: list[tuple[OnReply, Any]] = [
    *each(replies.tid, None, 1, "", b"", b"1234567", "12345678", (T1,)),
    *each(replies.last_tid, 0, b"", "12345678"),
    (replies.revision, ()),
    (replies.revision, b"abc"),
    (replies.revision, {1: 2, 3: 4, 5: 6}),
    (replies.revision, (b"data", T1)),
    (replies.revision, (b"data", T1, None, None)),
    (replies.revision, ("data", T1, None)),
    (replies.revision, (None, T1, None)),
    (replies.revision, (b"data", b"", None)),
    (replies.revision, (b"data", None, None)),
    (replies.revision, (b"data", T1, b"")),
    (replies.revision, (b"data", T1, 0)),
    (replies.revision, (b"data", T3, None)),  # not before the tid that was asked for
    (replies.revision, (b"data", T2, T1)),  # ended before it began
    (replies.revision, (b"data", T2, T2)),
    *each(replies.many, None, (), ((),), ((), None), ((), (1,)), (((A,),), ()), ((A,), ()), ((1,), ()), {A: (), B: ()}),
    *each(replies.many, (((1, b"x", T1, None),), ()), (((A, b"x", T3, None),), ()), (((A, None, T1, None),), ())),
    *each(replies.data, None, "text", 1, (b"data",)),
    *each(replies.history, None, b"", ENTRY, (1,), ({},)),
    *each(replies.history, *(({**ENTRY, key: None},) for key in ("tid", "user_name", "description", "size"))),
    *each(replies.fresh_oids, None, (), (1,), (A, b""), {A: B}, b"12345678"),
    *each(replies.changes, (), 1, (T1,), (T1, None), (T1, (1,)), (1, ()), (T1, {A: 1}), b"12"),
    *each(replies.votes, 1, b"12345678", {A: 1}, (1,), (None,), ({},), (A, ())),
    (replies.votes, ({**CONFLICT, "oid": None},)),
    (replies.votes, ({**CONFLICT, "committed": 5},)),
    *each(replies.number, None, "1", True, 1.5),
    *each(replies.undo_lines, None, 5, ({},), ({"id": "text"},)),
    *each(replies.recorded, 5, (), (A, T1, 5, None), (A, T1, b"a", 5), (A, b"", b"a", None)),
    *each(replies.recorded_head, 5, (), (b"", " ", b"", b"", {}), (T1, 5, b"", b"", {}), (T1, " ", b"", b"", {1: 2})),
    *each(replies.record_from, None, (), (A, T1, None, None), (A, T1, b"a", 5), (A, b"", b"a", None)),
    (replies.votes, ({**CONFLICT, "serials": None},)),
    (replies.votes, ({**CONFLICT, "serials": (T1,)},)),
    (replies.votes, ({**CONFLICT, "serials": (T1, 1)},)),
    *each(replies.info, None, (), (1, 2), {"length": "1"}, {"size": None}, {"extensions": 5}),
    *each(replies.status, None, (), 1),
    *each(replies.clients, None, CLIENT, (1,), ({},), *(({**CLIENT, key: None},) for key in CLIENT)),
]


@pytest.mark.parametrize(("check", "answer"), BAD)
def test_an_answer_of_another_shape_is_the_servers_fault_and_names_the_call(check: OnReply, answer: Any) -> None:
    with pytest.raises(RemoteProtocolError, match="the reply to loadBefore is "):
        check(LOAD, answer)


plain = st.recursive(
    st.none() | st.integers() | st.text(max_size=8) | st.sampled_from([A, T1, T3, b"", b"x"]),
    lambda inner: (
        st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.sampled_from(["oid", "serials", "tid", "size", "length"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.sampled_from([check for check, _, _ in GOOD]), plain)
def test_whatever_the_answer_nothing_but_a_protocol_error_is_raised(check: OnReply, answer: Any) -> None:
    with contextlib.suppress(RemoteProtocolError):
        check(LOAD, answer)


def test_compressed_objects_are_taken_only_where_they_were_asked_for() -> None:
    entries = [(B, b"x" * 2000, T1, None)]
    smaller = compressed(entries)
    asked = Call("load_many", ((B,), T3, 0, 0, "", True), None)
    assert replies.many(asked, (smaller, ())) == ([(B, (b"x" * 2000, T1, None))], ())
    assert replies.many(asked, (tuple(entries), ())) == ([(B, (b"x" * 2000, T1, None))], ())
    with pytest.raises(RemoteProtocolError, match="no objects"):
        replies.many(Call("load_many", ((B,), T3), None), (smaller, ()))
    for bad in (b"", b"x", compressed([(B, b"x" * 2000, T3, None)])):
        with pytest.raises(RemoteProtocolError):
            replies.many(asked, (bad, ()))
