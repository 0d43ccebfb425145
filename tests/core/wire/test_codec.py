"""Messages: the same bytes as ZEO's marshalling makes, and what is no message at all."""

import datetime
import struct
import tracemalloc
from typing import Any

import msgpack
import pytest
import ZEO.asyncio.marshal
from hypothesis import given
from hypothesis import strategies as st

from zeo_core.errors import ConflictError, POSKeyError, RemoteProtocolError
from zeo_core.ids import pack_id, tid_from_time
from zeo_core.wire import codec
from zeo_core.wire.faults import to_wire
from zeo_core.wire.frames import FrameDecoder

zeo_encode = ZEO.asyncio.marshal.encoder(b"M5")
zeo_encode_server = ZEO.asyncio.marshal.encoder(b"M5", server=True)
zeo_decode = ZEO.asyncio.marshal.decoder(b"M5")

OID = pack_id(1)
TID = tid_from_time(1e9)

both_decoders = pytest.mark.parametrize("decode", [codec.decode, codec.decode_call])

values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False),
        st.text(max_size=10),
        st.binary(max_size=10),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=5),
    ),
    max_leaves=15,
)
arguments = st.lists(values, max_size=5).map(tuple)


def payload(frame: bytes) -> bytes:
    decoder = FrameDecoder(2**32)
    decoder.feed(frame)
    taken = decoder.take()
    assert taken is not None
    assert decoder.pending_bytes() == 0
    return bytes(taken)


@pytest.fixture
def encoder() -> codec.Encoder:
    return codec.Encoder()


@given(st.integers(1, 2**63), st.text(), arguments)
def test_calls_are_zeos_bytes(message_id: int, method: str, args: tuple[Any, ...]) -> None:
    encoder = codec.Encoder()
    assert payload(encoder.call(message_id, method, args)) == zeo_encode(message_id, False, method, args)
    one_way = zeo_encode(0, True, method, args)
    assert payload(encoder.one_way(method, args)) == one_way
    assert payload(codec.encode_one_way(method, args)) == one_way


@given(values, values)
def test_replies_are_zeos_bytes(message_id: object, result: object) -> None:
    assert payload(codec.Encoder().reply(message_id, result)) == zeo_encode_server(message_id, 0, ".reply", result)


@pytest.mark.parametrize("error", [POSKeyError(OID), ConflictError("text", OID, (TID, OID), "a.B"), KeyError("x")])
def test_error_replies_have_zeos_shape(encoder: codec.Encoder, error: Exception) -> None:
    frame = payload(encoder.error(7, error))
    assert frame == zeo_encode_server(7, 2, ".reply", to_wire(error))
    assert zeo_decode(frame)[:3] == (7, 2, ".reply")


def test_the_keep_alive_is_one_for_zeo(encoder: codec.Encoder) -> None:
    assert zeo_decode(payload(encoder.keep_alive()))[0] == -1


@both_decoders
def test_zeos_keep_alive_is_one_for_us(decode: Any) -> None:
    assert decode(zeo_encode(-1, 0, ".reply", None)) == (codec.KEEP_ALIVE_ID, 0, "", None)
    assert decode(msgpack.packb((-1, None, None, None))).message_id == codec.KEEP_ALIVE_ID


@both_decoders
@given(message_id=values, flag=st.one_of(st.booleans(), st.integers(0, 255)), method=st.text(), args=values)
def test_what_zeo_encodes_we_decode_as_zeo_does(
    decode: Any, message_id: object, flag: int, method: str, args: object
) -> None:
    data = zeo_encode(message_id, flag, method, args)
    if message_id != -1:
        assert decode(data) == zeo_decode(data)
        assert decode(bytearray(data)) == (message_id, flag, method, args)


def test_a_broadcast_is_the_bytes_of_a_one_way_call(encoder: codec.Encoder) -> None:
    args = (TID, [OID])
    assert codec.encode_one_way("invalidateTransaction", args) == encoder.one_way("invalidateTransaction", args)


