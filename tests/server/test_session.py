"""Connections as a peer sees them: real sockets, good and bad peers side by side."""

import gc
import json
import logging
import os
import random
import socket
import struct
from collections.abc import Iterator
from itertools import count

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.in_process import InProcess, in_process
from tests.server.raw_client import RawClient, connect
from zeo_core.errors import StorageTransactionError
from zeo_core.ids import MAX_TID, ROOT_OID, ZERO_TID, pack_id
from zeo_core.wire.frames import FrameDecoder, encode_frame
from zeo_core.wire.session import Request
from zeo_server import session
from zeo_server.limits import Limits
from zeo_server.storages.mapping import MappingStorage

A, B = pack_id(1), pack_id(2)
GREETING = encode_frame(b"M5")
CALL_REGISTER = encode_frame(msgpack.packb((1, False, "register", ("1", False))))


def framed(*message: object) -> bytes:
    return encode_frame(msgpack.packb(message, use_bin_type=True))


@pytest.fixture(scope="module", params=[True, False], ids=["uvloop", "asyncio"])
def server(request: pytest.FixtureRequest) -> Iterator[InProcess]:
    with in_process(uvloop=request.param) as running:
        yield running


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\x00"


def random_bytes(seed: int) -> bytes:
    return b"\xff" + random.Random(seed).randbytes(5000)  # a length that is too large, whatever follows


def read_to_end(sock: socket.socket) -> bytes:
    """Return what the server says until it closes; it may reset a connection of which it has not read all."""
    data = b""
    try:
        while more := sock.recv(65536):
            data += more
    except ConnectionResetError:
        pass
    return data


MALFORMED = {
    "random bytes": (random_bytes(1), "a message of"),
    "an HTTP request": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "a message of 1195725856 bytes"),
    "another greeting": (encode_frame(b"Z5"), "a greeting of b'Z5'"),
    "a greeting of 2 GB": (struct.pack(">I", 2**31), "a message of 2147483648 bytes"),
    "2 GB before register": (GREETING + struct.pack(">I", 2**31), "a message of 2147483648 bytes"),
    "2 GB after register": (GREETING + CALL_REGISTER + struct.pack(">I", 2**31), "a message of 2147483648 bytes"),
    "random bytes after the greeting": (GREETING + random_bytes(2), "a message of"),
    "no msgpack": (GREETING + encode_frame(b"\xc1"), "not an M5 message"),
    "no array": (GREETING + encode_frame(msgpack.packb(1)), "not an M5 message"),
    "an array of three": (GREETING + framed(1, False, "register"), "not an M5 message"),
    "a method that is no text": (GREETING + framed(1, False, 5, ()), "not an M5 message"),
    "a deep array": (GREETING + encode_frame(nested(5000)), "not an M5 message"),
    "a load before register": (GREETING + framed(1, False, "loadBefore", (A, MAX_TID)), "loadBefore while"),
    "a store before register": (GREETING + framed(0, True, "storea", (A, ZERO_TID, b"", 1)), "storea while"),
    "register twice": (GREETING + CALL_REGISTER + CALL_REGISTER, "register while"),
    "an unknown method": (GREETING + CALL_REGISTER + framed(2, False, "eval", ("1+1",)), "an unknown method 'eval'"),
    "a method of Python's": (GREETING + CALL_REGISTER + framed(2, False, "__class__", ()), "an unknown method"),
    "too few arguments": (GREETING + CALL_REGISTER + framed(2, False, "loadBefore", (A,)), "lacks the argument"),
    "too many arguments": (GREETING + CALL_REGISTER + framed(2, False, "ping", (1,)), "takes up to 0"),
    "an oid of seven bytes": (GREETING + CALL_REGISTER + framed(2, False, "getTid", (b"1234567",)), "oid must be"),
    "a reply": (GREETING + CALL_REGISTER + framed(2, 0, ".reply", None), "a reply, where"),
    "a store without a transaction": (
        GREETING + CALL_REGISTER + framed(0, True, "storea", (A, ZERO_TID, b"", 1)),
        "storea, a call without reply, failed: no transaction 1",
    ),
    "garbage after valid calls": (
        GREETING + CALL_REGISTER + framed(2, False, "ping", ()) * 3 + random_bytes(3),
        "a message of",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_input_ends_that_connection_with_one_line(
    server: InProcess, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    data, reason = MALFORMED[name]
    caplog.set_level(logging.WARNING)
    with server.client() as bystander:
        with connect(server.address) as bad:
            peer = "{}:{}".format(*bad.getsockname())
            bad.sendall(data)
            read_to_end(bad)
        [line] = [record.getMessage() for record in caplog.records]
        assert line.startswith(f"{peer}: ")
        assert reason in line
        assert bystander.call("ping") is None
        server.until(lambda: len(server.service.connections) == 1)
        assert len(bystander.heard) == 3  # the greeting, the replies to register and ping, nothing else


def test_nothing_waits_for_a_connection_that_is_gone(server: InProcess) -> None:
    """What is to cut a connection that stays after it was ended would keep all of it in memory for a while."""
    with connect(server.address) as bad:
        server.until(lambda: len(server.service.connections) == 1)
        [ended] = server.service.connections
        bad.sendall(MALFORMED["garbage after valid calls"][0])
        read_to_end(bad)
    server.until(lambda: not server.service.connections)
    assert isinstance(ended, session.ServerSession)
    assert ended._abort_timer is None


def test_what_was_asked_before_the_garbage_is_answered(server: InProcess) -> None:
    with connect(server.address) as bad:
        bad.sendall(MALFORMED["garbage after valid calls"][0])
        frames = FrameDecoder(1000)
        frames.feed(read_to_end(bad))
        payloads = list(iter(frames.take, None))
    assert payloads[0] == b"M5"
    assert len(payloads) == 1 + 1 + 3


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.binary(max_size=40).map(encode_frame),
            st.recursive(st.integers() | st.binary() | st.text() | st.none(), lambda x: st.lists(x, max_size=4))
            .filter(lambda value: not isinstance(value, int) or -(2**63) <= value < 2**64)
            .map(lambda value: encode_frame(safe_pack(value))),
        ),
        max_size=5,
    ),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_no_garbage_disturbs_others(garbage: list[bytes], registered: bool) -> None:
    server, bystander = _fuzzed()
    with connect(server.address) as bad:
        bad.sendall(GREETING + (CALL_REGISTER if registered else b"") + b"".join(garbage))
        bad.shutdown(socket.SHUT_WR)
        read_to_end(bad)
    assert bystander.call("ping") is None


