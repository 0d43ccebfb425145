"""Framing: streams cut anywhere, lengths that lie."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeo_core.errors import RemoteProtocolError
from zeo_core.wire.frames import HEADER_BYTES, FrameDecoder, encode_frame

MAX_BYTES = 1000

payload_lists = st.lists(st.binary(max_size=40), max_size=8)


def take_all(decoder: FrameDecoder) -> list[bytes]:
    payloads = []
    while (payload := decoder.take()) is not None:
        payloads.append(bytes(payload))
    return payloads


def stream(payloads: list[bytes]) -> bytes:
    return b"".join(map(encode_frame, payloads))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut `data` at the places, some of which may be equal: a chunk may be empty."""
    ends = sorted(place % (len(data) + 1) for place in places)
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


def test_a_frame_is_the_length_and_the_payload() -> None:
    assert encode_frame(b"M5") == b"\0\0\0\2M5"
    assert encode_frame(b"") == bytes(HEADER_BYTES)
    assert encode_frame(bytes(70_000))[:HEADER_BYTES] == b"\0\1\x11\x70"


def test_a_payload_of_4_gigabytes_is_refused() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 2**32

    with pytest.raises(OverflowError):
        encode_frame(Huge())


@given(payload_lists)
def test_fed_whole(payloads: list[bytes]) -> None:
    decoder = FrameDecoder(MAX_BYTES)
    decoder.feed(stream(payloads))
    assert take_all(decoder) == payloads
    assert decoder.pending_bytes() == 0


@given(payload_lists)
def test_fed_byte_by_byte(payloads: list[bytes]) -> None:
    decoder = FrameDecoder(MAX_BYTES)
    taken = []
    for byte in stream(payloads):
        decoder.feed(bytes((byte,)))
        taken += take_all(decoder)
    assert taken == payloads
    assert decoder.pending_bytes() == 0


@given(payload_lists, st.lists(st.integers(0, 10_000), max_size=10), st.lists(st.booleans(), max_size=11))
def test_fed_in_any_chunks_and_taken_at_any_time(payloads: list[bytes], places: list[int], taking: list[bool]) -> None:
    decoder = FrameDecoder(MAX_BYTES)
    data = stream(payloads)
    taken, fed = [], 0
    for number, chunk in enumerate(cut(data, places)):
        decoder.feed(chunk)
        fed += len(chunk)
        if number < len(taking) and taking[number]:
            taken += take_all(decoder)
        assert decoder.pending_bytes() == fed - len(stream(taken))
    assert taken + take_all(decoder) == payloads


@given(payload_lists, st.binary(min_size=1, max_size=40), st.integers(1, 1000))
def test_a_cut_stream_leaves_bytes_pending(payloads: list[bytes], last: bytes, kept: int) -> None:
    tail = encode_frame(last)
    tail = tail[: kept % len(tail)]
    decoder = FrameDecoder(MAX_BYTES)
    decoder.feed(stream(payloads) + tail)
    assert take_all(decoder) == payloads
    assert decoder.pending_bytes() == len(tail)
    missing = decoder.missing_bytes()
    assert missing == (0 if len(tail) < HEADER_BYTES else HEADER_BYTES + len(last) - len(tail))


def test_what_is_missing_completes_the_frame() -> None:
    decoder = FrameDecoder(MAX_BYTES)
    decoder.feed(encode_frame(b"first") + encode_frame(bytes(500))[:100])
    assert decoder.take() == b"first"
    assert decoder.take() is None
    decoder.feed(bytes(decoder.missing_bytes() - 1))
    assert decoder.take() is None
    assert decoder.missing_bytes() == 1
    decoder.feed(b"x")
    assert decoder.take() == bytes(499) + b"x"
    assert decoder.missing_bytes() == 0


def test_nothing_comes_of_nothing() -> None:
    decoder = FrameDecoder(MAX_BYTES)
    assert decoder.take() is None
    decoder.feed(b"")
    assert decoder.take() is None
    assert decoder.pending_bytes() == decoder.missing_bytes() == 0


@pytest.mark.parametrize("size", [MAX_BYTES + 1, 2**31, 2**32 - 1])
def test_a_frame_that_is_too_large_is_refused_at_its_header(size: int) -> None:
    decoder = FrameDecoder(MAX_BYTES)
    decoder.feed(encode_frame(b"good") + size.to_bytes(4, "big"))
    assert decoder.take() == b"good"
    for _ in range(2):  # it stays refused
        with pytest.raises(RemoteProtocolError, match=f"a message of {size} bytes, where at most {MAX_BYTES}"):
            decoder.take()


def test_the_largest_frame_is_taken() -> None:
    decoder = FrameDecoder(MAX_BYTES)
    decoder.feed(encode_frame(bytes(MAX_BYTES)))
    assert decoder.take() == bytes(MAX_BYTES)


def test_the_limit_may_change_between_frames() -> None:
    decoder = FrameDecoder(2)
    decoder.feed(encode_frame(b"M5") + encode_frame(b"longer"))
    assert decoder.take() == b"M5"
    decoder.max_bytes = 6
    assert decoder.take() == b"longer"


def test_a_promise_of_two_gigabytes_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        decoder = FrameDecoder(2**32)
        decoder.feed((2**31).to_bytes(4, "big"))
        for _ in range(100):
            decoder.feed(bytes(1000))
            assert decoder.take() is None
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()
    assert decoder.pending_bytes() == 100_004
    assert decoder.missing_bytes() == 2**31 - 100_000


def test_the_bytes_fed_are_the_callers() -> None:
    first, second = b"\0\0\0", b"\2M5\0"
    decoder = FrameDecoder(MAX_BYTES)
    decoder.feed(first)
    decoder.feed(second)
    assert decoder.take() == b"M5"
    decoder.feed(b"\0\0\0")
    assert (first, second) == (b"\0\0\0", b"\2M5\0")
    assert take_all(decoder) == [b""]


def test_many_frames_in_small_pieces_take_no_lasting_memory() -> None:
    data = encode_frame(bytes(100)) * 50
    decoder = FrameDecoder(MAX_BYTES)
    tracemalloc.start()
    try:
        for _ in range(20):
            for start in range(0, len(data), 7):
                decoder.feed(data[start : start + 7])
                take_all(decoder)
        assert tracemalloc.get_traced_memory()[0] < 50_000
    finally:
        tracemalloc.stop()
    assert decoder.pending_bytes() == 0
