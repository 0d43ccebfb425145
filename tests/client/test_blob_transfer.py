"""Blobs in chunks, there and back."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.peer import Peer, until
from tests.client.transport.channels import Client
from zeo_client.blob_transfer import CHUNK_BYTES, Download, upload
from zeo_core.errors import ClientDisconnected, POSKeyError, RemoteProtocolError, StorageError
from zeo_core.ids import ZERO_TID, pack_id
from zeo_core.wire.codec import encode_one_way

A = pack_id(1)
END = encode_one_way("storeBlobEnd", (A, ZERO_TID, b"a record", 1))


@pytest.fixture
def client() -> Iterator[Client]:
    peer = Peer(listen=False)
    client = Client(peer)
    yield client
    client.close()
    peer.stop()


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES])
def test_a_file_is_sent_in_chunks(client: Client, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "blob").write_bytes(data)
    client.link.peer.script.update(dict.fromkeys(("storeBlobStart", "storeBlobChunk", "storeBlobEnd"), lambda *_: None))
    upload(client.channel, str(tmp_path / "blob"), END)
    client.channel.call("ping")
    chunks = [request.args[0] for request in client.link.calls("storeBlobChunk")]
    assert b"".join(chunks) == data
    assert all(len(chunk) <= CHUNK_BYTES for chunk in chunks)
    methods = [request.method for request in client.link.requests if "Blob" in request.method]
    assert (methods[0], methods[-1]) == ("storeBlobStart", "storeBlobEnd")


def test_a_file_that_becomes_shorter_ends_the_connection(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"x" * 20 * CHUNK_BYTES)
    client.link.peer.script["storeBlobStart"] = lambda *_: os.truncate(path, 3)
    client.link.peer.script["storeBlobChunk"] = lambda link, _request: link.reading.clear()
    with pytest.raises((StorageError, ClientDisconnected)):
        upload(client.channel, str(path), END)
    until(lambda: client.channel.lost)


def test_a_lost_connection_is_told(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"x" * 20 * CHUNK_BYTES)
    client.link.peer.script["storeBlobStart"] = lambda link, _request: link.cut()
    with pytest.raises(ClientDisconnected):
        upload(client.channel, str(path), END)


# -- coming in --------------------------------------------------------------------------------------------------------


def test_a_blob_comes_in(tmp_path: Path) -> None:
    with (tmp_path / "blob").open("wb", buffering=0) as file:
        download = Download(A, file)
        with pytest.raises(POSKeyError):
            download.check_whole()
        download.start()
        download.add(b"one")
        download.add(b"two")
        with pytest.raises(POSKeyError):
            download.check_whole()
        download.stop()
        download.check_whole()
    assert (tmp_path / "blob").read_bytes() == b"onetwo"


def test_what_comes_out_of_order_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "blob").open("wb", buffering=0) as file:
        download = Download(A, file)
        with pytest.raises(RemoteProtocolError, match="before its beginning"):
            download.add(b"x")
        with pytest.raises(RemoteProtocolError, match="before its beginning"):
            download.stop()
        download.start()
        with pytest.raises(RemoteProtocolError, match="begins twice"):
            download.start()
        download.stop()
        with pytest.raises(RemoteProtocolError, match="after its end"):
            download.add(b"x")


class Slow(io.FileIO):
    """Takes two bytes at a time, as a file may."""

    def write(self, data: Any, /) -> int:
        return super().write(bytes(memoryview(data)[:2]))


def test_a_file_that_takes_little_at_a_time_gets_all(tmp_path: Path) -> None:
    with Slow(str(tmp_path / "blob"), "wb") as file:
        download = Download(A, file)
        download.start()
        download.add(b"12345")
        download.stop()
    assert (tmp_path / "blob").read_bytes() == b"12345"


def test_a_file_that_somebody_else_shortened_is_not_whole(tmp_path: Path) -> None:
    with (tmp_path / "blob").open("wb", buffering=0) as file:
        download = Download(A, file)
        download.start()
        download.add(b"12345")
        os.truncate(tmp_path / "blob", 3)
        with pytest.raises(StorageError, match="not written whole"):
            download.stop()
