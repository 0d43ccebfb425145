"""The wire format of Protocol Buffers, as far as a message can be read and written without its schema.

A message is a row of fields, each a key and a value. The key is a varint, the field's number times eight plus the wire
type, which says how far the value goes:

    0 VARINT      a varint: seven bits a byte, the lowest first, the high bit set in all bytes but the last
    1 FIXED64     8 bytes, little-endian
    2 DELIMITED   a varint with a length, and so many bytes: bytes, text, a sub-message or packed numbers
    5 FIXED32     4 bytes, little-endian

The types 3 and 4, which enclose a group, are those of schemas from before 2008; they are refused.

Source: the encoding's public description, https://protobuf.dev/programming-guides/encoding/.
"""

from collections.abc import Iterator
from typing import Final, TypeAlias

__all__ = ["DELIMITED", "FIXED32", "FIXED64", "VARINT", "Field", "MalformedError", "delimited", "fields", "varint"]

VARINT: Final = 0
FIXED64: Final = 1
DELIMITED: Final = 2
FIXED32: Final = 5

_WIDTHS: Final = {FIXED64: 8, FIXED32: 4}
_MAX_NUMBER: Final = (1 << 29) - 1
_SHORT: Final = [bytes([value]) for value in range(128)]


class MalformedError(ValueError):
    """The bytes are no message: cut off, or nothing that an encoder would write."""


Field: TypeAlias = tuple[int, int, int | bytes]
"""A field's number, its wire type, and its value: an int for a VARINT, the bytes without their length for all else."""


def varint(value: int) -> bytes:
    """Return the varint of a number from 0 to 2**64 - 1; ValueError for any other."""
    if 0 <= value < 128:
        return _SHORT[value]
    if not 0 <= value < 1 << 64:
        raise ValueError(f"no number of 64 bits without sign: {value}")
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def delimited(number: int, value: bytes) -> bytes:
    """Return a field of the type DELIMITED."""
    return varint(number << 3 | DELIMITED) + varint(len(value)) + value


def fields(data: bytes) -> Iterator[Field]:
    """Read the fields of a message in turn; MalformedError where it stops being one."""
    position, end = 0, len(data)
    while position < end:
        # Nearly every key, and most values, are a single byte, which is not worth a call.
        key = data[position]
        position += 1
        if key > 127:
            key, position = _varint(data, position - 1)
        number, wire_type = key >> 3, key & 7
        if not 0 < number <= _MAX_NUMBER:
            raise MalformedError(f"field number {number} before byte {position}")
        if wire_type in _WIDTHS:
            value = _WIDTHS[wire_type]
        elif wire_type not in (VARINT, DELIMITED):
            raise MalformedError(f"wire type {wire_type} before byte {position}")
        elif position < end and data[position] < 128:
            value = data[position]
            position += 1
        else:
            value, position = _varint(data, position)
        if wire_type == VARINT:
            yield number, VARINT, value
            continue
        if value > end - position:
            raise MalformedError(f"cut off: field {number} has {value} bytes, {end - position} are left")
        position += value
        yield number, wire_type, data[position - value : position]


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the number that begins there, and where it ends."""
    try:
        value = data[position]
        if value < 128:
            return value, position + 1
        value &= 127
        for shift in range(7, 70, 7):
            position += 1
            byte = data[position]
            value |= (byte & 127) << shift
            if byte < 128:
                break
        else:
            raise MalformedError(f"a varint of more than ten bytes before byte {position}")
    except IndexError:
        raise MalformedError(f"cut off in a varint at byte {len(data)}") from None
    if value >= 1 << 64:
        raise MalformedError(f"a varint of more than 64 bits before byte {position}")
    return value, position + 1
