"""What stands against a commit: a check of everything that the vote promises.

Serials only grow: a conflict found before the locks are held is one for good. Who resolves one holds the locks, so that
the base of the resolution is what is committed (lesson B22).
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from zeo_core.errors import POSKeyError, ReadConflictError, StorageError, ZeodError
from zeo_core.ids import ZERO_TID, Oid, Tid, oid_repr, pack_id, unpack_id
from zeo_core.storage import ServedStorage
from zeo_server.commit.resolver import Resolver
from zeo_server.commit.transaction import Conflict, ServerTransaction
from zeo_server.storages.relayed import RelayedStorage

__all__ = ["OIDS_AHEAD_MAX", "Checked", "Checker"]

OIDS_AHEAD_MAX = 2**32
"""How far above all known oids a new object's may be. Oids are given out above the highest that is stored: an object
with the very last one would leave none for anybody. This is room for oids given out before a restart and for programs
that choose their own, and so many commits use up nothing to speak of."""

_LAST_OID: Oid = b"\xff" * 8

_log = logging.getLogger("ZEO.StorageServer")


class Checked(NamedTuple):
    """What a check came to: why a vote is refused, or the conflicts that may be resolved."""

    fault: Exception | None
    conflicts: Sequence[Conflict] = ()


class Checker:
    """Checks transactions against one storage as it is now."""

    def __init__(self, storage: ServedStorage, resolver: Resolver, name: str) -> None:
        self._storage = storage
        self._resolver = resolver
        self._name = name
        self._elsewhere = isinstance(storage, RelayedStorage)  # another server checks
        # What can fail is to fail at the vote (lesson B28); a storage without a disk has nothing to check.
        self._check_room: Callable[[int], None] | None = getattr(storage, "check_room", None)
        self._highest_oid: Callable[[], Oid] | None = getattr(storage, "highest_oid", None)

    def check(self, transaction: ServerTransaction, byte_count: int) -> Checked:
        """Check conflicts, and that there is room for `byte_count` bytes."""
        if transaction.error is not None or self._elsewhere:
            return Checked(transaction.error)
        current_tid = self._storage.current_tid
        try:
            transaction.check_restorable(self._storage.last_tid(), time.time())
            conflicts = _conflicts_of(transaction, current_tid, self._last_usable_oid())
        except (ZeodError, OSError) as error:  # mostly a client's mistake; the session's log has it
            return Checked(error)
        try:
            for conflict in conflicts:
                if not self._may_be_resolved(transaction, conflict):
                    return Checked(conflict.error())
            stale = _stale_read_of(transaction, current_tid)
            if stale is None and self._check_room is not None:
                self._check_room(byte_count)
        except (ZeodError, OSError) as error:
            _log.error("%s: a vote is refused: %s", self._name, error)
            return Checked(error)
        return Checked(stale, conflicts)

    def _last_usable_oid(self) -> Oid:
        if self._highest_oid is None:
            return _LAST_OID
        return pack_id(min(unpack_id(self._highest_oid()) + OIDS_AHEAD_MAX, unpack_id(_LAST_OID)))

    def _may_be_resolved(self, transaction: ServerTransaction, conflict: Conflict) -> bool:
        if conflict.data is None or conflict.read == ZERO_TID or conflict.oid in transaction.resolved:
            return False  # a client does not even have the data of what is resolved or undone here
        # what is spooled is read when the locks are held, not in the loop
        return transaction.resolves or not isinstance(conflict.data, bytes) or self._resolver.can(conflict)


def _conflicts_of(
    transaction: ServerTransaction, current_tid: Callable[[Oid], Tid | None], last_oid: Oid
) -> list[Conflict]:
    """Return the objects that were changed since.

    POSKeyError for the deletion of what is not there, StorageError for a new object beyond `last_oid`.
    """
    found = []
    restored = transaction.restored
    for oid, serial, data, _, _ in transaction.writes.values():
        committed = current_tid(oid) or ZERO_TID
        if data is None and committed == ZERO_TID and oid not in restored:
            raise POSKeyError(oid)
        if oid > last_oid and committed == ZERO_TID and oid not in restored:
            raise StorageError(f"{oid_repr(oid)} is no oid that was given out: it is far above all that were")
        if committed != serial and oid not in restored:
            found.append(Conflict(oid, committed, serial, data))
    return found


def _stale_read_of(
    transaction: ServerTransaction, current_tid: Callable[[Oid], Tid | None]
) -> ReadConflictError | None:
    """Return the conflict of the first object that was to be current and is not."""
    for oid, serial in transaction.checks.items():
        committed = current_tid(oid) or ZERO_TID
        if committed != serial and oid not in transaction.writes:
            return ReadConflictError(oid=oid, serials=(committed, serial))
    return None
