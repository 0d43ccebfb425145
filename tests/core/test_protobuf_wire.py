"""The wire format without a schema, with the package `protobuf` as the oracle."""

from collections.abc import Iterable
from typing import Any, cast

import pytest
from google.protobuf import unknown_fields
from google.protobuf.empty_pb2 import Empty
from hypothesis import example, given
from hypothesis import strategies as st

from zeo_core.protobuf_wire import DELIMITED, FIXED32, FIXED64, VARINT, Field, MalformedError, delimited, fields, varint

numbers = st.integers(0, 2**64 - 1)
field_numbers = st.integers(1, 2**29 - 1)


def theirs(data: bytes) -> list[Field]:
    """Return the fields as the package sees them: a message without fields keeps them all as unknown ones."""
    message = Empty.FromString(data)
    return [
        (field.field_number, field.wire_type, _as_bytes(field.wire_type, field.data))
        for field in cast(Iterable[Any], unknown_fields.UnknownFieldSet(message))
    ]


def _as_bytes(wire_type: int, value: int | bytes) -> int | bytes:
    if isinstance(value, int) and wire_type in (FIXED32, FIXED64):
        return value.to_bytes(4 if wire_type == FIXED32 else 8, "little")
    return value


def written(field: Field) -> bytes:
    number, wire_type, value = field
    if isinstance(value, int):
        return varint(number << 3 | VARINT) + varint(value)
    if wire_type == DELIMITED:
        return delimited(number, value)
    return varint(number << 3 | wire_type) + value


rows = st.lists(
    st.one_of(
        st.tuples(field_numbers, st.just(VARINT), numbers),
        st.tuples(field_numbers, st.just(DELIMITED), st.binary(max_size=200)),
        st.tuples(field_numbers, st.just(FIXED32), st.binary(min_size=4, max_size=4)),
        st.tuples(field_numbers, st.just(FIXED64), st.binary(min_size=8, max_size=8)),
    ),
    max_size=8,
)


@given(rows)
def test_fields_are_read_as_the_package_reads_them(row: list[Field]) -> None:
    data = b"".join(map(written, row))
    assert list(fields(data)) == row == theirs(data)


@given(numbers)
@example(127)
@example(128)
@example(2**64 - 1)
def test_a_varint_is_read_back(number: int) -> None:
    assert list(fields(b"\x08" + varint(number))) == [(1, VARINT, number)]


@pytest.mark.parametrize("number", [-1, 2**64])
def test_a_varint_has_64_bits(number: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        varint(number)


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_malformed(data: bytes) -> None:
    try:
        found = list(fields(data))
    except MalformedError:
        return
    assert found == theirs(data)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\x08", "cut off in a varint at byte 1"),
        (b"\x08\x80", "cut off in a varint at byte 2"),
        (b"\x08" + b"\x80" * 10 + b"\x01", "more than ten bytes"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "more than 64 bits"),
        (b"\x0a\x05abc", "cut off: field 1 has 5 bytes, 3 are left"),
        (b"\x09abc", "cut off: field 1 has 8 bytes, 3 are left"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x0c", "wire type 4"),
        (b"\x0e", "wire type 6"),
        (b"\x00\x00", "field number 0"),
        (b"\x80\x80\x80\x80\x10\x00", "field number 536870912"),
    ],
)
def test_what_is_malformed_is_said(data: bytes, told: str) -> None:
    with pytest.raises(MalformedError, match=told):
        list(fields(data))
