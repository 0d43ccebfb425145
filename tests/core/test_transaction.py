"""Transaction values, above all the extension: what may be in it, and what a hostile pickle in its place can do."""

import enum
import os
import pickle as stdlib_pickle
import tracemalloc
from collections import OrderedDict, UserDict
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import pytest
import ZEO.asyncio.marshal
import zodbpickle
from hypothesis import given, settings
from hypothesis import strategies as st
from persistent.mapping import PersistentMapping
from ZODB._compat import loads as zodb_loads
from zodbpickle import pickle

from zeo_core import transaction
from zeo_core.ids import ROOT_OID, ZERO_TID, pack_id

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.binary(max_size=5),
)
keys = st.one_of(st.text(max_size=5), st.binary(max_size=5))
plain = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
    ),
    max_leaves=10,
)
extensions = st.dictionaries(st.text(max_size=5), plain, max_size=4)
anything = st.recursive(
    st.one_of(scalars, st.integers(), st.text(st.characters(codec=None)), st.complex_numbers(), st.datetimes()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(keys, st.integers(), st.tuples(st.integers())), inner, max_size=3),
        st.sets(st.integers(), max_size=2),
    ),
    max_leaves=6,
)


class Colour(enum.IntEnum):
    RED = 1


class Word(enum.StrEnum):
    YES = "yes"


class Point(NamedTuple):
    x: int


# -- what may be in it ------------------------------------------------------------------------------------------------


@given(extensions)
def test_an_extension_comes_back_as_it_was(extension: dict[str, Any]) -> None:
    stored = transaction.extension_bytes(extension)
    assert transaction.extension_map(stored) == extension
    assert bool(stored) == bool(extension)


@given(extensions.filter(bool))
def test_zodb_reads_our_extensions(extension: dict[str, Any]) -> None:
    assert zodb_loads(transaction.extension_bytes(extension)) == extension


@given(extensions.filter(bool))
def test_we_read_zodbs_extensions(extension: dict[str, Any]) -> None:
    assert transaction.extension_map(pickle.dumps(extension, 3)) == extension


@pytest.mark.parametrize(
    "stored",
    [
        b"}q\x00U\x01xU\x01ys.",  # a Python 2 string, protocol 1
        b"\x80\x02}q\x00X\x01\x00\x00\x00xq\x01U\x01ys.",
        b"(dp0\nS'x'\np1\nS'y'\np2\ns.",
        pickle.dumps({"x": "y"}, 0),
    ],
)
def test_we_read_extensions_of_other_times(stored: bytes) -> None:
    assert transaction.extension_map(stored) == {"x": "y"}


@pytest.mark.parametrize("call", [b"U\x01y\x85R", b"C\x01y\x85R", b"C\x01y\x85\x81"])
def test_zodbpickles_bytes_are_read(call: bytes) -> None:
    stored = b"\x80\x03}U\x01xczodbpickle\nbinary\n" + call + b"s."
    expected = {} if call.startswith(b"U") else {"x": b"y"}  # bytes cannot be made of text
    assert transaction.extension_map(stored) == expected


@given(extensions)
def test_a_zeo_peer_can_read_what_we_keep(extension: dict[str, Any]) -> None:
    kept = transaction.extension_map(transaction.extension_bytes(extension))
    encode, decode = ZEO.asyncio.marshal.encoder(b"M5"), ZEO.asyncio.marshal.decoder(b"M5")
    decode(encode(0, True, "tpc_begin", (1, b"", b"", kept, None, " ")))


@given(st.dictionaries(st.one_of(st.text(), st.integers()), anything, max_size=3))
@settings(max_examples=200)
def test_whatever_is_accepted_a_peer_can_read(extension: Any) -> None:
    try:
        stored = transaction.extension_bytes(extension)
    except TypeError as error:
        assert "transaction extension: " in str(error)  # noqa: PT017 - both outcomes are right
        return
    payload = msgpack.packb(transaction.extension_map(stored), use_bin_type=True)
    msgpack.unpackb(payload, raw=False, use_list=False)


@pytest.mark.parametrize("nothing", [None, {}, OrderedDict()])
def test_no_extension_is_no_bytes(nothing: Any) -> None:
    assert transaction.extension_bytes(nothing) == b""
    assert transaction.extension_map(b"") == {}


