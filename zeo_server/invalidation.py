"""Who is told what changed: the recent transactions for those who come back, and the audience for those who are here.

`getInvalidations(tid)` asks for everything that changed after the client's last transaction. Its answer has one tid
for all oids, so it must be complete or None (lesson B11). That the log begins before the client's tid is not enough:
after a restored backup the client may know transactions that no longer exist, with tids among ours. So there is an
answer only for a tid that stands in the log itself (lesson B12).
"""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Generic, Protocol, TypeVar

from zeo_core.ids import Oid, Tid, tid_from_time, tid_to_time
from zeo_core.storage import ServedStorage
from zeo_core.transaction import Invalidation

__all__ = ["Audience", "InvalidationLog", "Listener", "changes_since", "recent_transactions"]


_WALK_MAX = 2000
"""How many transactions are looked at for one step back in time when a log is seeded: a few milliseconds."""


def recent_transactions(storage: ServedStorage, size: int) -> list[Invalidation]:
    """Return what the last transactions of a storage changed, `size` of them if that many are quickly found.

    The last one is always there, for clients that have missed nothing. A storage can be walked forwards only, so the
    start is guessed: a second before the end, ten seconds, ...
    """
    last = storage.last_tid()
    first = last
    for window_s in (10.0**power for power in range(8)):
        start = tid_from_time(max(tid_to_time(last) - window_s, 0))
        found = [transaction.tid for transaction in islice(storage.transactions(start), _WALK_MAX + 1)]
        if len(found) > _WALK_MAX:
            break
        if found:
            first = found[-size] if len(found) >= size > 0 else found[0]
        if len(found) >= size:
            break
    changes = [
        Invalidation(transaction.tid, tuple(record.oid for record in transaction.records))
        for transaction in storage.transactions(first)
    ]
    return changes or [Invalidation(last, ())]


def changes_since(storage: ServedStorage, tid: Tid, oldest_s: float) -> tuple[Tid, Sequence[Oid]] | None:
    """Return the last tid and each oid that changed after `tid`, by walking the storage's tail; for a thread.

    None if `tid` is no transaction of this storage (lesson B12), or from before `oldest_s`, a time.time().
    """
    if tid_to_time(tid) < oldest_s:
        return None
    walk = iter(storage.transactions(tid))
    first = next(walk, None)
    if first is None or first.tid != tid:
        return None
    last, changed = tid, set[Oid]()
    for transaction in walk:
        last = transaction.tid
        changed.update(record.oid for record in transaction.records)
    return last, list(changed)


class InvalidationLog:
    """The last `size` transactions of a storage, oldest first. It knows what it was seeded with and what was added.

    `age_s` says how far back the storage itself is asked for what is not here; not at all if it is None.
    """

    def __init__(self, size: int, seed: Iterable[Invalidation], age_s: float | None = None) -> None:
        self.age_s = age_s
        # at least one: the last transaction itself, for clients that have missed nothing
        self._log: deque[Invalidation] = deque(seed, maxlen=max(size, 1))

    def __len__(self) -> int:
        """Return how many transactions are known."""
        return len(self._log)

    def resize(self, size: int) -> None:
        """Keep the last `size` transactions from now on."""
        self._log = deque(self._log, maxlen=max(size, 1))

    def add(self, tid: Tid, oids: Sequence[Oid]) -> bool:
        """Take note of a transaction; tell whether it is later than all before it, as it is to be."""
        is_new = not self._log or tid > self._log[-1].tid
        if is_new:
            self._log.append(Invalidation(tid, tuple(oids)))
        return is_new

    def restart(self, tid: Tid) -> None:
        """Know nothing but that `tid` is the last transaction."""
        self._log.clear()
        self._log.append(Invalidation(tid, ()))

    def since(self, tid: Tid) -> tuple[Tid, list[Oid]] | None:
        """Return the last tid and each oid that changed after `tid`; None if `tid` is not in the log."""
        changed: set[Oid] = set()
        for entry in reversed(self._log):
            if entry.tid == tid:
                return self._log[-1].tid, list(changed)
            if entry.tid < tid:
                break
            changed.update(entry.oids)
        return None


class Listener(Protocol):
    """Who can be told something: one connection.

    `awaiting` counts its transactions that wait for their turn, are voted or with the writer: there will be an answer
    for it soon, to its vote or its finish.
    """

    awaiting: int

    def send_later(self, frame: bytes) -> None:
        """Do as `send` does, but with whatever is sent next, or a moment later if nothing is."""

    def send(self, frame: bytes) -> None:
        """Queue bytes behind everything queued before. Never blocks, never raises, closes nothing in this call."""


Member = TypeVar("Member", bound=Listener)


class Audience(Generic[Member]):
    """The registered clients of one storage."""

    def __init__(self) -> None:
        self._members: tuple[Member, ...] = ()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._members)

    def __contains__(self, member: object) -> bool:
        """Tell whether `member` is registered."""
        return member in self._members

    def members(self) -> tuple[Member, ...]:
        """Return those who are registered now."""
        return self._members

    def join(self, member: Member) -> None:
        """Tell `member` everything from now on."""
        self._members = (*self._members, member)

    def leave(self, member: Member) -> None:
        """Tell `member` no more; harmless if it is not there."""
        self._members = tuple(other for other in self._members if other is not member)

    def tell(self, frame: bytes, but: object = None) -> None:
        """Send `frame` to all members except `but`.

        The tuple that is walked never changes, whoever joins or leaves meanwhile (lesson B3: a list that shrank under
        the walk skipped a live client).
        """
        for member in self._members:
            if member is but:
                continue
            if member.awaiting:
                # It would be woken twice within a moment, and the second time is the one that it waits for.
                member.send_later(frame)
            else:
                member.send(frame)
