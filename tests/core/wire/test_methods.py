"""The table of methods: true to the facts and to ZEO, and a check for every argument."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
import ZEO.asyncio.client
import ZEO.ClientStorage
import ZEO.StorageServer
from hypothesis import given
from hypothesis import strategies as st

from zeo_core.ids import ROOT_OID, tid_from_time
from zeo_core.roles import ClientRole
from zeo_core.wire.methods import (
    BLOB_CHUNK_MAX_BYTES,
    CLIENT_CALLS,
    LOAD_MANY_MAX_OIDS,
    SERVER_PUSHES,
    Argument,
    Method,
)

OID = ROOT_OID
TID = tid_from_time(1e9)

METHODS = {**CLIENT_CALLS, **SERVER_PUSHES}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())

NOT_IDS: list[object] = [None, 5, "12345678", b"", b"1234567", b"123456789", (), {}, 1.5, True]
NOT_TEXT: list[object] = [None, 5, (), {}, 1.5, True]

# for each argument's name: values that fit, and values that do not
ARGUMENTS: dict[str, tuple[list[Any], list[Any]]] = {
    "oid": ([OID, b"\xff" * 8], NOT_IDS),
    "tid": ([TID], NOT_IDS),
    "serial": ([bytes(8), TID], NOT_IDS),
    "data": ([b"", b"x" * 1000], [None, 5, "text", (), {}, 1.5]),
    "prev_txn": ([TID, None], [value for value in NOT_IDS if value is not None]),
    "next": ([OID, None], [value for value in NOT_IDS if value is not None]),
    "start": ([TID, None], [value for value in NOT_IDS if value is not None]),
    "stop": ([TID, None], [value for value in NOT_IDS if value is not None]),
    "transaction_id": ([b"", TID], [None, 5, "text", (), {}, 1.5]),
    "first": ([0, 1, 2**63], [-1, None, "5", 1.5, True, ()]),
    "last": ([0, -20, 2**63], [None, "5", 1.5, True, ()]),
    "specification": ([{}, {"user_name": "u"}, None], [(), "text", b"", 5]),
    "resolves": ([True, False, None], ["yes", b"", (), 1.5]),
    "iterator": ([0, 1, 2**63], [-1, None, "5", 1.5, True, ()]),
    "iterators": ([(), (0, 5)], [None, 5, {}, ("a",), (None,), (-1,), b"x"]),
    "txn": ([1, -1, 2**63, "a", b"b"], [None, (), (1,), {}, 1.5]),
    "storage": (["1", b"1", ""], NOT_TEXT),
    "read_only": ([True, False, 0, 1, None], ["yes", b"", (), 1.5]),
    "n": ([0, 1, 100, 2**63], [-1, None, "5", 1.5, True, ()]),
    "marker": ([b"m" * 16], [None, 5, "m" * 16, b"", b"m" * 15, b"m" * 17, ()]),
    "since": ([bytes(8), TID], NOT_IDS),
    "depth": ([0, 1, 2**63], [-1, None, "5", 1.5, True, ()]),
    "max_bytes": ([0, 1, 2**63], [-1, None, "5", 1.5, True, ()]),
    "compressed": ([True, False, 0, 1, None], ["yes", b"", (), 1.5]),
    "through": (["BTrees.OOBTree.OOBucket", b"", ""], NOT_TEXT),
    "size": ([0, 1, 2**63], [-1, None, "5", 1.5, True, ()]),
    "user": (["u", b"u", ""], NOT_TEXT),
    "description": (["d", b"d", ""], NOT_TEXT),
    "extension": ([{}, {"a": 1}, None, b""], [(), "text", 5, (("a", 1),)]),
    "exact": ([True, False, None], ["yes", b"", (), 1.5]),
    "status": ([" ", b"p"], NOT_TEXT),
    "time": ([0, 1.5, 1e9, -1], [None, "5", b"", True, (), {}]),
    "wait": ([True, False, 0, 1, None], ["yes", b"", (), 1.5]),
    "label": (["a client"], NOT_TEXT),
    "chunk": (
        [b"", b"x" * 59_000, b"x" * BLOB_CHUNK_MAX_BYTES],
        [None, 5, "text", (), b"x" * (BLOB_CHUNK_MAX_BYTES + 1)],
    ),
    "filename": (["0x01.tmp-", b"0x01.tmp-"], NOT_TEXT),
    "oids": ([(), (OID,), (OID, TID)], [None, 5, OID, {}, (5,), (OID, b"short"), (OID, (OID,)), ((),), [OID]]),
    "changes": ([{}, {"length": 5}], [None, (), 5, "text", b""]),
}
OPTIONAL_TID = ([TID, None], [value for value in NOT_IDS if value is not None])


def values_of(method: Method, argument: Argument) -> tuple[list[Any], list[Any]]:
    if (method.name, argument.name) == ("tpc_begin", "tid"):
        return OPTIONAL_TID
    if argument.name == "serial" and method.name in ("storea", "storeBlobEnd", "storeBlobShared"):
        return [TID, None, "\0" * 8], [value for value in NOT_IDS if value not in (None, "\0" * 8)]
    if (method.name, argument.name) == ("load_many", "oids"):
        fitting, misfitting = ARGUMENTS["oids"]
        return [*fitting, (OID,) * LOAD_MANY_MAX_OIDS], [*misfitting, (OID,) * (LOAD_MANY_MAX_OIDS + 1)]
    if (method.name, argument.name) == ("restorea", "data"):
        return [b"", b"x", None], [5, "text", (), {}, 1.5]
    return ARGUMENTS[argument.name]


def valid_args(method: Method) -> tuple[Any, ...]:
    return tuple(values_of(method, argument)[0][0] for argument in method.arguments)


def required(method: Method) -> int:
    return sum(not argument.optional for argument in method.arguments)


def misfits() -> Iterator[tuple[Method, str, tuple[Any, ...]]]:
    """Walk every method with one argument wrong: (method, the argument's name, arguments)."""
    for method in METHODS.values():
        args = valid_args(method)
        for index, argument in enumerate(method.arguments):
            for wrong in values_of(method, argument)[1]:
                yield method, argument.name, (*args[:index], wrong, *args[index + 1 :])


@every_method
def test_arguments_that_fit(method: Method) -> None:
    args = valid_args(method)
    for count in range(required(method), len(args) + 1):
        assert method.fault(args[:count]) is None
    for index, argument in enumerate(method.arguments):
        for value in values_of(method, argument)[0]:
            assert method.fault((*args[:index], value, *args[index + 1 :])) is None


def test_a_wrong_argument_is_named() -> None:
    for method, name, args in misfits():
        fault = method.fault(args)
        assert fault is not None, (method.name, args)
        expects = next(argument.expects for argument in method.arguments if argument.name == name)
        assert fault == f"{method.name}: {name} must be {expects}"


@every_method
def test_a_missing_argument_is_named(method: Method) -> None:
    args = valid_args(method)
    for count in range(required(method)):
        assert method.fault(args[:count]) == f"{method.name} lacks the argument {method.arguments[count].name}"


@every_method
def test_too_many_arguments(method: Method) -> None:
    assert method.fault((*valid_args(method), 1)) == f"{method.name} takes up to {len(method.arguments)} arguments"


@every_method
@pytest.mark.parametrize("args", [None, 5, "ab", b"ab", {}, {"oid": OID}, []])
def test_arguments_that_are_no_array(method: Method, args: object) -> None:
    fault = method.fault(args)
    assert fault is not None
    assert fault.startswith(method.name)


any_value = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.just(OID)),
    lambda inner: st.one_of(st.lists(inner).map(tuple), st.dictionaries(st.text(), inner)),
    max_leaves=5,
)


