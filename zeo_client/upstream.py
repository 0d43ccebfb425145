"""A ClientStorage for a server that serves it on: what such a server needs beyond the storage contract.

`open_upstream` is what zeod finds under the name "upstream" among the entry points `zeod.storages`: neither package
imports the other.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zeo_client import replies
from zeo_client.cache.opening import Cache
from zeo_client.client_options import effective_options
from zeo_client.open_transactions import OpenTransactions
from zeo_client.tls_files import client_context
from zeo_client.transport.supervisor import Supervisor
from zeo_core.ids import Oid, Tid
from zeo_core.transaction import Revision
from zeo_core.upstream import UpstreamConflict, UpstreamTransaction, UpstreamVote
from zeo_core.wire.methods import COMMIT_OUTCOME

if TYPE_CHECKING:
    from zeo_client.storage import ClientStorage

__all__ = ["UpstreamLink", "open_upstream"]


class UpstreamLink:
    """The way to the server of one ClientStorage; see zeo_core.upstream."""

    def __init__(
        self, supervisor: Supervisor, cache: Cache, transactions: OpenTransactions, has: Callable[[str], bool]
    ) -> None:
        self._supervisor = supervisor
        self._transactions = transactions
        self._has = has
        self.connection = supervisor.current
        self.memory_stats = cache.memory_stats
        self.known_tid = cache.last_tid
        self._from_memory: Callable[[Oid, Tid], Revision | None] = cache.load_from_memory

    def load_cached(self, oid: Oid, tid: Tid) -> Revision | None:
        """Return the newest revision before `tid` out of memory; BlockingIOError if it is not there."""
        revision = self._from_memory(oid, tid)
        if revision is None:
            raise BlockingIOError
        return revision

    def changes_since(self, tid: Tid) -> tuple[Tid, Sequence[Oid]] | None:
        """Return the server's last tid and each oid that changed after `tid`, None if it cannot tell."""
        answer: tuple[Tid, Sequence[Oid]] | None = self._supervisor.channel().call(
            "getInvalidations", (tid,), replies.changes
        )
        return answer

    def new_oids(self, count: int) -> list[Oid]:
        """Return fresh oids, `count` of them or as many as the server gives at once."""
        fresh: list[Oid] = self._supervisor.channel().call("new_oids", (count,), replies.fresh_oids)
        return fresh

    def vote(
        self, transaction: UpstreamTransaction, *, resolves: bool, again: Sequence[tuple[Oid, Tid, bytes]] = ()
    ) -> UpstreamVote:
        """Give the server what is staged and have it vote; conflicts are for the caller to have resolved."""
        changed, conflicts = self._transactions.vote_once(transaction, resolves=resolves, again=again)
        return UpstreamVote(changed, [UpstreamConflict(*conflict) for conflict in conflicts])

    def keeps_markers(self) -> bool:
        """Tell whether the server knows transactions by their commit markers."""
        return self._has(COMMIT_OUTCOME)

    def outcome(self, marker: bytes, since: Tid) -> Tid | None:
        """Return the tid of the transaction with that marker after `since`, None if there is none."""
        tid: Tid | None = self._supervisor.channel().call("transaction_outcome", (marker, since), replies.outcome)
        return tid

    def address(self) -> str:
        """Return the address of the server that is connected, or was last; of all, if none was yet."""
        return self._supervisor.address()

    def away_s(self) -> float:
        """Return for how many seconds there has been no connection, 0.0 if there is one."""
        return self._supervisor.away_s()


def open_upstream(
    servers: Sequence[Any], options: Mapping[str, Any], tls: Mapping[str, Any] | None = None
) -> "ClientStorage":
    """Connect to a storage of the first of `servers` that serves it.

    `options` are ClientStorage's, and those of ZEO's client that have no effect here, which the log then says; `tls` is
    what an <ssl> section says, with `server_hostname`. ConfigurationError for files of TLS that cannot be used, and
    what ClientStorage raises.
    """
    from zeo_client.storage import ClientStorage

    effective = effective_options("<zeoclient>", options)
    if tls is not None:
        files = dict(tls)
        effective["ssl_server_hostname"] = files.pop("server_hostname")
        effective["ssl"] = client_context(**files)
    return ClientStorage(list(servers), **effective)