def test_subclasses_of_plain_values_are_kept_as_plain_values() -> None:
    extension = {
        Word.YES: Word.YES,
        "n": Colour.RED,
        "p": Point(1),
        "m": OrderedDict(a=UserDict(b=1)),
        "b": zodbpickle.binary(b"x"),
        "j": PersistentMapping(k=1.0),
    }
    stored = transaction.extension_bytes(extension)
    expected = {"yes": "yes", "n": 1, "p": (1,), "m": {"a": {"b": 1}}, "b": b"x", "j": {"k": 1.0}}
    assert transaction.extension_map(stored) == expected
    assert b"Word" not in stored
    assert b"zodbpickle" not in stored


# -- what may not -----------------------------------------------------------------------------------------------------


def circle() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["again"] = value
    return value


def circular_list() -> dict[str, Any]:
    value: list[Any] = []
    value.extend([value] * 50)
    return {"again": value}


def deep(levels: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return {"x": value}


def wide() -> dict[str, Any]:
    """Make a dictionary of 30 lists that written out would have 10**30 values."""
    value: Any = 1
    for _ in range(30):
        value = [value] * 10
    return {"x": value}


def nested_key(levels: int) -> Any:
    key: Any = ()
    for _ in range(levels):
        key = (key,)
    return {key: 1}


REFUSED: list[tuple[Any, str]] = [
    ({1: 2}, "key 1 is no text"),
    ({b"x": 2}, "key b'x' is no text"),
    ({None: 2}, "key None is no text"),
    (nested_key(5000), "is no text"),
    ({"x": nested_key(5000)}, "x has a key"),
    ({"x": datetime(2024, 1, 1)}, "x is a datetime, not a plain value"),
    ({"x": {"y": [0, {1}]}}, "x['y'][1] is a set, not a plain value"),
    ({"x": bytearray(b"y")}, "x is a bytearray"),
    ({"x": 1j}, "x is a complex"),
    ({"x": object}, "x is a type"),
    ({"x": {1: 2}}, "x has a key, 1, that is neither text nor bytes"),
    ({"x": {(): 2}}, "x has a key, (), that is neither text nor bytes"),
    ({"x": 2**64}, "x takes more than 64 bits"),
    ({"x": [-(2**63) - 1]}, "x[0] takes more than 64 bits"),
    ({"x": "\udc80"}, "x is no Unicode text"),
    ({"\udc80": 1}, "a key is no Unicode text"),
    ({"x": {"\udc80": 1}}, "a key of x is no Unicode text"),
    ({"x": "y" * 2**21}, "x is where it takes more than"),
    ({"x": b"y" * 2**21}, "x is where it takes more than"),
    ([("x", 1)], "a list instead of a dictionary"),
    ("text", "a str instead of a dictionary"),
    (circle(), "is nested deeper than 100 levels"),
    (circular_list(), "is nested deeper than 100 levels"),
    (deep(101), "is nested deeper than 100 levels"),
    (deep(100_000), "is nested deeper than 100 levels"),
    (wide(), "characters"),
]


@pytest.mark.parametrize(("extension", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_what_a_peer_could_not_read_is_refused_with_the_place(extension: Any, reason: str) -> None:
    with pytest.raises(TypeError) as caught:
        transaction.extension_bytes(extension)
    assert str(caught.value).startswith("transaction extension: ")
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 400


def test_the_deepest_extension_that_is_taken_is_one_that_peers_read() -> None:
    stored = transaction.extension_bytes(deep(100 - 1))
    payload = msgpack.packb((1, 0, ".reply", ([{"extension": transaction.extension_map(stored)}],)))
    assert msgpack.unpackb(payload)


# -- what may stand in a file -----------------------------------------------------------------------------------------


def refused_but_pickled(extension: Any) -> bytes:
    try:
        return bytes(pickle.dumps(extension, 3))
    except (RecursionError, TypeError):
        return b""  # nor can it be pickled


PICKLED = [stored for extension, _ in REFUSED if (stored := refused_but_pickled(extension))]


@pytest.mark.parametrize("stored", [*PICKLED, b"x", b"\x80\x03", b"\x80\x03N.", b"\x80\x03]q\x00.", b"\xff" * 100])
def test_what_could_not_be_stored_by_us_reads_as_nothing(stored: bytes) -> None:
    assert transaction.extension_map(stored) == {}


class Canary:
    """Does harm when unpickled."""

    def __init__(self, call: Callable[..., object], *args: object) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call, self.args


def canaries(path: Path) -> list[bytes]:
    """Return pickles, of each protocol and by opcodes of their own, that make a directory when loaded carelessly."""
    harmful = Canary(os.mkdir, str(path))
    # the module of the global, `posix`, is in every process already; `harmful_canary` would have to be imported
    name = repr(str(path)).encode()
    by_hand = [
        b"(S" + name + b"\nios\nmkdir\n.",
        b"cos\nmkdir\n(S" + name + b"\ntR.",
        b"cbuiltins\n__import__\n(S'harmful_canary'\ntR.",
        b"charmful_canary\nanything\n.",
        b"(charmful_canary\nanything\no.",
        b"cos\nmkdir\nS" + name + b"\n\x85\x81.",
        b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93(S" + name + b"\ntR.",
        b"czodbpickle\nbinary\n(ibuiltins\neval\n.",
    ]
    return [stdlib_pickle.dumps({"x": harmful}, protocol) for protocol in range(6)] + by_hand


def test_a_hostile_pickle_imports_and_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "canary"
    module = tmp_path / "harmful_canary.py"
    module.write_text(f"import os\nos.mkdir({str(target)!r})\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    pickles = canaries(target)
    stdlib_pickle.loads(pickles[2])  # the canary is one
    target.rmdir()
    for stored in pickles:
        assert transaction.extension_map(stored) == {}
        assert not target.exists()


@pytest.mark.parametrize(
    "stored",
    [
        b"\x80\x03}r\x00\x00\x00\x08.",  # a memo of 2**27 places
        b"}p134217728\n.",
        b"czodbpickle\nbinary\n(J\x00\x00\x00\x08tR.",  # bytes(2**27)
        b"czodbpickle\nbinary\n(J\x00\x00\x00\x08t\x81.",
        b"\x80\x03B\xff\xff\xff\x7fx.",  # 2 GB of bytes that are not there
        b"\x80\x03X\xff\xff\xff\x7fx.",
        b"\x80\x03\x8b\xff\xff\xff\x7fx.",
    ],
)
def test_a_hostile_pickle_takes_no_memory(stored: bytes) -> None:
    tracemalloc.start()
    try:
        assert transaction.extension_map(stored) == {}
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=60))
@settings(max_examples=300)
def test_no_garbage_raises(garbage: bytes) -> None:
    assert isinstance(transaction.extension_map(garbage), dict)
    assert isinstance(transaction.extension_map(b"\x80\x03}" + garbage), dict)


@given(extensions.filter(bool), st.data())
@settings(max_examples=200)
def test_no_damage_raises(extension: dict[str, Any], data: st.DataObject) -> None:
    stored = bytearray(transaction.extension_bytes(extension))
    stored[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 255))
    assert isinstance(transaction.extension_map(bytes(stored)), dict)


# -- the values -------------------------------------------------------------------------------------------------------


def test_a_revision_is_the_triple_that_zodb_unpacks() -> None:
    data, serial, end = transaction.Revision(b"data", pack_id(1), None)
    assert (data, serial, end) == (b"data", pack_id(1), None)


def test_metadata_are_empty_bytes_unless_said() -> None:
    metadata = transaction.TransactionMetadata()
    assert (metadata.user, metadata.description, metadata.extension) == (b"", b"", b"")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (transaction.TransactionMetadata(), "user"),
        (transaction.PreparedTransaction(transaction.TransactionMetadata(), ()), "writes"),
        (transaction.Revision(b"", ZERO_TID, None), "data"),
        (transaction.ObjectWrite(ROOT_OID, ZERO_TID, b""), "serial"),
        (transaction.UndoEntry(ZERO_TID, transaction.TransactionMetadata(), 0), "metadata"),
        (transaction.Invalidation(ZERO_TID, ()), "oids"),
        (transaction.RecordedObject(ROOT_OID, ZERO_TID, None, None), "data"),
        (transaction.RecordedTransaction(ZERO_TID, b" ", transaction.TransactionMetadata(), ()), "status"),
        (transaction.HistoryEntry(ZERO_TID, transaction.TransactionMetadata(), 0), "size"),
    ],
)
def test_values_are_immutable_and_hashable(value: Any, name: str) -> None:
    with pytest.raises((AttributeError, FrozenInstanceError)):
        setattr(value, name, None)
    assert hash(value) == hash(value)


def test_whole_data_wherever_they_are() -> None:
    class Spooled:
        def __len__(self) -> int:
            return 4

        def read(self) -> bytes:
            return b"data"

    assert [transaction.whole(data) for data in (b"here", Spooled(), None)] == [b"here", b"data", None]
