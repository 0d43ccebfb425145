"""What one client may take of the server, so that none takes it from the others, each limit with the key of <zeo>.

Sizes are in bytes, times in seconds. Limits that only a programmer would want to change have no key.
"""

from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["DEFAULT_LIMITS", "Limits"]

_KB, _MB, _GB = 1 << 10, 1 << 20, 1 << 30


def _limit(default: Any, key: str | None = None, least: float = 1) -> Any:
    """Describe a limit: its default, its key, and the least that it can be; 0 there means that there is none."""
    return field(default=default, metadata={"key": key, "least": least})


@dataclass(frozen=True, slots=True)
class Limits:
    """All limits of a server; ValueError for one that would let nobody in."""

    # -- connections

    clients_max: int = _limit(10_000, "max-clients", 0)
    """Connections, registered or not: each takes a file descriptor."""

    clients_per_address_max: int = _limit(0, "max-clients-per-address", 0)
    """Connections from one TCP address."""

    registration_timeout_s: float = _limit(60.0, "registration-timeout", 0)
    """How long a connection may take to register: a stranger holds a place for no longer."""

    idle_timeout_s: float = _limit(0.0, "idle-timeout", 0)
    """How long nothing may be said on a connection. Clients, ours and ZEO's, show that they live once a minute."""

    # -- messages

    registration_max_bytes: int = _limit(64 * _KB, "max-registration-size")
    """A message before a client has registered: a stranger cannot make the server hold more than this."""

    message_max_bytes: int = _limit(256 * _MB, "max-message-size")
    """A message of a registered client: the largest object record."""

    calls_max: int = _limit(1000, "max-calls")
    """Calls of one client, other than commits, that wait for a thread or the disk before no more are taken from it."""

    turn_calls: int = _limit(100)
    """Calls of one client that are handled before others get their turn: about 1 ms of loads."""

    high_water_bytes: int = _limit(1 * _MB)
    """Unsent bytes from which on no more calls are taken from a client until it has read some."""

    backlog_max_bytes: int = _limit(64 * _MB, "max-backlog")
    """Unsent bytes, of invalidations mostly, at which a client is cut off: when it returns it asks what it missed."""

    # -- what a client may have open

    transactions_max: int = _limit(100, "max-transactions")
    """Transactions that one connection may have open; ZEO's clients have one at a time."""

    transaction_max_bytes: int = _limit(512 * _MB, "max-transaction-size")
    """What one transaction may stage, without its blobs."""

    transaction_spool_bytes: int = _limit(8 * _MB, "transaction-spool-size", 0)
    """What one transaction keeps in memory of its data; what is staged beyond that waits in a file."""

    staged_memory_max_bytes: int = _limit(256 * _MB, "max-staged-memory", 0)
    """What all transactions on a storage keep in memory of their data; what is staged beyond that waits in files."""

    blob_max_bytes: int = _limit(64 * _GB, "max-blob-size")
    """The largest blob that a client may send, so that one cannot fill a disk by itself."""

    transaction_blobs_max_bytes: int = _limit(256 * _GB, "max-transaction-blobs-size")
    """The blobs that a client may send for one transaction."""

    blob_queue_max_bytes: int = _limit(4 * _MB)
    """Bytes of one client's blob that wait for the disk before it is not read from: some milliseconds of its work."""

    iterators_max: int = _limit(100, "max-iterators")
    """Walks that one client may have open, over transactions and over records together: each has a buffer."""

    history_max: int = _limit(1000)
    """Revisions that one history call walks through: each is a read, and the loop waits for it."""

    # -- commits

    group_max_transactions: int = _limit(1000)
    """Bounds the work of the loop's callback that publishes a group, so that loads do not wait long behind it."""

    group_max_bytes: int = _limit(32 * _MB)
    """Bounds how long a small transaction waits for the large ones written with it; a larger one goes alone."""

    drain_grace_s: float = _limit(10.0, "stop-timeout", 0)
    """How long a stopping server waits for clients that voted to finish. Supervisors commonly allow 30 s and more."""

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) < each.metadata["least"]:
                name = each.metadata["key"] or each.name
                raise ValueError(f"{name} {getattr(self, each.name):g} is less than {each.metadata['least']}")

    @classmethod
    def keys(cls) -> dict[str, str]:
        """Return the keys of <zeo> for these limits, with the names that they have here."""
        return {each.metadata["key"]: each.name for each in fields(cls) if each.metadata["key"] is not None}

    def changed(self) -> list[str]:
        """Return the limits that are not the defaults, as `key value`."""
        return [f"{key} {getattr(self, name):.15g}" for key, name in self.keys().items() if self._differs(name)]

    def _differs(self, name: str) -> bool:
        return bool(getattr(self, name) != getattr(DEFAULT_LIMITS, name))


DEFAULT_LIMITS = Limits()
"""What holds unless a configuration says otherwise."""