def safe_pack(value: object) -> bytes:
    try:
        packed: bytes = msgpack.packb(value, use_bin_type=True)
    except OverflowError:
        return b"\xc1"
    return packed


_fuzz: list[tuple[InProcess, RawClient]] = []


def _fuzzed() -> tuple[InProcess, RawClient]:
    return _fuzz[0]


@pytest.fixture(scope="module", autouse=True)
def _fuzz_server() -> Iterator[None]:
    with in_process() as running, running.client() as bystander:
        _fuzz.append((running, bystander))
        yield
        _fuzz.clear()


def test_ruok(server: InProcess) -> None:
    with connect(server.address) as monitor:
        monitor.sendall(encode_frame(b"ruok"))
        frames = FrameDecoder(100_000)
        frames.feed(read_to_end(monitor))
        assert frames.take() == b"M5"
        status = json.loads(bytes(frames.take() or b""))
    assert "last-transaction" in status["1"]


def test_requests_that_come_in_pieces_and_in_heaps(server: InProcess) -> None:
    calls = [framed(number, False, "ping", ()) for number in range(1, 1000)]
    with connect(server.address) as client:
        for byte in GREETING + CALL_REGISTER + calls[0]:
            client.sendall(bytes([byte]))
        client.sendall(b"".join(calls[1:]))  # more than one slice
        frames = FrameDecoder(1000)
        ids: list[int] = []
        while len(ids) < 1 + len(calls):
            frames.feed(client.recv(100_000))
            while payload := frames.take():
                if payload != b"M5":
                    ids.append(msgpack.unpackb(payload)[0])
    assert ids == [1, *range(1, 1000)]


def test_keep_alives_are_ignored(server: InProcess) -> None:
    with server.client() as client:
        client.sock.sendall(client.session.keep_alive() * 3)
        assert client.call("ping") is None


def test_an_ordinary_end_is_told_once_and_calmly(server: InProcess, caplog: pytest.LogCaptureFixture) -> None:
    server.until(lambda: not server.service.connections)
    caplog.set_level(logging.INFO)
    with server.client():
        pass
    server.until(lambda: not server.service.connections)
    said = [(record.levelname, record.getMessage().split(": ", 1)[1]) for record in caplog.records]
    assert said == [("INFO", "connected to storage 1"), ("INFO", "disconnected")]


def test_one_that_dies_between_vote_and_finish_frees_its_locks(server: InProcess) -> None:
    oid = fresh_oid()
    with server.client() as waiter:
        voter = server.client()
        voter.begin(1, {oid: (ZERO_TID, b"one")})
        assert voter.call("vote", 1) == ()
        waiter.begin(1, {oid: (ZERO_TID, b"two")})
        vote = waiter.send("vote", 1)
        assert not waiter.answered(vote)
        voter.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset, not end of file
        voter.close()
        assert waiter.wait(vote) == ()
        assert isinstance(waiter.call("tpc_finish", 1), bytes)


def test_one_that_breaks_the_protocol_after_its_vote_frees_its_locks(server: InProcess) -> None:
    """Lesson B17: a connection that the server closes is cleaned up as one that is lost."""
    oid = fresh_oid()
    with server.client() as waiter, server.client() as voter:
        voter.begin(1, {oid: (ZERO_TID, b"one")})
        assert voter.call("vote", 1) == ()
        waiter.begin(1, {oid: (ZERO_TID, b"two")})
        vote = waiter.send("vote", 1)
        voter.sock.sendall(framed(5, False, "no such method", ()))
        assert waiter.wait(vote) == ()
        waiter.call("tpc_abort", 1)


