"""The object record: what is read from it without importing a class, with ZODB's own functions as the oracle."""

import pickle as stdlib_pickle
import re
import sys
import zlib
from io import BytesIO
from typing import Any

import pytest
import ZODB.blob
import ZODB.serialize
import ZODB.utils
from hypothesis import example, given, settings
from hypothesis import strategies as st
from zodbpickle import pickle

from zeo_core import record
from zeo_core.errors import RecordFormatError
from zeo_core.ids import Oid, pack_id


class Known:
    """A class that can be pickled by name."""


class KnownPersistent:
    """Pickled as a reference: the state holds it in place of what it refers to."""

    def __init__(self, reference: Any) -> None:
        self.reference = reference


class _Writer(pickle.Pickler):
    def persistent_id(self, obj: object) -> object:
        return obj.reference if isinstance(obj, KnownPersistent) else None


def make_record(metadata: object, state: object, protocol: int = 3) -> bytes:
    file = BytesIO()
    writer = _Writer(file, protocol)
    writer.dump(metadata)
    writer.clear_memo()
    writer.dump(state)
    return file.getvalue()


oids = st.integers(0, 2**64 - 1).map(pack_id)
strong = st.one_of(oids, st.tuples(oids, st.just(Known)))
weak = st.one_of(
    st.tuples(st.just("w"), st.tuples(oids)).map(list),
    st.tuples(st.just("w"), st.tuples(oids, st.text(max_size=5))).map(list),
    st.tuples(oids).map(list),
)
foreign = st.one_of(
    st.tuples(st.just("n"), st.tuples(st.text(max_size=5), oids)).map(list),
    st.tuples(st.just("m"), st.tuples(st.text(max_size=5), oids, st.just(Known))).map(list),
)
leaves = st.one_of(
    st.none(),
    st.integers(),
    st.text(max_size=10),
    st.binary(max_size=10),
    st.builds(Known),
    st.builds(KnownPersistent, st.one_of(strong, weak, foreign)),
)
states = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=4)),
)


@given(state=states)
@settings(max_examples=150, deadline=None)
def test_references_are_those_that_zodb_finds(state: object) -> None:
    data = make_record(Known, state)
    assert record.references(data) == ZODB.serialize.referencesf(data)


@given(expected=st.lists(strong, max_size=5), others=st.lists(st.one_of(weak, foreign), max_size=5))
@settings(max_examples=50, deadline=None)
def test_only_strong_references_within_the_database_count(expected: list[Any], others: list[Any]) -> None:
    data = make_record(Known, [KnownPersistent(reference) for reference in [*others, *expected]])
    assert record.references(data) == [one[0] if isinstance(one, tuple) else one for one in expected]


REFERENCES = st.one_of(
    st.binary(min_size=8, max_size=8),
    st.tuples(st.binary(min_size=8, max_size=8), st.none()),
    st.tuples(st.sampled_from([b"1234567", "12345678", 8]), st.none()),
    st.just(()),
    st.lists(st.binary(min_size=8, max_size=8), max_size=2),
)


@given(st.lists(REFERENCES, max_size=5))
def test_many_references_are_read_as_one_by_one(found: list[Any]) -> None:
    file = BytesIO()
    pickler = pickle.Pickler(file, 3)
    pickler.persistent_id = lambda value: value.reference if isinstance(value, _Reference) else None
    pickler.dump(("module", "Class"))
    pickler.dump([_Reference(reference) for reference in found])
    try:
        expected = [record._oid(reference) for reference in found if not isinstance(reference, list)]
    except RecordFormatError as error:
        with pytest.raises(RecordFormatError, match=re.escape(str(error))):
            record.references(file.getvalue())
    else:
        assert record.references(file.getvalue()) == expected


class _Reference:
    def __init__(self, reference: object) -> None:
        self.reference = reference


