"""What one server process offers: its storages by name, and the connections that use them."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Protocol

from zeo_core.errors import AccessDeniedError, ReadOnlyError
from zeo_core.roles import ClientRole
from zeo_server.access import AccessRules
from zeo_server.commit.coordinator import Coordinator
from zeo_server.commit.transaction import Member
from zeo_server.histogram import SECONDS, Histogram
from zeo_server.limits import DEFAULT_LIMITS, Limits
from zeo_server.outgoing import Outgoing
from zeo_server.peer import Peer
from zeo_server.silence import Quiet, SilenceWatch
from zeo_server.status import ClientStatus, ServerStatus, StorageStatus
from zeo_server.storages.relayed import RelayedStorage

__all__ = ["CLOSE_GRACE_S", "SLOW_CALL_THREADS", "Connection", "Service"]

CLOSE_GRACE_S = 1.0
"""How long a closed connection may take to deliver its last replies."""

SLOW_CALL_THREADS = 4
"""Threads for iteration, undo logs and the like, apart from those for loads, which must not wait for these."""

_log = logging.getLogger("ZEO.StorageServer")


class Connection(Member, Quiet, Protocol):
    """A connection, registered or not."""

    def abort(self) -> None:
        """Cut the connection without delivering what is queued."""

    def status(self) -> ClientStatus | None:
        """Return the client's figures, None if it is not registered."""


class Service:
    """The storages of one process, and everybody connected to it."""

    def __init__(
        self,
        storages: Mapping[str, Coordinator],
        *,
        read_only: bool = False,
        access: AccessRules | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.storages = storages
        self.read_only = read_only
        self.access = access
        """The rules for who registers from now on; without any, everybody may do everything."""
        self.limits = limits
        self.connections: dict[Connection, str | None] = {}
        """Who is connected, and from which TCP address."""
        self.turns = Histogram(SECONDS)
        """For how long the loop is busy with what one read of one client brought."""
        self.outgoing = Outgoing(asyncio.get_running_loop())
        self._version = version("zeod")
        self._addresses: Counter[str] = Counter()
        self._silence = SilenceWatch(asyncio.get_running_loop(), self.connections, limits)
        self.threads = ThreadPoolExecutor(SLOW_CALL_THREADS, "zeod-slow-call")
        self._emptied = asyncio.Event()

    def choose(self, name: str, read_only: bool, peer: Peer) -> tuple[Coordinator, ClientRole]:
        """Return the storage `name` and what `peer` may do there.

        AccessDeniedError for who has no role for it, ValueError if there is none, ReadOnlyError if it takes no writers
        or not this one, ClientDisconnected if it is another server's and nothing is known of it yet.
        """
        role = ClientRole.ADMIN if self.access is None else self.access.role(peer, name)
        if role is None:  # also where there is no such storage: a stranger need not learn which there are
            raise AccessDeniedError(f"no role for storage {name}")
        coordinator = self.storages.get(name)
        if coordinator is None:
            raise ValueError(f"unknown storage: {name}")
        if isinstance(coordinator.storage, RelayedStorage):
            coordinator.storage.check_serving()
        if read_only:
            return coordinator, ClientRole.READER
        if self.read_only or coordinator.storage.read_only():
            raise ReadOnlyError(f"storage {name} is read-only")
        if role is ClientRole.READER:
            raise ReadOnlyError(f"storage {name} may only be read by this client")
        return coordinator, role

    def enter(self, connection: Connection, address: str | None = None) -> str | None:
        """Take note of a new connection, from a TCP `address`; return why it cannot stay if there are too many."""
        limits, here = self.limits, self._addresses[address] if address is not None else 0
        self.connections[connection] = address
        if address is not None:
            self._addresses[address] += 1
        if limits.clients_max and len(self.connections) > limits.clients_max:
            return f"{limits.clients_max} clients are connected, which is as many as max-clients allows"
        if limits.clients_per_address_max and here >= limits.clients_per_address_max:
            return f"{here} clients are connected from {address}, which is as many as max-clients-per-address allows"
        self._silence.start()
        return None

    def exit(self, connection: Connection) -> None:
        """Forget a connection that is closed; harmless when repeated."""
        address = self.connections.pop(connection, None)
        if address is not None:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]
        if not self.connections:
            self._emptied.set()

    def change_limits(self, limits: Limits) -> None:
        """Let other limits hold for what begins from now on, and other times for all."""
        self.limits = limits
        self._silence.change(limits)
        for coordinator in self.storages.values():
            coordinator.change_limits(limits)

    def status(self) -> ServerStatus:
        """Return everything that is known as of now."""
        clients = [status for connection in self.connections if (status := connection.status()) is not None]
        by_storage: dict[str, list[ClientStatus]] = {name: [] for name in self.storages}
        for client in clients:
            by_storage[client.storage].append(client)
        storages = {name: StorageStatus.of(self.storages[name], there) for name, there in by_storage.items()}
        return ServerStatus(self._version, len(self.connections), self.turns.frozen(), storages, tuple(clients))

    async def stop(self, grace_s: float | None = None) -> None:
        """Finish what is voted and what is with the writers, then end all connections. The storages stay open.

        Whoever has nothing voted is cut off at once; those who have are given `grace_s` to finish, by default what the
        limits say.
        """
        grace_s = self.limits.drain_grace_s if grace_s is None else grace_s
        for coordinator in self.storages.values():
            coordinator.refuse_votes("the server is stopping")
        for connection in list(self.connections):
            if not any(coordinator.is_in_doubt(connection) for coordinator in self.storages.values()):
                connection.disconnect("the server is stopping")
        quiet = await asyncio.gather(*(coordinator.quiet(grace_s) for coordinator in self.storages.values()))
        if not all(quiet):
            _log.warning("clients that voted did not finish within %g seconds: their transactions are aborted", grace_s)
        for coordinator in self.storages.values():
            await coordinator.close()
        await self._end_connections()
        self._silence.close()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, lambda: self.threads.shutdown(cancel_futures=True))

    async def _end_connections(self) -> None:
        for connection in list(self.connections):
            connection.disconnect("the server is stopping")
        if self.connections:
            self._emptied.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), CLOSE_GRACE_S)
        for connection in list(self.connections):
            connection.abort()
