"""Blobs that are sent to clients: whole, one after the other, no faster than they are read."""

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.server.blob_server import A, B, blob_storage, commit, loaded
from tests.server.in_process import InProcess, in_process
from tests.server.raw_client import RawClient
from zeo_core.errors import POSKeyError
from zeo_core.ids import ZERO_TID
from zeo_core.wire.session import Request
from zeo_server.downloads import SLICE_BYTES
from zeo_server.limits import DEFAULT_LIMITS

LARGE = os.urandom(1 << 20) * 9


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcess]:
    with in_process({"1": blob_storage(tmp_path)}) as started:
        yield started


@pytest.fixture
def client(server: InProcess) -> Iterator[RawClient]:
    with closing(server.client()) as connected:
        yield connected


@pytest.mark.parametrize("size", [0, 1, SLICE_BYTES - 1, SLICE_BYTES, SLICE_BYTES + 1, len(LARGE)])
def test_a_blob_comes_whole(client: RawClient, size: int) -> None:
    tid = commit(client, A, [LARGE[:size]])
    assert loaded(client, A, tid) == LARGE[:size]


def test_a_blob_that_is_not_there(client: RawClient) -> None:
    with pytest.raises(POSKeyError):
        client.call("sendBlob", A, ZERO_TID)
    tid = commit(client, A, [b"x"])
    assert loaded(client, A, tid) == b"x"


def test_blobs_come_one_after_the_other_and_loads_between_their_chunks(client: RawClient) -> None:
    first, second = commit(client, A, [LARGE]), commit(client, B, [b"second"])
    start = len(client.heard)
    asked = [client.send("sendBlob", A, first), client.send("sendBlob", B, second), client.send("loadBefore", A, first)]
    for message_id in asked:
        client.wait(message_id)
    heard = client.heard[start:]
    blobs = [event.args[0] for event in heard if isinstance(event, Request) and event.method.startswith("receiveBlob")]
    assert blobs == sorted(blobs)
    assert isinstance(heard[-1], tuple)
    replies = [event.message_id for event in heard if not isinstance(event, Request)]  # type: ignore[union-attr]
    assert replies.index(asked[0]) < replies.index(asked[1])
    assert replies[0] == asked[2]


def test_a_client_that_does_not_read_is_not_sent_more(server: InProcess, client: RawClient, tmp_path: Path) -> None:
    tid = commit(client, A, [b"x"])
    path = server.service.storages["1"].storage.loadBlob(A, tid)  # type: ignore[attr-defined]
    os.chmod(path, 0o600)
    os.truncate(path, 2 * DEFAULT_LIMITS.backlog_max_bytes)  # more than would have it cut off
    with closing(server.client()) as slow:
        asked = slow.send("sendBlob", A, tid)
        server.until(lambda: any(not connection.takes_more() for connection in server.service.connections))  # type: ignore[attr-defined]
        client.call("ping")
        slow.wait(asked)
        chunks = (event.args[2] for event in slow.heard if isinstance(event, Request) and len(event.args) == 3)
        assert sum(map(len, chunks)) == 2 * DEFAULT_LIMITS.backlog_max_bytes


def open_files() -> set[str]:
    """The names of the files that this process, and so the server in it, has open."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # another thread has just closed it
            found.add(os.readlink(f"/proc/self/fd/{number}"))
    return found


def test_a_client_that_goes_away_in_the_middle(server: InProcess, client: RawClient) -> None:
    tid = commit(client, A, [LARGE])
    path: str = server.service.storages["1"].storage.loadBlob(A, tid)  # type: ignore[attr-defined]
    gone = server.client()
    gone.send("sendBlob", A, tid)
    server.until(lambda: any(not connection.takes_more() for connection in server.service.connections))  # type: ignore[attr-defined]
    assert path in open_files()
    gone.close()
    server.until(lambda: len(server.service.connections) == 1)
    server.until(lambda: path not in open_files())
    assert loaded(client, A, tid) == LARGE


def test_a_file_that_becomes_shorter_ends_the_connection(server: InProcess, client: RawClient) -> None:
    tid = commit(client, A, [LARGE])
    path = server.service.storages["1"].storage.loadBlob(A, tid)  # type: ignore[attr-defined]
    os.chmod(path, 0o600)
    with closing(server.client()) as misled:
        misled.send("sendBlob", A, tid)
        server.until(lambda: any(not connection.takes_more() for connection in server.service.connections))  # type: ignore[attr-defined]
        os.truncate(path, SLICE_BYTES)
        misled.wait_closed()