def test_a_persistent_class_is_referred_to() -> None:
    data = make_record((KnownPersistent(pack_id(7)), None), None)
    assert record.references(data) == [pack_id(7)]
    assert record.class_name(data) == "persistent class.0x07"


@pytest.mark.parametrize("oid", [b"abcdefgh", b"abcdefg\xff"])
def test_oids_that_python_2_wrote_as_strings(oid: Oid) -> None:
    one = b"(U\x08" + oid + b"ctwo\nname\ntQ."
    assert record.references(b"cmodule\nname\n.(" + one[:-1] + b"l.") == [oid]


METADATA: list[object] = [
    Known,
    (Known, ()),
    (Known, (1, "a", Known)),
    (Known, None),
    (("some.module", "Name"), None),
    (("some.module", "Name"), (1, 2)),
]


@pytest.mark.parametrize("protocol", [1, 2, 3])
@pytest.mark.parametrize("metadata", METADATA, ids=repr)
def test_class_names_are_those_that_zodb_finds(metadata: object, protocol: int) -> None:
    data = make_record(metadata, {"a": 1}, protocol)
    assert record.class_name(data) == ".".join(ZODB.utils.get_pickle_metadata(data))


def test_a_metadata_pickle_of_protocol_0_is_read_too() -> None:
    data = stdlib_pickle.dumps((Known, ()), 0) + stdlib_pickle.dumps({}, 0)
    assert record.class_name(data) == f"{__name__}.Known"
    assert record.references(data) == []


def test_no_class_is_imported() -> None:
    fly = b"cantigravity\nfly\n"  # importing that module would open a browser
    record_of_it = b"\x80\x03" + fly + b".\x80\x03" + fly + b")\x81K\x01b."
    arguments_with_it = b"\x80\x03X\x01\x00\x00\x00mX\x01\x00\x00\x00n\x86" + fly + b")\x81K\x01b\x86.N."
    assert record.class_name(record_of_it) == "antigravity.fly"
    assert record.class_name(arguments_with_it) == "m.n"
    assert record.references(record_of_it) == record.references(arguments_with_it) == []
    assert "antigravity" not in sys.modules


def test_arguments_of_a_metadata_pickle_stay_inert() -> None:
    # An instance that is appended to once and many times, given an item and a state, and the result of a call.
    instance = b"c__builtin__\nlist\n)\x81K\x01a(K\x02K\x03eK\x01K\x02sK\x01b"
    called = b"ccodecs\nencode\nK\x01\x85R"
    data = b"\x80\x03X\x01\x00\x00\x00mX\x01\x00\x00\x00n\x86" + instance + called + b"\x86\x86.N."
    assert record.class_name(data) == "m.n"


GARBAGE = [b"", b".", b"garbage", b"\x80\x03", b"\x80\x03cmodule", b"\x80\x03c\xff\n\n", b"N.N."]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(RecordFormatError):
        record.class_name(garbage)


@pytest.mark.parametrize("reference", [b"short", b"", (), (1,), 5, "kurz", "ä" * 8])
def test_a_reference_without_an_oid_is_refused(reference: object) -> None:
    data = make_record(Known, KnownPersistentAny(reference))
    with pytest.raises(RecordFormatError):
        record.references(data)


class KnownPersistentAny(KnownPersistent):
    """A reference that no writer makes."""


@given(data=st.binary(max_size=60))
@example(data=b"(0Q.")
@settings(max_examples=200, deadline=None)
def test_any_bytes_give_an_answer_or_our_error(data: bytes) -> None:
    for question in (record.references, record.class_name):
        try:
            question(data)
        except RecordFormatError:
            continue


@given(state=states, position=st.integers(0, 10_000), byte=st.integers(0, 255))
@settings(max_examples=100, deadline=None)
def test_a_damaged_byte_gives_an_answer_or_our_error(state: object, position: int, byte: int) -> None:
    data = bytearray(make_record((Known, ()), state))
    position %= len(data)
    # A memo index of four bytes would make any unpickler allocate that many slots: the one thing not tried here.
    data[position] = 0 if byte == stdlib_pickle.LONG_BINPUT[0] else byte
    test_any_bytes_give_an_answer_or_our_error.hypothesis.inner_test(bytes(data))  # type: ignore[attr-defined]


