"""The envelope of records, read and written quickly: as zeo_core reads and writes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeo_client.protobuf.envelope import (
    NO_DATABASE,
    class_metadata,
    encoded_class,
    encoded_reference,
    read_envelope,
    write_envelope,
)
from zeo_core.errors import RecordFormatError
from zeo_core.ids import pack_id
from zeo_core.protobuf_record import ClassMetadata, ObjectRecord, Reference, decode, encode

NAMES = st.sampled_from(["Node", "shop.models", "Übung", "x" * 200])
CLASSES = st.builds(ClassMetadata, NAMES, NAMES)
REFERENCES = st.builds(
    Reference,
    st.integers(0, (1 << 32) - 1),
    st.integers(0, (1 << 64) - 1),
    st.none() | CLASSES,
    st.none() | st.sampled_from(["beta", "ü"]),
    st.booleans(),
)
RECORDS = st.builds(ObjectRecord, CLASSES, st.binary(max_size=200), st.lists(REFERENCES, max_size=4).map(tuple))


@given(RECORDS)
def test_records_are_written_as_by_the_core(record: ObjectRecord) -> None:
    references = [
        encoded_reference(
            each.refid,
            pack_id(each.zoid),
            b"" if each.class_meta is None else encoded_class(*each.class_meta),
            each.database or "",
            each.weak,
        )
        for each in record.references
    ]
    assert write_envelope(encoded_class(*record.class_meta), record.state, references) == encode(record)


@given(RECORDS)
def test_records_are_read_as_by_the_core(record: ObjectRecord) -> None:
    found = read_envelope(encode(record))
    references = [
        Reference(
            each.refid,
            each.zoid,
            class_metadata(each.class_meta) if each.class_meta else None,
            None if each.database == NO_DATABASE else each.database,
            each.weak,
        )
        for each in found.references
    ]
    assert ObjectRecord(class_metadata(found.class_meta), found.state, tuple(references)) == record


WHOLE = encode(ObjectRecord(ClassMetadata("m", "C"), b"state", (Reference(1, 2, ClassMetadata("m", "C")),)))


@pytest.mark.parametrize(
    "data",
    [
        WHOLE[:-1],
        b"{protobuf}",
        WHOLE + b"\x12\x00",  # a second state, which `protobuf` takes for the first
        WHOLE + WHOLE[10:16],
        b"{protobuf}\n\x06\n\x01m\x12\x01C\x12\x00\x1a\x06\x08\x01\x10\x02\x10\x03",  # a second oid in a reference
        b"{protobuf}\n\x06\n\x01m\x12\x01C\x12\x00\x1a\x02\x08\x01",
    ],
)
def test_what_the_core_refuses_is_refused(data: bytes) -> None:
    with pytest.raises(RecordFormatError):
        decode(data)
    with pytest.raises(RecordFormatError):
        read_envelope(data)


def test_fields_of_later_versions_are_skipped() -> None:
    assert read_envelope(WHOLE + b"\x52\x01x").state == b"state"
