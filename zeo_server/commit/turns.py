"""Whose turn it is on an object that many want to change.

When a transaction commits, all who wait for one of its objects have lost: what they read is no longer current. If they
were told at once, all of them would load the new state and vote again, one would win, and the others would have done it
in vain: with eight clients, eight times the work for each commit. So they are told one by one. The first in line is
refused, and the lock is kept for it: its client is expected to come back soon with the same change made to the new
state, and commits without meeting anybody. Then the next one is refused. Each client has its turn, and a turn costs one
retry.

A retry takes a client several times as long as a commit. A client that commits again and again, each time as soon as it
has the answer, may therefore go on for SLICE_S: its state is the current one, and those in line can do nothing better
than wait.

A turn ends when the client votes on the object again, goes away, or does not come back in time. Nobody waits for long
for a client that need not come back: PATIENCE_S after its first refusal, twice as long as it needed the last time after
a commit. A client that has lost several times in a row is waited for longer, up to PATIENCE_MAX_S, if its last retry
has shown that it will come within that time. So a distant client has its turn now and then, however fast those are that
are near.
"""

import asyncio
import logging
from collections.abc import Callable, Container, Sequence
from time import perf_counter
from typing import NamedTuple

from zeo_core.errors import ConflictError, ReadConflictError
from zeo_core.ids import Oid
from zeo_server.commit.conflicts import Checked
from zeo_server.commit.locks import ObjectLocks
from zeo_server.commit.phases import Phase
from zeo_server.commit.transaction import Member, ServerTransaction
from zeo_server.histogram import Histogram

__all__ = ["AT_ONCE_S", "FORGET_S", "PATIENCE_MAX_S", "PATIENCE_S", "SLICE_S", "Turns"]

PATIENCE_S = 0.01
"""How long an object is kept for who was refused for the first time: two or three retries on one machine."""

PATIENCE_MAX_S = 1.0
"""The longest, for who has lost again and again."""

SLICE_S = 0.01
"""How long one client may go on while others wait: the more commits a turn has, the less its beginning costs."""

AT_ONCE_S = 0.002
"""A client that has needed longer between its commits is not waited for between them."""

FORGET_S = 10.0
"""What was lost so long ago does not count any more."""

_log = logging.getLogger("ZEO.StorageServer")


class _Rival:
    """What is known of a client that has met others."""

    __slots__ = ("again_s", "away", "began_s", "committed_s", "losses", "refused_s", "return_s")

    def __init__(self) -> None:
        self.losses = 0  # in a row
        self.refused_s = 0.0  # when, the last time
        self.away = False  # it has not come back since
        self.return_s = 0.0  # how long that took it the last time
        self.committed_s = 0.0  # when it committed while others waited, until it comes back
        self.again_s = AT_ONCE_S * 2  # how long that took it the last time
        self.began_s = 0.0  # when its turn began

    def lose(self, now_s: float) -> float:
        """Take note of a refusal; return how long to wait for the next attempt."""
        if now_s - self.refused_s > FORGET_S:
            self.losses, self.return_s = 0, 0.0
        self.losses, self.refused_s, self.away = self.losses + 1, now_s, True
        patience_s: float = min(PATIENCE_S * 2 ** min(self.losses - 1, 20), PATIENCE_MAX_S)
        if self.return_s > patience_s:
            return 0.0  # it would be in vain
        return min(patience_s, max(PATIENCE_S, 4 * self.return_s)) if self.return_s else patience_s

    def commit(self, now_s: float) -> float:
        """Take note of a commit while others wait; return how long to wait for the next one."""
        self.committed_s = now_s
        return 2 * self.again_s if self.again_s <= AT_ONCE_S and now_s - self.began_s < SLICE_S else 0.0

    def come_back(self, now_s: float) -> None:
        """Take note of a vote."""
        if self.away:
            self.away, self.return_s = False, now_s - self.refused_s
        if self.committed_s:
            self.committed_s, self.again_s = 0.0, now_s - self.committed_s


class _Kept(NamedTuple):
    """An object that is kept for a client: by the lock of its transaction that has ended."""

    oid: Oid
    holder: ServerTransaction
    timer: asyncio.TimerHandle


