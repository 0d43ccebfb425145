"""Fixtures: a scripted peer and channels to it."""

from collections.abc import Iterator

import pytest

from tests.client.peer import Peer
from tests.client.transport.channels import Client


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer(listen=False)
    yield peer
    peer.stop()


@pytest.fixture
def client(peer: Peer) -> Iterator[Client]:
    client = Client(peer)
    yield client
    client.close()


@pytest.fixture
def unattended(peer: Peer) -> Iterator[Client]:
    """A client without a background thread, as while it verifies."""
    client = Client(peer, attended=False)
    yield client
    client.close()
