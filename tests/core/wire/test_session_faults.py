"""The session against peers that break the rules, by mistake or on purpose: one Failed each, and nothing else."""

import gc
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.wire.sessions import (
    CLIENT,
    GREETING,
    PING,
    PUSH,
    REGISTER,
    REGISTERED,
    SERVER,
    calls,
    check_dead,
    fault,
    in_state,
    message,
    pushes,
    ready,
    roles,
)
from tests.core.wire.test_methods import OID, TID, misfits, required, valid_args
from zeo_core.wire import session as wire
from zeo_core.wire.frames import encode_frame
from zeo_core.wire.methods import CLIENT_CALLS, SERVER_PUSHES, Method
from zeo_core.wire.session import (
    ErrorReply,
    Failed,
    Reply,
    Request,
    Role,
    Session,
    State,
)

# -- peers that break the rules ----------------------------------------------------------------------------------------


@roles
@pytest.mark.parametrize("greeting", [b"", b"M", b"Z5", b"M4", b"m5", b"M5\n", b"GET / HTTP/1.1", b"\xff" * 64])
def test_a_greeting_of_another_kind(role: Role, greeting: bytes) -> None:
    session = Session(role)
    assert fault(session.receive(encode_frame(greeting))).startswith("a greeting of b")
    check_dead(session)


def test_a_server_does_not_ask_for_the_status() -> None:
    assert fault(Session(CLIENT).receive(encode_frame(b"ruok"))) == "a greeting of b'ruok' instead of b'M5'"


@roles
def test_a_peer_that_does_not_frame(role: Role) -> None:
    session = Session(role)
    assert "at most 64 are allowed" in fault(session.receive(b"GET / HTTP/1.1\r\n\r\n"))
    check_dead(session)


@pytest.mark.parametrize(
    ("state", "limit"),
    [
        (State.GREETING, wire.GREETING_MAX_BYTES),
        (State.UNREGISTERED, wire.UNREGISTERED_MAX_BYTES),
        (State.READY, wire.MESSAGE_MAX_BYTES),
    ],
)
@roles
def test_a_length_above_the_limit_of_the_state(role: Role, state: State, limit: int) -> None:
    session = in_state(role, state)
    assert list(session.receive(limit.to_bytes(4, "big"))) == []
    session = in_state(role, state)
    assert f"at most {limit} are" in fault(session.receive((limit + 1).to_bytes(4, "big")))
    check_dead(session)


def test_the_limit_of_a_session_is_its_makers() -> None:
    session = Session(SERVER, max_message_bytes=100)
    assert len(list(session.receive(GREETING + REGISTER))) == 2
    session.registered()
    assert "at most 100 are" in fault(session.receive((101).to_bytes(4, "big")))


@calls
def test_calls_before_register(method: Method) -> None:
    session = in_state(SERVER, State.UNREGISTERED)
    events = list(session.receive(message(1, False, method.name, valid_args(method))))
    if method.name == "register":
        assert [type(event) for event in events] == [Request]
    else:
        assert fault(events) == f"{method.name} while unregistered"
        check_dead(session)


def test_register_twice() -> None:
    session = ready(SERVER)
    assert fault(session.receive(REGISTER)) == "register while ready"
    check_dead(session)


@pushes
def test_pushes_before_the_reply_to_register(method: Method) -> None:
    session = in_state(CLIENT, State.UNREGISTERED)
    session.call(1, "register", ("1", False))
    assert (
        fault(session.receive(message(0, True, method.name, valid_args(method)))) == f"{method.name} while unregistered"
    )
    check_dead(session)


@pushes
def test_a_push_that_wants_a_reply(method: Method) -> None:
    session = ready(CLIENT)
    text = fault(session.receive(message(5, False, method.name, valid_args(method))))
    assert text == f"{method.name} wants a reply, where only one-way calls are expected"
    check_dead(session)


@pytest.mark.parametrize("flag", [0, 2, True])
def test_a_reply_to_a_server(flag: int) -> None:
    session = ready(SERVER)
    assert fault(session.receive(message(1, flag, ".reply", ("x", ())))) == "a reply, where only calls are expected"
    check_dead(session)


@pytest.mark.parametrize("message_id", [None, "1", b"1", 1.0, True, (1,), {}, {"a": ()}, float("nan")])
@pytest.mark.parametrize("flag", [0, 2])
def test_a_reply_to_what_was_no_call(message_id: object, flag: int) -> None:
    session = in_state(CLIENT, State.UNREGISTERED)
    assert (
        fault(session.receive(message(message_id, flag, ".reply", ("x", ())))) == "a reply to what is no id of a call"
    )
    check_dead(session)