@pytest.mark.parametrize(
    "result", [object(), 2**64, -(2**63) - 1, "\udc80", datetime.date(2024, 1, 1), {1, 2}, [b"x" * 1000, object()]]
)
def test_a_result_that_cannot_be_encoded_leaves_no_trace(encoder: codec.Encoder, result: object) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        encoder.reply(1, result)
    assert payload(encoder.reply(2, b"x")) == zeo_encode(2, 0, ".reply", b"x")


def nested(levels: int, inner: bytes = b"\x01") -> bytes:
    return b"\x91" * levels + inner


NO_MESSAGES: dict[str, bytes] = {
    "nothing": b"",
    "one byte of garbage": b"\xc1",
    "a cut array": b"\x94\1\2",
    "a tail": msgpack.packb((1, 0, "x", ())) + b"\0",
    "no array": b"\x01",
    "nil": b"\xc0",
    "a map of four": msgpack.packb({0: 1, 1: 2, "x": 3, (): 4}),
    "a text of four": msgpack.packb("abcd"),
    "bytes of four": msgpack.packb(b"abcd"),
    "three": msgpack.packb((1, 0, "x")),
    "five": msgpack.packb((1, 0, "x", (), ())),
    "a method in bytes": msgpack.packb((1, 0, b"ping", ())),
    "a method that is nil": msgpack.packb((1, 0, None, ())),
    "a flag in text": msgpack.packb((1, "0", "ping", ())),
    "a flag that is nil": msgpack.packb((1, None, "ping", ())),
    "a flag with a fraction": msgpack.packb((1, 0.0, "ping", ())),
    "a flag that is an array": msgpack.packb((1, (), "ping", ())),
    "text that is no UTF-8": b"\x94\x01\xc2\xa4\xff\xff\xff\xff\x90",
    "an argument that is no UTF-8": b"\x94\x01\xc2\xa1x\x91\xa1\xff",
    "a surrogate in UTF-8": b"\x94\x01\xc2\xa1x\x91\xa3\xed\xb2\x80",
    "a map as the key of a map": b"\x94\x01\xc2\xa1x\x91\x81\x80\x01",
    "an array with a map as the key of a map": b"\x94\x01\xc2\xa1x\x91\x81\x91\x80\x01",
    "2,000 levels": b"\x94\x01\xc2\xa1x" + nested(2000),
    "100,000 levels": b"\x94\x01\xc2\xa1x" + nested(100_000),
    "100,000 levels of maps": b"\x94\x01\xc2\xa1x" + b"\x81\x01" * 100_000,
    "an array of 4 billion": b"\x94\x01\xc2\xa1x\xdd\xff\xff\xff\xff",
    "a map of 4 billion": b"\x94\x01\xc2\xa1x\xdf\xff\xff\xff\xff",
    "bytes of 4 billion": b"\x94\x01\xc2\xa1x\x91\xc6\xff\xff\xff\xff",
    "text of 4 billion": b"\x94\x01\xc2\xa1x\x91\xdb\xff\xff\xff\xff",
    "an extension of 4 billion": b"\x94\x01\xc2\xa1x\x91\xc9\xff\xff\xff\xff\x05",
    "a time stamp of 3 bytes": b"\x94\x01\xc2\xa1x\x91\xc7\x03\xffabc",
    "a time stamp with 2**32 - 1 nanoseconds": b"\x94\x01\xc2\xa1x\x91\xc7\x0c\xff" + b"\xff" * 4 + bytes(8),
}


@both_decoders
@pytest.mark.parametrize("data", NO_MESSAGES.values(), ids=NO_MESSAGES.keys())
def test_what_is_no_message(decode: Any, data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match=r"^not an M5 message: ") as caught:
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) <= 200


