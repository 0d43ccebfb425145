"""The envelope of records with a Protocol Buffers message, with the package `protobuf` as the oracle."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests import protobuf_schemas
from zeo_core import record
from zeo_core.errors import RecordFormatError
from zeo_core.ids import pack_id, unpack_id
from zeo_core.protobuf_record import PREFIX, ClassMetadata, ObjectRecord, Reference, decode, encode, redirected

TheirRecord = protobuf_schemas.message_class(protobuf_schemas.envelope, "ObjectRecord")

BOB = b"{protobuf}\n \n\x14keas.pbpersist.tests\x12\x08PContact\x12\x07\x08\x01\x12\x03Bob"
PCONTACT = ClassMetadata("keas.pbpersist.tests", "PContact")

texts = st.text(max_size=8)
classes = st.builds(ClassMetadata, texts, texts)
references = st.builds(
    Reference,
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.none() | classes,
    st.none() | texts,
    st.booleans(),
)
records = st.builds(ObjectRecord, classes, st.binary(max_size=40), st.lists(references, max_size=5).map(tuple))


def encoded_by_protobuf(value: ObjectRecord) -> bytes:
    """Return the record as the package writes it."""
    message = TheirRecord(state=value.state)
    message.class_meta.module_name, message.class_meta.class_name = value.class_meta
    for reference in value.references:
        _fill(message.references.add(), reference)
    return PREFIX + bytes(message.SerializeToString())


def _fill(theirs: Any, reference: Reference) -> None:
    theirs.refid, theirs.zoid = reference.refid, reference.zoid
    if reference.class_meta is not None:
        theirs.class_meta.module_name, theirs.class_meta.class_name = reference.class_meta
    if reference.database is not None:
        theirs.database = reference.database
    if reference.weak:
        theirs.weak = True


def decoded_by_protobuf(data: bytes) -> ObjectRecord:
    """Return what the package reads; its own errors for what it does not take."""
    message = TheirRecord.FromString(data.removeprefix(PREFIX))
    return ObjectRecord(
        ClassMetadata(message.class_meta.module_name, message.class_meta.class_name),
        message.state,
        tuple(map(_read, message.references)),
    )


def _read(theirs: Any) -> Reference:
    class_meta = ClassMetadata(theirs.class_meta.module_name, theirs.class_meta.class_name)
    return Reference(
        theirs.refid,
        theirs.zoid,
        class_meta if theirs.HasField("class_meta") else None,
        theirs.database if theirs.HasField("database") else None,
        theirs.weak,
    )


def test_the_known_record_of_the_original_is_read_and_written() -> None:
    bob = ObjectRecord(PCONTACT, b"\x08\x01\x12\x03Bob")
    assert len(BOB) - len(PREFIX) == 43
    assert decode(BOB) == bob
    assert encode(bob) == BOB


@given(records)
@example(ObjectRecord(PCONTACT, b"", (Reference(1, 2**64 - 1, PCONTACT, "other", weak=True),)))
@example(ObjectRecord(ClassMetadata("m" * 300, "C"), b"x" * 200))  # longer than what is remembered
def test_the_bytes_are_those_of_the_package(value: ObjectRecord) -> None:
    data = encode(value)
    assert data == encoded_by_protobuf(value)
    assert decode(data) == value == decoded_by_protobuf(data)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_record_or_an_error(data: bytes) -> None:
    _same_or_refused(PREFIX + data)


@given(records, st.data())
def test_a_damaged_record_is_never_read_otherwise_than_by_the_package(value: ObjectRecord, data: st.DataObject) -> None:
    damaged = bytearray(encode(value))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(len(PREFIX), len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    _same_or_refused(bytes(damaged))
    _same_or_refused(bytes(damaged[: data.draw(st.integers(len(PREFIX), len(damaged)))]))


def _same_or_refused(data: bytes) -> None:
    try:
        found = decode(data)
    except RecordFormatError:
        return
    assert found == decoded_by_protobuf(data)


CLASS = b"\n\x06\n\x01m\x12\x01C"
STATE = b"\x12\x00"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "field 1 of ObjectRecord is missing"),
        (CLASS, "field 2 of ObjectRecord is missing"),
        (CLASS + STATE + STATE, "field 2 of ObjectRecord comes twice"),
        (CLASS + b"\x10\x00", "field 2 of ObjectRecord is of wire type 0"),
        (b"\n\x03\n\x01m" + STATE, "ClassMetadata lacks module_name or class_name"),
        (b"\n\x06\n\x01m\n\x01n" + STATE, "ClassMetadata.module_name comes twice"),
        (b"\n\x06\n\x01\xff\x12\x01C" + STATE, "utf-8"),
        (CLASS + STATE + b"\x1a\x02\x08\x01", "Reference lacks refid or zoid"),
        (CLASS + STATE + b"\x1a\x04\x08\x01\x12\x00", "Reference.zoid is of wire type 2"),
        (CLASS + STATE + b"\x1a\x08\x08\x80\x80\x80\x80\x10\x10\x01", "refid of more than 32 bits: 4294967296"),
        (CLASS + STATE + b"\x1a\x05\x08", "cut off"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, told: str) -> None:
    with pytest.raises(RecordFormatError, match=f"no protobuf object record: .*{told}"):
        decode(PREFIX + data)


def test_another_format_is_not_taken() -> None:
    with pytest.raises(RecordFormatError, match=r"it begins with b'{pickled}.'"):
        decode(b"{pickled}..")


def test_fields_of_later_versions_are_skipped() -> None:
    reference = b"\x1a\x06\x30\x01\x08\x01\x10\x02"
    later = PREFIX + b"\x22\x01x" + CLASS + b"\x28\x07" + STATE + reference + b"\x22\x00"
    assert decode(later) == ObjectRecord(ClassMetadata("m", "C"), b"", (Reference(1, 2),)) == decoded_by_protobuf(later)


@pytest.mark.parametrize("reference", [Reference(2**32, 1), Reference(-1, 1), Reference(1, 2**64), Reference(1, -1)])
def test_a_number_that_does_not_fit_is_not_written(reference: Reference) -> None:
    with pytest.raises(ValueError, match="bits"):
        encode(ObjectRecord(PCONTACT, b"", (reference,)))


def test_targets_are_changed_but_for_those_in_other_databases() -> None:
    references = Reference(1, 5, PCONTACT), Reference(2, 6, weak=True), Reference(3, 7, None, "other")
    changed = redirected(encode(ObjectRecord(PCONTACT, b"s", references)), lambda oid: pack_id(unpack_id(oid) + 100))
    expected = Reference(1, 105, PCONTACT), Reference(2, 106, weak=True), references[2]
    assert decode(changed) == ObjectRecord(PCONTACT, b"s", expected)


def test_the_registry_knows_the_format() -> None:
    other = ClassMetadata("shop", "Order")
    data = encode(
        ObjectRecord(
            PCONTACT,
            b"state",
            (
                Reference(7, 42, other),
                Reference(8, 43),
                Reference(9, 44, weak=True),
                Reference(10, 45, other, "archive"),
                Reference(11, 42),
            ),
        )
    )
    assert record.format_name(data) == "protobuf"
    assert record.class_name(data) == "keas.pbpersist.tests.PContact"
    assert record.references(data) == [pack_id(42), pack_id(43), pack_id(42)]
    assert not record.is_blob_record(data)


def test_a_damaged_record_stops_whoever_asks_for_its_references() -> None:
    with pytest.raises(RecordFormatError, match="no protobuf object record"):
        record.references(BOB[:-1])
    with pytest.raises(RecordFormatError, match="no protobuf object record"):
        record.class_name(BOB[:20])
