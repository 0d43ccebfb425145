"""The file of a large transaction."""

import os
import resource
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeo_client import staging_spool
from zeo_client.staging_spool import StagingSpool
from zeo_core.errors import StorageError
from zeo_core.ids import ZERO_TID, Oid, pack_id
from zeo_core.wire.codec import encode_one_way
from zeo_core.wire.frames import FrameDecoder

A, B, C = (pack_id(number) for number in (1, 2, 3))


def call(oid: Oid, data: bytes) -> bytes:
    return encode_one_way("storea", (oid, ZERO_TID, data, 7))


def frames(data: bytes) -> list[bytes]:
    decoder = FrameDecoder(1 << 24)
    decoder.feed(data)
    found = []
    while (payload := decoder.take()) is not None:
        found.append(bytes(payload))
    return found


@pytest.fixture
def spool() -> Iterator[StagingSpool]:
    spool = StagingSpool()
    yield spool
    spool.close()


def test_calls_come_back_in_their_order(spool: StagingSpool) -> None:
    calls = [(oid, call(oid, b"x" * 100)) for oid in (C, A, B)]
    spool.add(calls[:2])
    spool.add(calls[2:])
    assert b"".join(spool.pieces(())) == b"".join(data for _, data in calls)
    assert spool.arguments(A) == ("storea", (A, ZERO_TID, b"x" * 100, 7))
    assert list(spool.oids()) == [C, A, B]


def test_what_was_replaced_or_is_not_wanted_is_left_out(spool: StagingSpool) -> None:
    spool.add((oid, call(oid, b"first")) for oid in (A, B, C))
    spool.add([(A, call(A, b"second"))])
    spool.forget(C)
    spool.forget(C)
    assert b"".join(spool.pieces(())) == call(B, b"first") + call(A, b"second")
    assert b"".join(spool.pieces({B})) == call(A, b"second")
    assert C not in spool
    with pytest.raises(KeyError):
        spool.arguments(C)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 400), st.booleans()), max_size=30),
    unwanted=st.sets(st.integers(0, 5)),
)
def test_pieces_are_whole_calls_of_a_bounded_size(steps: list[tuple[int, int, bool]], unwanted: set[int]) -> None:
    truth: dict[Oid, bytes] = {}
    spool = StagingSpool()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staging_spool, "PIECE_BYTES", 300)
        for number, size, forget in steps:
            oid = pack_id(number)
            truth.pop(oid, None)
            if forget:
                spool.forget(oid)
            else:
                truth[oid] = call(oid, os.urandom(size))
                spool.add([(oid, truth[oid])])
        pieces = list(spool.pieces({pack_id(number) for number in unwanted}))
    spool.close()
    wanted = [data for oid, data in truth.items() if oid not in {pack_id(number) for number in unwanted}]
    assert b"".join(pieces) == b"".join(wanted)
    assert sum(len(frames(piece)) for piece in pieces) == len(wanted)
    assert all(len(piece) < 300 + 500 for piece in pieces)


def test_a_disk_that_is_full_is_told() -> None:
    spool = StagingSpool()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        with pytest.raises(StorageError, match="cannot write a temporary file for a large transaction"):
            spool.add([(A, call(A, b"x" * 100_000))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    spool.close()


def test_a_directory_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere/at/all")
    with pytest.raises(StorageError, match="cannot make a temporary file"):
        StagingSpool()
