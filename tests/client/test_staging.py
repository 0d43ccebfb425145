import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from zeo_client.staging import MEMORY_BYTES, METADATA_MAX_BYTES, RECORD_MAX_BYTES, Staging
from zeo_client.transport.address import Address
from zeo_client.transport.channel import Channel
from zeo_core.errors import StorageError, StorageTransactionError
from zeo_core.ids import ZERO_TID, pack_id
from zeo_core.transaction import extension_bytes
from zeo_core.wire.session import MESSAGE_MAX_BYTES, Request, Role, Session

A, B, C = pack_id(1), pack_id(2), pack_id(3)
T1, T2 = pack_id(101), pack_id(102)


@dataclass
class Txn:
    user: Any = ""
    description: Any = ""
    extension: Any = field(default_factory=dict)


@pytest.fixture
def channel() -> Iterator[Channel]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours, Address("db1", 1), lambda *_: None, 1000)


def begin(channel: Channel, memory_bytes: int = MEMORY_BYTES, **metadata: Any) -> Staging:
    return Staging.begin(Txn(**metadata), 7, channel, memory_bytes=memory_bytes)


def heard(burst: bytes) -> list[tuple[Any, ...]]:
    """What a server makes of it: (method, arguments...), all of them one-way."""
    server, client = Session(Role.SERVER), Session(Role.CLIENT)
    list(client.receive(server.greeting()))
    list(server.receive(server.greeting()))  # the client's answer is the same
    list(server.receive(client.call(1, "register", ("1",))))
    server.registered()
    events = list(server.receive(burst))
    assert all(isinstance(event, Request) and event.one_way for event in events), events
    return [(event.method, *event.args) for event in events if isinstance(event, Request)]


def test_a_burst_is_begin_then_objects_then_checks(channel: Channel) -> None:
    staging = begin(channel, user="ann", description=b"why", extension={"k": [1, None, {"x": 2.5}]})
    staging.store(A, T1, b"a")
    staging.check(B, T2)
    staging.store(B, None, b"b")
    assert heard(staging.burst()) == [
        ("tpc_begin", 7, b"ann", b"why", {"k": (1, None, {"x": 2.5})}, None, " "),
        ("storea", A, T1, b"a", 7),
        ("storea", B, ZERO_TID, b"b", 7),
        ("checkCurrentSerialInTransaction", B, T2, 7),
    ]


def test_the_later_of_two_records_counts(channel: Channel) -> None:
    staging = begin(channel)
    staging.store(A, T1, b"first")
    staging.store(A, T1, b"second")
    assert heard(staging.burst())[1:] == [("storea", A, T1, b"second", 7)]


def test_nothing_can_be_added_once_it_is_sent(channel: Channel) -> None:
    """Lesson B14: it would enter the cache without ever reaching the server."""
    staging = begin(channel)
    staging.burst()
    assert staging.sent
    with pytest.raises(StorageTransactionError):
        staging.store(A, T1, b"late")
    with pytest.raises(StorageTransactionError):
        staging.check(A, T1)
    with pytest.raises(StorageTransactionError):
        staging.burst()
    assert staging.writes == {}


@pytest.mark.parametrize("extension", [None, {}, b""])
def test_no_extension(channel: Channel, extension: Any) -> None:
    assert heard(begin(channel, extension=extension).burst())[0][4] == {}


def test_an_extension_that_is_bytes_already(channel: Channel) -> None:
    encoded = extension_bytes({"request": "GET /"})
    assert heard(begin(channel, extension=encoded).burst())[0][4] == {"request": "GET /"}


class Name(str):
    """msgpack does not take it for text unless asked to."""

    __slots__ = ()


def test_subclasses_of_plain_values_travel_as_the_plain_value(channel: Channel) -> None:
    assert heard(begin(channel, user=Name("ann"), extension={Name("k"): Name("v")}).burst())[0][2:5] == (
        b"ann",
        b"",
        {"k": "v"},
    )


@pytest.mark.parametrize("user", [None, "", b""])
def test_no_user(channel: Channel, user: Any) -> None:
    assert heard(begin(channel, user=user).burst())[0][2] == b""


@pytest.mark.parametrize("extension", [{1: "x"}, {"x": object()}, {"x": 2**64}, {"x": {2: 3}}, {"x": "\ud800"}, "text"])
def test_an_extension_that_the_wire_could_not_carry_is_refused_at_the_beginning(
    channel: Channel, extension: Any
) -> None:
    """Lesson B42: the server could only close the connection, and the caller would try again for ever."""
    with pytest.raises(TypeError, match="extension"):
        begin(channel, extension=extension)


