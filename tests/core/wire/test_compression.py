"""Compressed objects: back as they were, and nothing that a peer can make of them takes memory without bound."""

import os
import zlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeo_core.errors import RemoteProtocolError
from zeo_core.ids import pack_id
from zeo_core.wire import compression
from zeo_core.wire.compression import COMPRESSED_MAX_BYTES, COMPRESSED_MIN_BYTES, compressed, decompressed

OID, TID = pack_id(1), pack_id(2)


def packed(value: Any) -> bytes:
    return zlib.compress(msgpack.packb(value, use_bin_type=True))


ids = st.binary(min_size=8, max_size=8)


@given(st.lists(st.tuples(ids, st.binary(max_size=300), ids, st.none() | ids), max_size=20))
def test_objects_come_back(entries: list[tuple[bytes, bytes, bytes, bytes | None]]) -> None:
    entries += [(OID, b"x" * 2000, TID, None)] * 10
    smaller = compressed(entries)
    assert smaller is not None
    assert len(smaller) < len(msgpack.packb(entries))
    assert decompressed(smaller) == tuple(entries)


def test_as_many_as_a_server_gives_come_back() -> None:
    entries = [(OID, b"x" * 100, TID, TID)] * 10_000
    smaller = compressed(entries)
    assert smaller is not None
    assert len(decompressed(smaller)) == 10_000


def test_what_cannot_be_made_smaller_is_left() -> None:
    assert compressed([(OID, os.urandom(10_000), TID, None)]) is None
    assert compressed([(OID, os.urandom(1_000_000), TID, None)]) is None
    assert compressed([(OID, b"x" * (COMPRESSED_MIN_BYTES - 100), TID, None)]) is None
    assert compressed([]) is None


def test_what_would_be_too_large_for_the_other_side_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "COMPRESSED_MAX_BYTES", 10_000)
    assert compressed([(OID, b"x" * 9_000, TID, None)]) is not None
    assert compressed([(OID, b"x" * 10_000, TID, None)]) is None


def test_a_bomb_is_refused() -> None:
    bomb = packed([b"\0" * (COMPRESSED_MAX_BYTES + 1)])
    assert len(bomb) < 100_000
    with pytest.raises(RemoteProtocolError, match="more than 67108864 bytes"):
        decompressed(bomb)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no zlib",
        packed([1])[:-1],
        packed([1]) + b"x",
        packed(1),
        packed(b"x"),
        packed({}),
        packed([{1: 2}]),
        packed([msgpack.ExtType(1, b"x")]),
        packed([[None] * 8] * 9000),
        packed([None] * 10_001),
        packed([[[None] * 9000] * 9] * 9),
        zlib.compress(b"\x91" * 5000),
        zlib.compress(msgpack.packb([1]) + b"\0"),
        zlib.compress(b"\xdd\xff\xff\xff\xff"),
    ],
    ids=range(15),
)
def test_what_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="compressed objects"):
        decompressed(data)
