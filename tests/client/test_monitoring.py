"""Asking a server for its figures: ours, ZEO's, and what is none."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fixtures_runzeo import StartRunZEO
from tests.fixtures_zeod import StartZeod
from zeo_client.monitoring import ask
from zeo_client.transport.address import parse_address
from zeo_core.errors import ClientDisconnected, RemoteProtocolError
from zeo_core.wire.frames import encode_frame


@contextmanager
def answering(data: bytes) -> Iterator[int]:
    """Listen, answer one connection with `data` and close it; gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1000):
                    pass

        thread = threading.Thread(target=answer)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def test_a_zeod_tells_of_all_its_storages(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "One.fs", "-f", "Two.fs")
    storages = ask(parse_address(server.address))
    assert set(storages) == {"1", "2"}
    assert storages["2"]["commits"] == 0


def test_over_a_unix_socket(start_zeod: StartZeod, tmp_path: Path) -> None:
    server = start_zeod("-f", "Data.fs", "-a", "./zeod.sock")
    assert set(ask(parse_address(server.address))) == {"1"}


def test_a_server_of_zeo_answers_too(start_runzeo: StartRunZEO, tmp_path: Path) -> None:
    server = start_runzeo(tmp_path / "Data.fs")
    assert ask(parse_address(server.address))["1"]["connections"] == 0


def test_nobody_is_there(tmp_path: Path) -> None:
    with pytest.raises(ClientDisconnected, match="nobody"):
        ask(parse_address(str(tmp_path / "nobody")))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        port = bound.getsockname()[1]
        with pytest.raises(ClientDisconnected, match=str(port)):
            ask(parse_address(port))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", ClientDisconnected),
        (encode_frame(b"M5"), ClientDisconnected),
        (encode_frame(b"M5") + encode_frame(b"{}")[:-1], ClientDisconnected),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", RemoteProtocolError),
        (encode_frame(b"M5") + encode_frame(b"what?"), RemoteProtocolError),
        (encode_frame(b"M5") + encode_frame(b"\xff"), RemoteProtocolError),
        (encode_frame(b"M5") + encode_frame(b"[1]"), RemoteProtocolError),
        (encode_frame(b"M5") + encode_frame(b'{"1": 2}'), RemoteProtocolError),
    ],
)
def test_what_is_no_such_server(data: bytes, error: type[Exception]) -> None:
    with answering(data) as port, pytest.raises(error, match=f"127.0.0.1:{port}|a message of"):
        ask(parse_address(port), timeout_s=10)
