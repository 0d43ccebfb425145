"""Fresh oids; test_storage_oids.py has the client around them, and a server that is slow or lost."""

from collections.abc import Iterator

import pytest

from tests.client.peer import Peer, in_threads
from zeo_client.oid_stock import OIDS_AT_ONCE, OidStock
from zeo_client.storage import ClientStorage


@pytest.fixture
def storage(peer: Peer) -> Iterator[ClientStorage]:
    storage = ClientStorage(str(peer.address))
    yield storage
    storage.close()


def test_they_are_fetched_together_and_given_in_order(peer: Peer, storage: ClientStorage) -> None:
    stock = OidStock(storage._supervisor.channel)
    taken = [stock.take() for _ in range(OIDS_AT_ONCE + 1)]
    assert taken == sorted(set(taken))
    assert len(peer.link().calls("new_oids")) == 2


def test_two_threads_never_get_the_same(storage: ClientStorage) -> None:
    stock = OidStock(storage._supervisor.channel)
    taken = in_threads(*[lambda: [stock.take() for _ in range(250)]] * 4)
    assert len({oid for each in taken for oid in each}) == 1000