@pytest.mark.parametrize("message_id", [0, 2, -2])
def test_a_reply_to_another_call_registers_no_one(message_id: int) -> None:
    for asked in (False, True):
        session = in_state(CLIENT, State.UNREGISTERED)
        if asked:
            session.call(1, "register", ("1", False))
        list(session.receive(message(message_id, 0, ".reply", TID)))
        assert session.state is State.UNREGISTERED


@pytest.mark.parametrize("body", [None, "text", (), ("x",), ("x", (), 1), (5, ()), (b"x", ()), {"x": (), "y": ()}, 5])
def test_an_error_reply_of_another_shape(body: object) -> None:
    session = ready(CLIENT)
    text = "an error reply that is no pair of class name and arguments"
    assert fault(session.receive(message(1, 2, ".reply", body))) == text
    check_dead(session)


@pytest.mark.parametrize(
    "name", ["", "nonsense", "__class__", "receive", "Ping", "ping ", "x" * 10_000, "\n", "zeoVerify"]
)
@pytest.mark.parametrize("one_way", [True, False])
@roles
def test_an_unknown_method(role: Role, name: str, one_way: bool) -> None:
    session = ready(role)
    assert fault(session.receive(message(1, one_way, name, ()))) == f"an unknown method {name[:64]!r}"
    check_dead(session)


def test_methods_of_the_other_side_are_unknown() -> None:
    for role, methods in ((SERVER, SERVER_PUSHES), (CLIENT, CLIENT_CALLS)):
        for method in methods.values():
            text = fault(ready(role).receive(message(0, True, method.name, valid_args(method))))
            assert text == f"an unknown method {method.name!r}"


def test_a_wrong_argument_of_any_method_ends_the_session_and_is_named() -> None:
    for method, name, args in misfits():
        role = SERVER if method.name in CLIENT_CALLS else CLIENT
        state = State.UNREGISTERED if method.name == "register" else State.READY
        if [list(arg) for arg in args if isinstance(arg, list)]:
            continue  # an array, like a tuple, on the wire
        session = in_state(role, state)
        text = fault(session.receive(message(0, True, method.name, args)))
        assert text.startswith(f"{method.name}: {name} must be "), args
        check_dead(session)


@calls
def test_a_wrong_number_of_arguments_ends_the_session_and_is_named(method: Method) -> None:
    state = State.UNREGISTERED if method.name == "register" else State.READY
    args = valid_args(method)
    for count in range(required(method)):
        text = fault(in_state(SERVER, state).receive(message(1, False, method.name, args[:count])))
        assert text == f"{method.name} lacks the argument {method.arguments[count].name}"
    not_arguments: list[object] = [(*args, 1), None, {}, "text"]
    for wrong in not_arguments:
        text = fault(in_state(SERVER, state).receive(message(1, False, method.name, wrong)))
        assert text == f"{method.name} takes up to {len(args)} arguments"


@roles
def test_what_came_before_the_fault_is_delivered_and_nothing_after(role: Role) -> None:
    session = ready(role)
    good = PING if role is SERVER else PUSH
    events = list(session.receive(good * 2 + encode_frame(b"\xc1") + good))
    assert [type(event) for event in events] == [Request, Request, Failed]
    check_dead(session)


# -- bytes of any kind ------------------------------------------------------------------------------------------------

packed = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.text(max_size=5),
        st.binary(max_size=9),
        st.sampled_from([OID, ".reply", "ping", "register", "loadBefore", "info", "invalidateTransaction", -1, 2]),
        st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=9)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers(0, 3), st.binary(max_size=3)), inner, max_size=3),
    ),
    max_leaves=12,
)
any_message = st.tuples(
    packed,
    st.one_of(st.sampled_from([True, False, 0, 2]), packed),
    st.one_of(st.sampled_from([".reply", *CLIENT_CALLS, *SERVER_PUSHES]), packed),
    packed,
)
framed = st.one_of(
    any_message.map(lambda parts: message(*parts)),
    packed.map(lambda value: encode_frame(msgpack.packb(value))),
    st.binary(max_size=40).map(encode_frame),
    st.sampled_from([GREETING, REGISTER, REGISTERED, PING, PUSH]),
)
streams = st.one_of(st.binary(max_size=200), st.lists(framed, max_size=8).map(b"".join))
starts = st.sampled_from([(role, state) for role in Role for state in State])


def run(session: Session, chunks: list[bytes]) -> list[str]:
    """Feed the chunks; check what holds for any bytes, and return the events as text."""
    seen: list[str] = []
    for chunk in chunks:
        for event in session.receive(chunk):
            assert not (seen and seen[-1].startswith("Failed"))
            # repr, because a float that is no number does not equal itself
            seen.append(repr(event))
            if isinstance(event, Request | Reply | ErrorReply | Failed):
                assert (session.state is State.CLOSED) == isinstance(event, Failed)
    return seen