STRANGE_BUT_WELL_FORMED: dict[str, bytes] = {
    "not a number": b"\xcb" + struct.pack(">d", float("nan")),
    "infinity": b"\xcb" + struct.pack(">d", float("inf")),
    "a time stamp": msgpack.packb(msgpack.Timestamp(1, 2)),
    "an extension": msgpack.packb(msgpack.ExtType(5, b"x")),
    "a key that is a number": msgpack.packb({1: 2}),
    "a key that is not a number": b"\x81\xcb" + struct.pack(">d", float("nan")) + b"\x01",
    "a key that is a time stamp": b"\x81" + msgpack.packb(msgpack.Timestamp(1, 2)) + b"\x01",
    "a key twice": b"\x82\x01\x02\x01\x03",
    "400 levels": nested(400),
}


@both_decoders
@pytest.mark.parametrize("data", STRANGE_BUT_WELL_FORMED.values(), ids=STRANGE_BUT_WELL_FORMED.keys())
def test_strange_values_are_the_sessions_to_judge(decode: Any, data: bytes) -> None:
    for place in range(2):
        items = [data, b"\xc2", b"\xa1x", b"\x90"] if place else [b"\x01", b"\xc2", b"\xa1x", data]
        message = decode(b"\x94" + b"".join(items))
        # and each can be echoed as a message id
        codec.Encoder().reply(message.message_id, None)


# -- what takes more memory than its bytes -----------------------------------------------------------------------------


def array(count: int, items: bytes) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big") + items


def call_with(argument: bytes) -> bytes:
    return b"\x94\x01\xc2\xa1x\x91" + argument


BOMBS: dict[str, bytes] = {
    # some msgpacks make room for the 60,000 items of each of the 1,000 levels at once: half a gigabyte
    "1,000 arrays that claim all the rest": call_with(array(60_000, b"") * 1000 + bytes(60_000)),
    "a long array": call_with(array(codec.CONTAINER_MAX + 1, bytes(codec.CONTAINER_MAX + 1))),
    "a long map": call_with(b"\xde\x10\x01" + b"".join(msgpack.packb(n) + b"\0" for n in range(4097))),
    "a million empty maps in arrays": call_with(array(1000, array(1000, b"\x80" * 1000) * 1000)),
    "a million numbers in maps": call_with(
        array(1000, (b"\xde\x01\x00" + b"".join(b"\xcc" + bytes((n, 0)) for n in range(256))) * 1000)
    ),
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS.keys())
def test_a_call_takes_no_more_memory_than_its_bytes_may(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match=r"^not an M5 message: "):
            codec.decode_call(data)
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()


def test_a_call_may_be_large_if_it_is_its_data_that_are() -> None:
    data = bytes(3_000_000)
    frame = codec.Encoder().one_way("storea", (OID, TID, data, 1))
    assert codec.decode_call(payload(frame)).body == (OID, TID, data, 1)
    extension = {"k": [{"n": n} for n in range(codec.CONTAINER_MAX)], "x": data}
    assert codec.decode_call(msgpack.packb((0, True, "tpc_begin", (1, extension)))).body[1]["x"] == data


def test_a_reply_may_have_any_number_of_values() -> None:
    result = (TID, tuple(map(pack_id, range(100_000))))
    frame = codec.Encoder().reply(1, result)
    assert codec.decode(payload(frame)).body == result


@pytest.mark.parametrize("size", [0, 1, 59_000, 100_000])
@pytest.mark.parametrize(("method", "args"), [("storeBlobChunk", ()), ("receiveBlobChunk", (OID, TID))])
def test_bytes_sent_behind_a_call_are_its_last_argument(method: str, args: tuple[bytes, ...], size: int) -> None:
    chunk = b"x" * size
    frames = FrameDecoder(1_000_000)
    frames.feed(codec.encode_before_bytes(method, args, size) + chunk)
    payload = frames.take()
    assert payload is not None
    assert frames.pending_bytes() == 0
    assert codec.decode(payload) == (0, True, method, (*args, chunk))
    assert zeo_decode(payload) == (0, True, method, (*args, chunk))