@pytest.mark.parametrize(
    "metadata", [{"user": "u" * 65_536}, {"description": "\u00e9" * 40_000}, {"extension": {"k": "x" * 65_536}}]
)
def test_metadata_that_are_too_long_are_refused_at_the_beginning(channel: Channel, metadata: Any) -> None:
    with pytest.raises(StorageError, match=f"more than {METADATA_MAX_BYTES}"):
        begin(channel, **metadata)


@pytest.mark.parametrize(("oid", "serial"), [(b"", T1), (None, T1), (1, T1), (A, b"x"), (A, 1), (A + A, T1)])
def test_what_is_no_id_is_refused(channel: Channel, oid: Any, serial: Any) -> None:
    staging = begin(channel)
    with pytest.raises(StorageError, match="8 bytes"):
        staging.store(oid, serial, b"data")
    with pytest.raises(StorageError, match="8 bytes"):
        staging.check(oid, serial)
    assert len(heard(staging.burst())) == 1


@pytest.mark.parametrize("data", [b"", None, "text", bytearray(b"data")])
def test_what_is_no_data_is_refused(channel: Channel, data: Any) -> None:
    with pytest.raises(StorageError, match=r"data .*oid 0x01"):
        begin(channel).store(A, T1, data)


def test_a_record_that_no_message_can_hold_is_refused(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeo_client.staging.RECORD_MAX_BYTES", 10)
    staging = begin(channel)
    staging.store(A, T1, b"x" * 10)
    with pytest.raises(StorageError, match="11 bytes of data for oid 0x02, where 10 are the most"):
        staging.store(B, T1, b"x" * 11)


def test_the_largest_record_fits_a_message(channel: Channel) -> None:
    staging = begin(channel)
    staging.store(A, T1, b"x" * 1000)
    overhead = len(staging.burst()) - len(staging.begin_call) - 1000
    assert RECORD_MAX_BYTES + overhead + 100 < MESSAGE_MAX_BYTES


def test_the_call_after_a_blob_says_what_became_of_the_object(channel: Channel) -> None:
    staging = begin(channel)
    staging.store(A, T1, b"a")
    staging.restore(B, T2, b"b", T1)
    staging.blobs = {A: "file", B: "file"}
    assert heard(staging.burst() + staging.blob_end(A) + staging.blob_end(B))[1:] == [
        ("storeBlobEnd", A, T1, b"a", 7),
        ("restoreBlobEnd", B, b"b", T1, 7),
    ]


def test_a_large_transaction_goes_on_in_a_file(channel: Channel) -> None:
    staging = begin(channel, memory_bytes=1000)
    oids = [pack_id(number) for number in range(1, 12)]
    for oid in oids:
        staging.store(oid, T1, oid * 30)
    assert staging.spool is not None
    assert 0 < len(staging.writes) < 5
    assert not staging.is_small()
    assert staging.changed() == set(oids)
    assert staging.write(oids[0]) == ("storea", (oids[0], T1, oids[0] * 30), oids[0] * 30)
    assert staging.write(oids[-1]) == ("storea", (oids[-1], T1, oids[-1] * 30), oids[-1] * 30)
    assert staging.write(pack_id(99)) is None
    staging.check(C, T1)
    told = heard(b"".join(staging.pieces()))
    assert [call[0] for call in told] == ["tpc_begin", *["storea"] * 11, "checkCurrentSerialInTransaction"]
    assert [call[1:] for call in told[1:12]] == [(oid, T1, oid * 30, 7) for oid in oids]
    with pytest.raises(StorageTransactionError):
        next(staging.pieces())
    staging.close()


def test_what_was_spooled_may_be_replaced_ended_resolved_or_become_a_blob(channel: Channel) -> None:
    staging = begin(channel, memory_bytes=100)
    for oid in (A, B, C):
        staging.store(oid, T1, b"x" * 101)
    assert staging.writes == {}
    staging.store(A, T1, b"second")
    staging.delete(B, T1)
    staging.blobs[C] = "a file"
    told = heard(b"".join(staging.pieces()))
    assert told[1:] == [("storea", A, T1, b"second", 7), ("deleteObject", B, T1, 7)]
    assert heard(staging.begin_call + staging.blob_end(C))[1:] == [("storeBlobEnd", C, T1, b"x" * 101, 7)]
    staging.resolve(C, T1, b"resolved")
    assert staging.write(C) == ("storea", (C, T1, b"resolved"), b"resolved")
    assert staging.changed() == {A, B, C}
    staging.close()


def test_many_records_in_memory_leave_in_pieces(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeo_client.staging.PIECE_BYTES", 1000)
    staging = begin(channel)
    for number in range(1, 11):
        staging.store(pack_id(number), T1, b"x" * 400)
    assert not staging.is_small()
    pieces = list(staging.pieces())
    assert len(pieces) == 4
    assert [call[0] for call in heard(b"".join(pieces))] == ["tpc_begin", *["storea"] * 10]
