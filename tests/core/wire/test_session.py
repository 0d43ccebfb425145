"""The session against its twin, and against every event in every state."""

import msgpack
import pytest

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
from tests.core.wire.test_methods import OID, TID, required, valid_args
from zeo_core.errors import ConflictError, LocalProtocolError, POSKeyError
from zeo_core.wire import session as wire
from zeo_core.wire.codec import Encoder
from zeo_core.wire.faults import from_wire
from zeo_core.wire.frames import encode_frame
from zeo_core.wire.methods import CLIENT_CALLS, SERVER_PUSHES, Method
from zeo_core.wire.session import (
    ErrorReply,
    Event,
    Failed,
    Greeted,
    KeepAlive,
    Registered,
    Reply,
    Request,
    Role,
    Session,
    State,
    StatusRequested,
)

# -- twins ------------------------------------------------------------------------------------------------------------


class Wires:
    """Two sessions and what is on the way between them, delivered in chunks of a size."""

    def __init__(self, chunk: int = 2**20) -> None:
        self.client, self.server = Session(CLIENT), Session(SERVER)
        self.chunk = chunk

    def deliver(self, to: Session, data: bytes) -> list[Event]:
        chunks = [data[start : start + self.chunk] for start in range(0, len(data), self.chunk)]
        return [event for chunk in chunks for event in to.receive(chunk)]

    def register(self) -> None:
        greeted = self.deliver(self.client, self.server.greeting())
        assert greeted == [Greeted(GREETING)]
        assert self.deliver(self.server, GREETING) == [Greeted(b"")]
        register = self.client.call(7, "register", ("1", True))
        assert self.deliver(self.server, register) == [Request(7, "register", ("1", True), False)]
        self.server.registered()
        assert self.client.state is State.UNREGISTERED
        assert self.deliver(self.client, self.server.reply(7, TID)) == [Reply(7, TID)]
        assert self.client.state is self.server.state is State.READY


@pytest.fixture(params=[1, 3, 2**20])
def wires(request: pytest.FixtureRequest) -> Wires:
    wires = Wires(request.param)
    wires.register()
    return wires


@calls
def test_every_call_arrives_as_it_was_made(wires: Wires, method: Method) -> None:
    if method.name == "register":
        return  # the fixture's
    full = valid_args(method)
    for count in range(required(method), len(full) + 1):
        args = full[:count]
        assert wires.deliver(wires.server, wires.client.call(9, method.name, args)) == [
            Request(9, method.name, args, False)
        ]
        # ZEO's server does what it is asked whether or not the caller wants a reply, and so may ours
        assert wires.deliver(wires.server, wires.client.one_way(method.name, args)) == [
            Request(0, method.name, args, True)
        ]


@pushes
def test_every_push_arrives_as_it_was_made(wires: Wires, method: Method) -> None:
    args = valid_args(method)
    assert wires.deliver(wires.client, wires.server.one_way(method.name, args)) == [Request(0, method.name, args, True)]


def test_replies_and_errors_and_signs_of_life_arrive(wires: Wires) -> None:
    conflict = ConflictError(oid=OID, serials=(TID, OID), class_name="a.B")
    data = b"".join(
        (
            wires.server.reply(3, [b"data", TID, None]),
            wires.server.keep_alive(),
            wires.server.error(4, POSKeyError(OID)),
            wires.server.error(5, conflict),
        )
    )
    reply, alive, missing, conflicting = wires.deliver(wires.client, data)
    assert reply == Reply(3, (b"data", TID, None))
    assert alive == KeepAlive()
    assert missing == ErrorReply(4, "ZODB.POSException.POSKeyError", (OID,))
    assert isinstance(conflicting, ErrorReply)
    assert str(from_wire(conflicting.name, conflicting.arguments)) == str(conflict)
    assert wires.deliver(wires.server, wires.client.keep_alive()) == [KeepAlive()]


def test_a_refused_register_may_be_tried_again() -> None:
    wires = Wires()
    wires.deliver(wires.client, wires.server.greeting())
    wires.deliver(wires.server, GREETING)
    for message_id in (1, 2):
        wires.deliver(wires.server, wires.client.call(message_id, "register", ("1", False)))
        [refused] = wires.deliver(wires.client, wires.server.error(message_id, ValueError("unknown storage")))
        assert isinstance(refused, ErrorReply)
        assert wires.client.state is wires.server.state is State.UNREGISTERED
    wires.deliver(wires.server, wires.client.call(3, "register", ("1", True)))
    wires.server.registered()
    wires.deliver(wires.client, wires.server.reply(3, TID))
    assert wires.client.state is wires.server.state is State.READY


def test_calls_may_follow_register_in_the_same_read() -> None:
    session = Session(SERVER)
    seen = []
    for event in session.receive(GREETING + REGISTER + PING):
        seen.append(type(event))
        if isinstance(event, Request) and event.method == "register":
            session.registered()
    assert seen == [Greeted, Request, Request]


def test_pushes_may_follow_the_reply_to_register_in_the_same_read() -> None:
    session = in_state(CLIENT, State.UNREGISTERED)
    session.call(1, "register", ("1", False))
    assert [type(event) for event in session.receive(REGISTERED + PUSH)] == [Reply, Request]


ECHOED = [0, 5, -2, 2**64 - 1, "id", "", b"id", None, True, 1.5, float("inf"), (OID, TID), ((((),),),), {"a": (1,)}]
ECHOED += [msgpack.Timestamp(1, 2), msgpack.ExtType(5, b"x"), {1: 2}, "\N{SNOWMAN}"]


