"""What the tests of ClientStorage share."""

from collections.abc import Callable, Sequence

from tests.client.peer import Peer, until
from zeo_client.storage import ClientStorage
from zeo_core.ids import Oid, Tid

__all__ = ["Ear", "Open", "away", "reconnected"]

Open = Callable[..., ClientStorage]
"""Open a ClientStorage on the test's peer; it is closed at the end."""


class Ear:
    """A sink that notes what it hears, and the storage's last tid at that moment."""

    def __init__(self, storage: ClientStorage) -> None:
        self.heard: list[tuple[Tid, tuple[Oid, ...]]] = []
        self.resets = 0
        self.last_tids: list[Tid] = []
        self._storage = storage
        storage.register_sink(self)

    def invalidate(self, tid: Tid, oids: Sequence[Oid]) -> None:
        self.last_tids.append(self._storage.last_tid())
        self.heard.append((tid, tuple(oids)))

    def invalidateCache(self) -> None:  # noqa: N802
        self.resets += 1


def reconnected(storage: ClientStorage, peer: Peer) -> None:
    """Cut the connection and wait for the next one to be verified."""
    number = len(peer.links)
    peer.link().cut()
    until(lambda: len(peer.links) > number and storage.is_connected())


def away(peer: Peer, storage: ClientStorage) -> None:
    """Stop the server and wait until the client has noticed."""
    peer.stop()
    until(lambda: not storage.is_connected())
