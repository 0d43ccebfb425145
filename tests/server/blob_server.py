"""A served FileStorage with blobs, and what its tests send and look for."""

import os
from collections.abc import Iterable
from pathlib import Path

from tests.server.raw_client import RawClient
from zeo_core.ids import ZERO_TID, Oid, Tid, pack_id
from zeo_core.wire.session import Request
from zeo_server.storages.file import FileStorage

__all__ = ["A", "B", "begin", "blob_storage", "commit", "files", "loaded", "send"]

A, B = pack_id(1), pack_id(2)


def blob_storage(directory: Path) -> FileStorage:
    return FileStorage(directory / "Data.fs", blob_dir=directory / "blobs")


def begin(client: RawClient, txn: int = 1) -> None:
    client.one_way("tpc_begin", txn, "", "", {}, None, " ")


def send(client: RawClient, oid: Oid, chunks: Iterable[bytes], *, txn: int = 1, serial: Tid = ZERO_TID) -> None:
    client.one_way("storeBlobStart")
    for chunk in chunks:
        client.one_way("storeBlobChunk", chunk)
    client.one_way("storeBlobEnd", oid, serial, b"a record", txn)


def commit(client: RawClient, oid: Oid, chunks: Iterable[bytes], *, serial: Tid = ZERO_TID) -> Tid:
    begin(client)
    send(client, oid, chunks, serial=serial)
    assert client.call("vote", 1) == ()
    tid: Tid = client.call("tpc_finish", 1)
    return tid


def loaded(client: RawClient, oid: Oid, tid: Tid) -> bytes:
    """Return a blob, as the client has it when the reply is there."""
    start = len(client.heard)
    assert client.call("sendBlob", oid, tid) is None
    pushed = [event for event in client.heard[start:] if isinstance(event, Request) and "Blob" in event.method]
    assert [pushed[0].method, pushed[-1].method] == ["receiveBlobStart", "receiveBlobStop"]
    assert {event.args[:2] for event in pushed} == {(oid, tid)}
    assert {event.method for event in pushed[1:-1]} <= {"receiveBlobChunk"}
    return b"".join(event.args[2] for event in pushed[1:-1])


def files(directory: Path) -> list[str]:
    """Return all files of the blob directory but its marker, as they are called."""
    return sorted(
        name for _, _, names in os.walk(directory / "blobs") for name in names if not name.startswith(".layout")
    )
