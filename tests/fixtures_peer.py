"""A scripted server, and ClientStorages on it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.peer import Background, Peer, nothing_left_behind
from tests.client.storages import Open
from zeo_client.storage import ClientStorage


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No thread or socket of the client's may be left when the test ends."""
    with nothing_left_behind():
        yield


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    """A scripted server on a Unix socket."""
    peer = Peer(tmp_path / "peer")
    yield peer
    peer.stop()


@pytest.fixture
def opened(peer: Peer) -> Iterator[Open]:
    """Open ClientStorages on the peer, closed at the end."""
    storages: list[ClientStorage] = []

    def open_storage(**options: Any) -> ClientStorage:
        storage = ClientStorage(str(peer.address), **{"wait_timeout": 10, "reconnect_timeout": 10, **options})
        storages.append(storage)
        return storage

    yield open_storage
    for storage in storages:
        Background(storage.close).result()
