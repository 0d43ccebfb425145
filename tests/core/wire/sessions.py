"""Sessions brought to a state, and the messages that bring them there, for the tests of the session."""

from collections.abc import Iterable

import msgpack
import pytest

from tests.core.wire.test_methods import TID
from zeo_core.errors import LocalProtocolError, RemoteProtocolError
from zeo_core.wire.frames import encode_frame
from zeo_core.wire.methods import CLIENT_CALLS, SERVER_PUSHES
from zeo_core.wire.session import (
    Event,
    Failed,
    Greeted,
    Reply,
    Request,
    Role,
    Session,
    State,
)

SERVER, CLIENT = Role.SERVER, Role.CLIENT
GREETING = encode_frame(b"M5")

roles = pytest.mark.parametrize("role", Role)
calls = pytest.mark.parametrize("method", CLIENT_CALLS.values(), ids=CLIENT_CALLS.keys())
pushes = pytest.mark.parametrize("method", SERVER_PUSHES.values(), ids=SERVER_PUSHES.keys())


def message(*parts: object) -> bytes:
    return encode_frame(msgpack.packb(parts))


REGISTER = message(1, False, "register", ("1", False))
REGISTERED = message(1, 0, ".reply", TID)
PING = message(2, False, "ping", ())
PUSH = message(0, True, "info", ({},))


def in_state(role: Role, state: State) -> Session:
    """Return a session that has got to `state`."""
    session = Session(role)
    if state is not State.GREETING:
        assert all(isinstance(event, Greeted) for event in session.receive(GREETING))
    if state in (State.READY, State.CLOSED):
        if role is SERVER:
            assert [type(event) for event in session.receive(REGISTER)] == [Request]
            session.registered()
        else:
            session.call(1, "register", ("1", False))
            assert [type(event) for event in session.receive(REGISTERED)] == [Reply]
    if state is State.CLOSED:
        session.close()
    assert session.state is state
    return session


def ready(role: Role) -> Session:
    return in_state(role, State.READY)


def fault(events: Iterable[Event]) -> str:
    """Return what the last of the events, a Failed, says."""
    *_, last = events
    assert isinstance(last, Failed)
    assert type(last.error) is RemoteProtocolError
    return str(last.error)


def check_dead(session: Session) -> None:
    assert session.state is State.CLOSED
    for data in (PING, PUSH, GREETING, b"\xff" * 100):
        assert list(session.receive(data)) == []
    with pytest.raises(LocalProtocolError):
        session.call(1, "ping", ())