@given(st.sampled_from(list(METHODS.values())), st.lists(any_value, max_size=7).map(tuple))
def test_no_arguments_raise(method: Method, args: tuple[Any, ...]) -> None:
    fault = method.fault(args)
    assert fault is None or method.name in fault


# -- the table itself --------------------------------------------------------------------------------------------------


def test_the_table_has_what_this_version_serves() -> None:
    assert set(CLIENT_CALLS) == {
        *("register", "get_info", "lastTransaction", "getTid", "getSize", "getInvalidations"),
        *("loadBefore", "load_many", "loadSerial", "new_oids", "history", "server_status", "set_client_label", "ping"),
        *("tpc_begin", "storea", "checkCurrentSerialInTransaction", "vote", "tpc_finish", "tpc_abort", "pack"),
        *("transaction_outcome", "clients"),
        *("storeBlobStart", "storeBlobChunk", "storeBlobEnd", "restoreBlobEnd", "storeBlobShared", "sendBlob"),
        *("deleteObject", "restorea", "record_iternext", "iterator_start", "iterator_next", "iterator_gc"),
        *("iterator_record_start", "iterator_record_next", "undoa", "undoLog", "undoInfo"),
    }
    assert set(SERVER_PUSHES) == {
        *("invalidateTransaction", "info", "receiveBlobStart", "receiveBlobChunk", "receiveBlobStop"),
    }