@given(starts, streams, st.lists(st.integers(0, 10_000), max_size=6))
@settings(max_examples=300, deadline=None)
def test_any_bytes_mean_the_same_however_they_are_cut(
    start: tuple[Role, State], data: bytes, places: list[int]
) -> None:
    ends = sorted(place % (len(data) + 1) for place in places)
    chunks = [data[begin:end] for begin, end in zip([0, *ends], [*ends, len(data)], strict=True)]
    whole = run(in_state(*start), [data])
    assert run(in_state(*start), chunks) == whole
    assert run(in_state(*start), [bytes((byte,)) for byte in data]) == whole


@given(starts, streams, st.binary(max_size=30))
def test_a_tail_changes_nothing_before_it(start: tuple[Role, State], data: bytes, tail: bytes) -> None:
    whole = run(in_state(*start), [data])
    assert run(in_state(*start), [data + tail])[: len(whole)] == whole


NAN = struct.pack(">d", float("nan"))
HOSTILE: dict[str, bytes] = {
    "depth": b"\x91" * 100_000,
    "depth of maps": b"\x81\x01" * 100_000,
    "an array of 4 billion": b"\x94\x01\xc2\xa4ping\xdd\xff\xff\xff\xff",
    "a map of 4 billion": b"\x94\x01\xc2\xa4ping\xdf\xff\xff\xff\xff",
    "1,000 arrays that claim the rest": b"\x94\x01\xc2\xa4ping" + b"\xdc\xf0\x00" * 1000 + bytes(60_000),
    "unhashable keys": b"\x94\x01\xc2\xa4ping\x91\x81\x80\x01",
    "an extension type as method": b"\x94\x01\xc2\xd4\x05\x01\x90",
    "an extension type as argument": b"\x94\x01\xc2\xaaloadBefore\x92\xd7\x0512345678\xd7\x0512345678",
    "a time stamp as argument": b"\x94\x01\xc2\xaaloadBefore\x92\xd7\xff" + bytes(8) + b"\xd7\xff" + bytes(8),
    "a time stamp that is none": b"\x94\x01\xc2\xa4ping\x91\xc7\x03\xff123",
    "not a number as flag": b"\x94\x01\xcb" + NAN + b"\xa4ping\x90",
    "not a number as argument": b"\x94\x01\xc2\xa8new_oids\x91\xcb" + NAN,
    "no UTF-8 as method": b"\x94\x01\xc2\xa4\xff\xff\xff\xff\x90",
    "no UTF-8 as argument": b"\x94\x01\xc3\xb0set_client_label\x91\xa1\xff",
    "65,000 empty maps": b"\x94\x01\xc2\xa4ping\xdd\0\0\xfd\xe8" + b"\x80" * 65_000,
    "many values in a large message": b"\x94\x01\xc2\xa4ping\xdc\x0f\x00" + (b"\xdc\x0f\x00" + b"\x80" * 3840) * 3840,
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE.keys())
def test_msgpack_of_hostile_shape_is_a_failure_and_takes_little_memory(payload: bytes) -> None:
    session = ready(SERVER)
    frame = encode_frame(payload)
    tracemalloc.start()
    try:
        fault(session.receive(frame))
        assert tracemalloc.get_traced_memory()[1] < 2 * len(payload) + 45_000_000
    finally:
        tracemalloc.stop()
    check_dead(session)


def memory_kept(make: Callable[[], Any]) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        made = make()
        gc.collect()
        assert made is not None
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_a_dead_session_keeps_nothing_of_what_still_arrives() -> None:
    def flooded() -> Session:
        session = ready(SERVER)
        fault(session.receive(encode_frame(b"\xc1")))
        for _ in range(100):
            assert list(session.receive(bytes(100_000))) == []
        return session

    assert memory_kept(flooded) < 100_000


def test_an_idle_session_is_small() -> None:
    assert memory_kept(lambda: [ready(SERVER) for _ in range(20)]) < 20 * 8_000


def test_a_session_keeps_nothing_of_a_large_message_it_sent() -> None:
    def sent() -> Session:
        session = ready(SERVER)
        assert len(session.reply(1, bytes(5_000_000))) > 5_000_000
        with pytest.raises(TypeError):
            session.reply(1, [bytes(5_000), object()])
        return session

    assert memory_kept(sent) < 30_000


def test_a_promise_of_much_takes_no_memory() -> None:
    def promised() -> Session:
        session = ready(SERVER)
        assert list(session.receive(wire.MESSAGE_MAX_BYTES.to_bytes(4, "big") + b"\x94")) == []
        assert session.missing_bytes() == wire.MESSAGE_MAX_BYTES - 1
        return session

    assert memory_kept(promised) < 20_000