class Turns:
    """The turns on the objects of one storage.

    `present` has the clients that are registered. `check` checks a transaction as it is now. `serve` is told of
    transactions that hold their locks now, or whose refusal is due: they are to be checked again.
    """

    def __init__(
        self,
        locks: ObjectLocks[ServerTransaction],
        loop: asyncio.AbstractEventLoop,
        present: Container[Member],
        check: Callable[[ServerTransaction], Checked],
        serve: Callable[[Sequence[ServerTransaction]], None],
        waits: Histogram,
    ) -> None:
        self._locks = locks
        self._loop = loop
        self._present = present
        self._check = check
        self._serve = serve
        self._waits = waits
        self._kept: dict[Oid, _Kept] = {}
        self._rivals: dict[Member, _Rival] = {}
        self._refused: dict[ServerTransaction, Oid] = {}  # and not released yet

    def ask(self, transaction: ServerTransaction, oids: Sequence[Oid], shared: Sequence[Oid]) -> bool:
        """Ask for a transaction's locks; tell whether it holds them now, else `serve` will hear of it."""
        member = transaction.member
        rival = self._rivals.get(member) if self._rivals else None
        if rival is None:
            return self._locks.request(transaction, oids, shared) or self._wait(transaction)
        mine = self._end_turns(member, oids)
        if not any(holder.phase is Phase.COMMITTED for holder in mine):
            rival.began_s = perf_counter()
        if len(mine) == 1 and self._locks.inherit(transaction, mine[0], oids, shared):
            rival.losses = 0
            return True
        self._give_back(mine)
        return self._locks.request(transaction, oids, shared) or self._wait(transaction)

    def refuse_later(self, transaction: ServerTransaction, error: Exception) -> bool:
        """Have a transaction wait for its turn that has lost already, unless its turn is now.

        It waits for nothing but the object that it has lost, and keeps nobody from anything else.
        """
        oid = _lost_object(error)
        if oid is None or self._locks.holds(transaction):
            return False
        self._give_back(self._end_turns(transaction.member, (oid,)))
        if self._locks.request(transaction, (oid,)):
            return False
        transaction.doom(error)
        return not self._wait(transaction)

    def refused(self, transaction: ServerTransaction, error: Exception) -> None:
        """Take note that a transaction is refused; its release is to follow."""
        oid = _lost_object(error)
        if oid is not None:
            self._refused[transaction] = oid

    def release(self, transaction: ServerTransaction) -> list[ServerTransaction]:
        """Free the locks of a transaction that ended, but for what is kept; return who holds all its locks by that."""
        self.waited(transaction)
        oid = self._refused.pop(transaction, None)
        if transaction.phase is Phase.COMMITTED:
            freed = self._doom_losers(transaction)
            return freed + self._release(transaction, *self._after_commit(transaction))
        if oid is None or not self._locks.covers(transaction, (oid,), ()):
            return self._locks.release(transaction)
        return self._release(transaction, oid, self._rival(transaction).lose(perf_counter()))

    def _release(self, transaction: ServerTransaction, oid: Oid | None, patience_s: float) -> list[ServerTransaction]:
        """Free all but `oid`, which is kept for as long as `patience_s` says."""
        if oid is None or not patience_s:
            return self._locks.release(transaction)
        self._kept[oid] = _Kept(oid, transaction, self._loop.call_later(patience_s, self._expire, oid))
        return self._locks.release(transaction, keep=oid)

    def _after_commit(self, transaction: ServerTransaction) -> tuple[Oid | None, float]:
        """Return which object is kept for a client that goes on, and for how long."""
        hot = self._locks.waited_for(transaction)
        if len(hot) != 1 or transaction.member not in self._present:
            return None, 0.0
        ((oid, following),) = hot.items()
        fault = self._check(following).fault
        if fault is None or _lost_object(fault) is None:
            return None, 0.0  # it can go on at once
        return oid, self._rival(transaction).commit(perf_counter())

    def _rival(self, transaction: ServerTransaction) -> _Rival:
        return self._rivals.setdefault(transaction.member, _Rival())

    def _doom_losers(self, transaction: ServerTransaction) -> list[ServerTransaction]:
        """Let those who have lost an object by this commit go on to wait for that one only; return who is served so.

        They stand in nobody's way at the other objects that they wanted.
        """
        freed: list[ServerTransaction] = []
        for waiter in self._locks.behind(transaction):
            fault = self._check(waiter).fault
            oid = None if fault is None else _lost_object(fault)
            if fault is not None and oid is not None:
                waiter.doom(fault)
                freed += self._locks.release(waiter, keep=oid)
        return freed

    def leave(self, member: Member) -> None:
        """Keep nothing for a client any more, and forget it."""
        for kept in [kept for kept in self._kept.values() if kept.holder.member == member]:
            self._give_back([self._end(kept)])
        self._rivals.pop(member, None)

    def waited(self, transaction: ServerTransaction) -> None:
        """Take note that a transaction waits no more; harmless if it did not."""
        if transaction.waits_s:
            self._waits.observe(perf_counter() - transaction.waits_s)
            transaction.waits_s = 0.0
            transaction.member.awaiting -= 1

    def close(self) -> None:
        """Keep nothing any more; nobody is told."""
        for kept in list(self._kept.values()):
            self._end(kept)

    def _wait(self, transaction: ServerTransaction) -> bool:
        """Take note that it waits, and return False."""
        transaction.waits_s = perf_counter()
        transaction.member.awaiting += 1
        _log.debug("%r waits for its locks, as %d do", transaction, self._locks.waiting())
        return False

    def _end_turns(self, member: Member, oids: Sequence[Oid]) -> list[ServerTransaction]:
        """End the turns that a client has on objects; return the transactions that kept them."""
        rival = self._rivals.get(member)
        if rival is None:
            return []
        rival.come_back(perf_counter())
        found = [self._kept[oid] for oid in oids if oid in self._kept] if self._kept else []
        return [self._end(kept) for kept in found if kept.holder.member == member]

    def _end(self, kept: _Kept) -> ServerTransaction:
        kept.timer.cancel()
        del self._kept[kept.oid]
        return kept.holder

    def _expire(self, oid: Oid) -> None:
        self._give_back([self._end(self._kept[oid])])

    def _give_back(self, holders: Sequence[ServerTransaction]) -> None:
        for holder in holders:
            self._serve(self._locks.release(holder))


def _lost_object(error: Exception) -> Oid | None:
    """Return the object that somebody else has changed meanwhile, None if it is another error."""
    return error.oid if isinstance(error, ConflictError) and not isinstance(error, ReadConflictError) else None
