"""Two servers in this process, of which the second serves the storage of the first on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tests.proxy import Proxy
from tests.server.in_process import InProcess, in_process
from zeo_client.storage import ClientStorage
from zeo_core.ids import ZERO_TID, Oid, Tid
from zeo_core.storage import ServedStorage
from zeo_server.storages.mapping import MappingStorage
from zeo_server.storages.relayed import RelayedStorage

__all__ = ["Relay", "commit", "relaying"]


class Relay(NamedTuple):
    """Both servers, the second one's storage, and the proxy between them."""

    first: InProcess
    second: InProcess
    storage: RelayedStorage
    proxy: Proxy


@contextmanager
def relaying(
    served: ServedStorage | None = None, *, read_only: bool = True, options: dict[str, Any] | None = None
) -> Iterator[Relay]:
    """Serve `served`, a MappingStorage by default, and serve it on by a client with `options`."""
    with in_process({"1": served or MappingStorage()}) as first:
        assert isinstance(first.address, tuple)
        with Proxy(first.address) as proxy:
            client = ClientStorage(proxy.address, read_only=read_only, **(options or {}))
            storage = RelayedStorage(client, read_only=read_only)
            with in_process({"1": storage}) as second:
                yield Relay(first, second, storage, proxy)


def commit(server: InProcess, *oids: Oid, data: bytes = b"data") -> Tid:
    """Commit new revisions of objects to a server, whatever their present ones are."""
    with server.client() as client:
        objects = {}
        for oid in oids:
            try:
                revision = client.load(oid)
            except KeyError:
                revision = None
            objects[oid] = (ZERO_TID if revision is None else revision[1], data)
        return client.commit(objects)