@pytest.mark.parametrize("message_id", ECHOED, ids=repr)
def test_a_message_id_of_any_kind_is_echoed_untouched(message_id: object) -> None:
    server = ready(SERVER)
    [request] = server.receive(message(message_id, False, "ping", ()))
    assert isinstance(request, Request)
    assert server.reply(request.message_id, None) == message(message_id, 0, ".reply", None)
    name_and_args = ("builtins.KeyError", ["x"])
    assert server.error(request.message_id, KeyError("x")) == message(message_id, 2, ".reply", name_and_args)


def test_an_id_that_msgpack_would_not_pack_is_a_value_error_for_the_adapter() -> None:
    server = ready(SERVER)
    data = b"\x94" + b"\x91" * 1000 + b"\x01" + b"\xc2\xa4ping\x90"
    for event in server.receive(encode_frame(data)):
        if isinstance(event, Request):
            try:
                assert server.reply(event.message_id, None).endswith(b"\xc0")
            except ValueError:
                assert server.reply(1, None) == message(1, 0, ".reply", None)


# -- states and events ------------------------------------------------------------------------------------------------

# for each role, what makes the event; None where that role never sees it
BYTES: dict[type, dict[Role, bytes | None]] = {
    Greeted: {SERVER: GREETING, CLIENT: GREETING},
    StatusRequested: {SERVER: encode_frame(b"ruok"), CLIENT: None},
    KeepAlive: {SERVER: message(-1, 0, ".reply", None), CLIENT: message(-1, 0, ".reply", None)},
    Reply: {SERVER: None, CLIENT: message(5, 0, ".reply", None)},
    ErrorReply: {SERVER: None, CLIENT: message(5, 2, ".reply", ("builtins.KeyError", ()))},
    Failed: {SERVER: encode_frame(b"\xc1"), CLIENT: encode_frame(b"\xc1")},
}


def bytes_for(role: Role, state: State, event: type) -> bytes | None:
    if event is Request and role is SERVER:
        return PING if state is State.READY else REGISTER
    if event is Request:
        return None if state is State.UNREGISTERED else PUSH
    return BYTES[event][role]


@roles
@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", [*BYTES, Request])
def test_every_event_in_every_state(role: Role, state: State, event: type) -> None:
    data = bytes_for(role, state, event)
    session = in_state(role, state)
    if data is None:
        return
    got = list(session.receive(data))
    target = wire.TRANSITIONS[state].get(event)
    if state is State.CLOSED:
        assert got == []
    elif target is None:
        fault(got)
        assert session.state is State.CLOSED
    else:
        assert [type(item) for item in got] == [event]
        assert session.state is target


@pytest.mark.parametrize("state", State)
def test_registered_is_for_the_unregistered(state: State) -> None:
    session = in_state(SERVER, state)
    target = wire.TRANSITIONS[state].get(Registered)
    if target is None:
        with pytest.raises(LocalProtocolError, match=rf"Registered while {state.value}"):
            session.registered()
        assert session.state is state
    else:
        session.registered()
        assert session.state is target


def test_the_table_knows_every_state_and_nothing_leaves_the_last() -> None:
    assert set(wire.TRANSITIONS) == set(State)
    assert not wire.TRANSITIONS[State.CLOSED]
    known = {event for row in wire.TRANSITIONS.values() for event in row}
    assert known == {*BYTES, Request, Registered}


@roles
@pytest.mark.parametrize("state", State)
def test_what_may_be_sent_when(role: Role, state: State) -> None:
    ours, theirs = (SERVER_PUSHES, CLIENT_CALLS) if role is SERVER else (CLIENT_CALLS, SERVER_PUSHES)
    for send in (call, one_way):
        for name in ours:
            if state is State.READY or (name == "register" and state is State.UNREGISTERED):
                assert send(in_state(role, state), name)
            else:
                with pytest.raises(LocalProtocolError, match=f"^{name} while {state.value}$"):
                    send(in_state(role, state), name)
        for name in [*theirs, "nonsense"]:
            with pytest.raises(LocalProtocolError, match=f"^{name} is no method that a {role.value} may call$"):
                send(in_state(role, state), name)


def call(session: Session, name: str) -> bytes:
    return session.call(1, name, ())


def one_way(session: Session, name: str) -> bytes:
    return session.one_way(name, ())


def test_who_speaks_first() -> None:
    assert Session(SERVER).greeting() == GREETING
    assert Session(CLIENT).greeting() == b""


def test_a_monitor_gets_one_frame_and_no_more_is_heard_of_it() -> None:
    session = Session(SERVER)
    assert list(session.receive(encode_frame(b"ruok") + REGISTER)) == [StatusRequested()]
    assert session.status(b'{"1": {}}') == b'\0\0\0\x09{"1": {}}'
    check_dead(session)


def test_closing_in_the_middle_of_a_read_ends_it() -> None:
    session = ready(SERVER)
    events = session.receive(PING * 3)
    assert isinstance(next(events), Request)
    session.close()
    assert list(events) == []
    check_dead(session)


def test_the_keep_alive_may_come_at_any_time_after_the_greeting() -> None:
    for role in Role:
        for state in (State.UNREGISTERED, State.READY):
            session = in_state(role, state)
            assert list(session.receive(Encoder().keep_alive() * 3)) == [KeepAlive()] * 3
            assert session.state is state