class Reversed:
    """A format of a test's own: the class's name, a line end, and oids one after the other."""

    def references(self, data: bytes) -> list[Oid]:
        oids = data.split(b"\n", 1)[1]
        return [oids[start : start + 8] for start in range(0, len(oids), 8)]

    def class_name(self, data: bytes) -> str:
        return data.split(b"}")[1].split(b"\n")[0].decode()


def test_other_formats_are_asked_by_their_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_formats", dict(record._formats))
    record.register_format("reversed", Reversed())
    data = b"{reversed}a.B\n" + pack_id(1) + pack_id(2)
    assert record.format_name(data) == "reversed"
    assert record.references(data) == [pack_id(1), pack_id(2)]
    assert record.class_name(data) == "a.B"


def test_the_default_format_is_pickle() -> None:
    assert record.format_name(make_record(Known, None)) == record.PICKLE


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(RecordFormatError, match=r"'thrift'.*installed"):
        record.references(b"{thrift}\n\x00")


def test_a_prefix_without_end_is_no_format() -> None:
    with pytest.raises(RecordFormatError, match="neither"):
        record.class_name(b"{" + b"x" * 100 + b"}")


@pytest.mark.parametrize("name", ["", "a b", "a}", "x" * 63])
def test_a_format_needs_a_plain_name(name: str) -> None:
    with pytest.raises(ValueError, match="identifier"):
        record.register_format(name, Reversed())


def test_a_few_bytes_do_not_take_gigabytes() -> None:
    with pytest.raises(RecordFormatError, match="memo index"):
        record.class_name(b"\x80\x03}r\x00\x00\x00\x08.")


# -- records that a wrapper of a storage has transformed


def test_compressed_records_are_read_as_what_they_were() -> None:
    plain = make_record(Known, [KnownPersistent(pack_id(number)) for number in range(50)])
    compressed = b".z" + zlib.compress(plain)
    assert record.untransformed(compressed) == plain
    assert record.untransformed(plain) is plain
    assert record.references(compressed) == [pack_id(number) for number in range(50)]
    assert record.class_name(compressed) == record.class_name(plain)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b".z" + zlib.compress(b"x" * 100)[:-5], "damaged: ValueError: compressed data, cut off"),
        (b".znothing", "damaged: error: Error -3"),
        (b".x", "transformed in an unknown way, b'.x'"),
        (b".", "transformed in an unknown way"),
    ],
)
def test_a_transformed_record_that_cannot_be_read_is_an_error(data: bytes, reason: str) -> None:
    for read in (record.references, record.class_name):
        with pytest.raises(RecordFormatError, match=reason):
            read(data)


def test_a_few_bytes_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_MAX_INFLATED_BYTES", 1000)
    with pytest.raises(RecordFormatError, match="of more than 1000 bytes"):
        record.references(b".z" + zlib.compress(b"x" * 1001))


def test_other_transformations_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_untransforms", dict(record._untransforms))
    plain = make_record(Known, None)
    record.register_untransform(b".r", lambda data: data[::-1])
    assert record.class_name(b".r" + plain[::-1]) == record.class_name(plain)
    for mark in (b"rr", b".", b".rr"):
        with pytest.raises(ValueError, match="full stop and one more byte"):
            record.register_untransform(mark, bytes)


# -- blobs


def test_a_blob_record_is_told_from_others() -> None:
    assert record.is_blob_record(ZODB.serialize.ObjectWriter().serialize(ZODB.blob.Blob()))
    assert not record.is_blob_record(None)
    assert not record.is_blob_record(b"ZODB.blob but no pickle")
    assert not record.is_blob_record(stdlib_pickle.dumps(("about", "ZODB.blob.Blob")))