def test_a_load_that_is_answered_before_a_commit_stands_before_its_invalidation(server: InProcess) -> None:
    oid = fresh_oid()
    with server.client() as writer, server.client() as reader:
        serial = writer.commit({oid: (ZERO_TID, b"0")})
        for number in range(50):
            loads = [reader.send("loadBefore", oid, MAX_TID) for _ in range(5)]
            serial = writer.commit({oid: (serial, b"%d" % number)}, txn=number)
            for load in loads:
                reader.wait(load)
        told = ZERO_TID
        for event in reader.heard:
            method = getattr(event, "method", None)
            result = getattr(event, "result", None)
            if method == "invalidateTransaction":
                told = event.args[0]  # type: ignore[union-attr]
            elif isinstance(result, tuple) and len(result) == 3:
                # never newer than the invalidations before it, and never an older one as current
                assert result[1] <= told
                assert result[2] is None
                assert result[1] == told


def test_what_can_wait_leaves_after_a_moment_in_its_place_in_the_stream(server: InProcess) -> None:
    oid = fresh_oid()
    with server.client() as client, server.client() as reader:
        (told,) = [
            each for each in server.service.connections if getattr(each, "label", "").endswith(f":{_port(reader)}")
        ]
        assert isinstance(told, session.ServerSession)
        told.awaiting = 1  # as if a transaction of the reader's were in doubt
        tid = client.commit({oid: (ZERO_TID, b"one")})
        while not [event for event in reader.heard if isinstance(event, Request)]:
            reader._receive()  # nothing else is sent to it
        first, second = pack_id(1), pack_id(2)

        def send() -> None:
            told.send_later(framed(0, True, "invalidateTransaction", (first, ())))
            told.send(framed(0, True, "invalidateTransaction", (second, ())))

        server.ask(send)
        reader.call("ping")
        assert reader.invalidations() == [(tid, (oid,)), (first, ()), (second, ())]
        told.awaiting = 0


def _port(client: RawClient) -> int:
    port: int = client.sock.getsockname()[1]
    return port


def test_a_failed_vote_for_an_unknown_transaction_is_told(server: InProcess) -> None:
    with server.client() as client:
        with pytest.raises(StorageTransactionError, match="no transaction 5"):
            client.call("vote", 5)
        assert client.call("ping") is None


def test_a_peer_that_does_not_read_is_not_read_from(server: InProcess) -> None:
    """It asks for 400 MB and takes none of it: the server stops at the high-water mark and goes on when it reads."""
    oid, size, loads = fresh_oid(), 1024 * 1024, 400
    with server.client() as client:
        tid = client.commit({oid: (ZERO_TID, b"x" * size)})
        before = _resident_bytes()
        calls = b"".join(framed(number, False, "loadBefore", (oid, MAX_TID)) for number in range(2, 2 + loads))
        client.sock.sendall(calls)
        with server.client() as other:
            for _ in range(20):
                assert other.call("ping") is None
        assert _resident_bytes() - before < 40 * size
        last = client.wait(1 + loads)
        assert last == (b"x" * size, tid, None)


def test_a_peer_that_does_not_read_what_is_pushed_is_cut_off(
    server: InProcess, caplog: pytest.LogCaptureFixture
) -> None:
    server.ask(lambda: server.service.change_limits(Limits(backlog_max_bytes=3_000_000)))
    server.until(lambda: not server.service.connections)
    deaf = server.client()
    audience = server.service.storages["1"].audience
    frame = framed(0, True, "invalidateTransaction", (A, (b"x" * 1_000_000,)))
    for _ in range(30):  # the system's own buffers take some megabytes
        server.ask(lambda: audience.tell(frame))
    server.until(lambda: not server.service.connections)
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "reads too slowly" in line
    with pytest.raises(ConnectionError):
        deaf.call("ping")
    deaf.close()


def test_connections_leave_nothing_behind(server: InProcess) -> None:
    def connections() -> None:
        for _ in range(20):
            with server.client() as client:
                client.begin(1, {fresh_oid(): (ZERO_TID, b"never voted")})
                client.call("ping")
        server.until(lambda: not server.service.connections)

    connections()
    alive = _sessions()
    connections()
    assert _sessions() <= alive + 1
    coordinator = server.service.storages["1"]
    assert server.ask(lambda: (len(coordinator.audience), coordinator.counters.active_txns)) == (0, 0)


def test_a_server_that_stops_ends_its_connections() -> None:
    with in_process({"1": MappingStorage(), "2": MappingStorage()}) as running:
        clients = [running.client("1"), running.client("2"), running.client(register=False)]
        clients[0].begin(1, {ROOT_OID: (ZERO_TID, b"voted")})
        clients[0].call("vote", 1)
    for client in clients:
        client.wait_closed()
        client.close()


_oids = count(1000)


def fresh_oid() -> bytes:
    return pack_id(next(_oids))


def _sessions() -> int:
    gc.collect()
    return sum(1 for thing in gc.get_objects() if isinstance(thing, session.ServerSession))


def _resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
