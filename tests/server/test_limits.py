"""Limits: their values and keys, and those of a connection over a socket."""

import threading
from dataclasses import fields

import pytest

from tests.server.in_process import in_process
from tests.server.raw_client import connect
from zeo_core.errors import StorageError
from zeo_core.ids import ZERO_TID, pack_id
from zeo_core.wire.session import Reply
from zeo_server.limits import DEFAULT_LIMITS, Limits
from zeo_server.storages.mapping import MappingStorage

A = pack_id(1)


def test_a_limit_has_a_least_value() -> None:
    with pytest.raises(ValueError, match="max-message-size 0 is less than 1"):
        Limits(message_max_bytes=0)
    with pytest.raises(ValueError, match="idle-timeout -1 is less than 0"):
        Limits(idle_timeout_s=-1)
    with pytest.raises(ValueError, match="turn_calls 0 is less than 1"):
        Limits(turn_calls=0)
    assert Limits(clients_max=0, registration_timeout_s=0, drain_grace_s=0)


def test_keys_and_what_differs_from_the_defaults() -> None:
    keys = Limits.keys()
    assert keys["max-clients"] == "clients_max"
    assert set(keys.values()) < {field.name for field in fields(Limits)}
    assert DEFAULT_LIMITS.changed() == []
    changed = Limits(clients_max=7, idle_timeout_s=600.5, history_max=5, blob_max_bytes=1 << 40)
    assert changed.changed() == ["max-clients 7", "idle-timeout 600.5", "max-blob-size 1099511627776"]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_stranger_may_send_little(caplog: pytest.LogCaptureFixture) -> None:
    with in_process(limits=Limits(registration_max_bytes=1000)) as server:
        with server.client("x" * 900, register=False) as client, pytest.raises(ValueError, match="unknown storage"):
            client.call("register", "x" * 900, False)
        with server.client(register=False) as client:
            client.send("register", "x" * 1000, False)
            client.wait_closed()
        [line] = warnings(caplog)
        assert "where at most 1000 are allowed" in line


def test_a_client_may_send_messages_of_a_size(caplog: pytest.LogCaptureFixture) -> None:
    with in_process(limits=Limits(message_max_bytes=100_000)) as server:
        with server.client() as client:
            client.commit({A: (ZERO_TID, b"x" * 99_000)})
            client.begin(2, {})
            client.one_way("storea", A, ZERO_TID, b"x" * 100_000, 2)
            client.wait_closed()
        [line] = warnings(caplog)
        assert "where at most 100000 are allowed" in line


def test_a_transaction_may_have_a_size() -> None:
    with in_process(limits=Limits(transaction_max_bytes=10_000)) as server, server.client() as client:
        client.begin(1, {pack_id(number): (ZERO_TID, b"x" * 3000) for number in range(4)})
        with pytest.raises(StorageError, match="the transaction is larger than 10000 bytes"):
            client.call("vote", 1)
        client.commit({A: (ZERO_TID, b"x" * 3000)}, txn=2)


def test_iterators_are_counted() -> None:
    with in_process(limits=Limits(iterators_max=2)) as server, server.client() as client:
        client.commit({A: (ZERO_TID, b"x")})
        first = client.call("iterator_start", None, None)
        client.call("iterator_start", None, None)
        with pytest.raises(StorageError, match="2 iterators are open on this connection"):
            client.call("iterator_start", None, None)
        client.call("iterator_gc", (first,))
        client.call("iterator_start", None, None)


def test_clients_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    with in_process(limits=Limits(clients_max=2)) as server:
        with server.client(), server.client() as second:
            with connect(server.address) as refused:
                assert refused.recv(1) == b""
            [line] = warnings(caplog)
            assert "2 clients are connected, which is as many as max-clients allows" in line
            second.commit({A: (ZERO_TID, b"x")})
        server.until(lambda: not server.service.connections)
        server.client().close()


def test_clients_of_one_address_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    with in_process(limits=Limits(clients_per_address_max=1)) as server, server.client():
        with connect(server.address) as refused:
            assert refused.recv(1) == b""
        [line] = warnings(caplog)
        assert "1 clients are connected from 127.0.0.1" in line


def test_who_does_not_register_is_sent_away(caplog: pytest.LogCaptureFixture) -> None:
    with in_process(limits=Limits(registration_timeout_s=0.1)) as server, server.client() as client:
        with connect(server.address) as mute:
            while mute.recv(100):
                pass
        with server.client(register=False) as undecided:
            undecided.wait_closed()
        assert warnings(caplog) == [line for line in warnings(caplog) if "did not register within 0.1 seconds" in line]
        assert len(warnings(caplog)) == 2
        client.call("ping")


def test_who_says_nothing_is_sent_away_in_time(caplog: pytest.LogCaptureFixture) -> None:
    with in_process(limits=Limits(idle_timeout_s=0.3)) as server, server.client() as mute, server.client() as alive:
        silent = threading.Event()

        def talk() -> None:
            while not silent.wait(0.02):
                alive.sock.sendall(alive.session.keep_alive())

        talking = threading.Thread(target=talk)
        talking.start()
        mute.wait_closed()
        silent.set()
        talking.join()
        assert alive.call("ping") is None
        [line] = warnings(caplog)
        assert "silent for 0.3 seconds" in line


class Gated(MappingStorage):
    """Walks its objects only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def record_iternext(self, next: object = None) -> object:  # type: ignore[override]  # noqa: A002
        assert self.gate.wait(20)
        return super().record_iternext(None)


def test_no_more_calls_are_taken_than_are_allowed_to_wait() -> None:
    storage = Gated()
    with in_process({"1": storage}, limits=Limits(calls_max=5)) as server, server.client() as client:
        client.commit({A: (ZERO_TID, b"x")})
        asked = [client.send("record_iternext") for _ in range(50)]
        last = client.send("ping")
        [session] = list(server.service.connections)
        server.until(lambda: session._waiting == 5)  # type: ignore[attr-defined]
        with server.client() as other:
            for _ in range(20):  # others are served, and not one more of these calls is taken meanwhile
                other.call("ping")
        assert server.ask(lambda: session._waiting) == 5  # type: ignore[attr-defined]
        assert not any(isinstance(event, Reply) and event.message_id == last for event in client.heard)
        storage.gate.set()
        assert client.wait(last) is None
        for message_id in asked:
            assert client.wait(message_id)[0] == A


def test_new_limits_are_for_what_begins_from_now_on() -> None:
    with in_process() as server, server.client() as before:
        server.ask(lambda: server.service.change_limits(Limits(transaction_max_bytes=1000, registration_timeout_s=0.1)))
        before.begin(1, {A: (ZERO_TID, b"x" * 2000)})
        with pytest.raises(StorageError, match="larger than 1000 bytes"):
            before.call("vote", 1)
        with connect(server.address) as mute:
            while mute.recv(100):
                pass