@every_method
def test_an_entry_is_whole(method: Method) -> None:
    assert METHODS[method.name] is method
    assert re.match(r"[A-Z].*\.$", method.doc)
    optional = [argument.optional for argument in method.arguments]
    assert optional == sorted(optional)  # those that may be left out are the last
    names = [argument.name for argument in method.arguments]
    assert len(set(names)) == len(names)


def test_the_one_way_methods_are_zeos() -> None:
    one_way = {name for name, method in METHODS.items() if method.reply is None}
    assert one_way == {
        *("tpc_begin", "storea", "checkCurrentSerialInTransaction", "set_client_label"),
        *("storeBlobStart", "storeBlobChunk", "storeBlobEnd", "restoreBlobEnd", "storeBlobShared"),
        *("deleteObject", "restorea", "iterator_gc", "undoa"),
        *SERVER_PUSHES,
    }


WRITERS = {
    *("new_oids", "tpc_begin", "storea", "checkCurrentSerialInTransaction", "vote", "tpc_finish", "tpc_abort"),
    "transaction_outcome",
    *("storeBlobStart", "storeBlobChunk", "storeBlobEnd", "storeBlobShared"),
}
ADMINS = {"undoa", "pack", "deleteObject", "restorea", "restoreBlobEnd"}


def test_who_may_call_what() -> None:
    roles = {name: method.role for name, method in CLIENT_CALLS.items()}
    assert {name for name, role in roles.items() if role is ClientRole.WRITER} == WRITERS
    assert {name for name, role in roles.items() if role is ClientRole.ADMIN} == ADMINS
    assert all(method.role is ClientRole.READER for method in SERVER_PUSHES.values())


@pytest.mark.parametrize("method", CLIENT_CALLS.values(), ids=CLIENT_CALLS.keys())
def test_arguments_change_the_role_of_one_method_only(method: Method) -> None:
    assert method.role_for(()) is method.role
    if method.name != "tpc_begin":
        assert method.role_for((b"\0" * 8,) * 6) is method.role


@pytest.mark.parametrize(
    ("restored", "role"),
    [
        ((), ClientRole.WRITER),
        ((None,), ClientRole.WRITER),
        ((None, " "), ClientRole.WRITER),
        ((None, b" "), ClientRole.WRITER),
        ((b"\0" * 8, " "), ClientRole.ADMIN),
        ((None, "p"), ClientRole.ADMIN),
        ((None, b"p"), ClientRole.ADMIN),
    ],
)
def test_to_begin_a_transaction_of_another_storage_is_for_admins(restored: tuple[object, ...], role: object) -> None:
    assert CLIENT_CALLS["tpc_begin"].role_for((1, "", "", {}, *restored)) is role


OF_EXTENSIONS = {
    "tpc_begin": 1,
    "iterator_start": 1,
    "vote": 1,
}  # arguments that ZEO does not have; only a client that knows them sends them
# ZEO tells the size in get_info's map only, so that a client of ours must ask there; the rest are extensions.
NOT_ZEOS = {"clients", "getSize", "load_many", "restoreBlobEnd", "transaction_outcome"}


@pytest.mark.parametrize("method", CLIENT_CALLS.values(), ids=CLIENT_CALLS.keys())
def test_calls_are_those_of_zeos_server(method: Method) -> None:
    assert method.name in {"register", *ZEO.StorageServer.registered_methods, *NOT_ZEOS}
    theirs = getattr(ZEO.StorageServer.ZEOStorage, method.name, None)
    if theirs is None:
        return  # ZEO makes it when a client registers, of the storage's own method
    parameters = list(inspect.signature(theirs).parameters.values())[1:]
    assert len(method.arguments) == len(parameters) + OF_EXTENSIONS.get(method.name, 0)
    # ours may let an argument go that theirs insists on, never the other way round
    needed = sum(parameter.default is parameter.empty for parameter in parameters)
    assert required(method) <= needed


@pytest.mark.parametrize("method", SERVER_PUSHES.values(), ids=SERVER_PUSHES.keys())
def test_pushes_are_those_that_zeos_client_takes(method: Method) -> None:
    assert method.name in ZEO.asyncio.client.Protocol.client_methods
    theirs = inspect.signature(getattr(ZEO.ClientStorage.ClientStorage, method.name))
    assert len(method.arguments) == len(theirs.parameters) - 1


def test_the_tables_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        CLIENT_CALLS["x"] = CLIENT_CALLS["ping"]  # type: ignore[index]
