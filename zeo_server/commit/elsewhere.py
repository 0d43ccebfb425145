"""Transactions that another server commits, whose storage is served on: its vote is asked for, and its finish.

For the coordinator it takes the place of the checks of a storage's own, and of its writer. The locks of this server are
taken all the same: so those who want one object wait here, not each with a thread and a call of its own there. Nothing
of this waits in the loop; votes, which may wait for others' locks on the other server, have other threads than
finishes, on which those others depend.

A finish is shown, told and answered in its turn among all that the other server commits. If the connection is lost
before its reply, the client of that server finds out on the next one what became of it, and tells the same by the
transaction's own marker to whoever asks here (`commit.outcomes`): so a finish without a reply is answered by cutting
off the client, which will ask.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import NamedTuple

from zeo_core.errors import ConflictError, StorageError, ZeodError
from zeo_core.ids import Oid, Tid
from zeo_core.transaction import ObjectWrite, PreparedTransaction, whole
from zeo_core.upstream import UpstreamTransaction, UpstreamVote
from zeo_server.commit.group import Outcome
from zeo_server.commit.phases import ENDED
from zeo_server.commit.transaction import Conflict, ServerTransaction
from zeo_server.storages.relayed import RelayedGroup, RelayedStorage

__all__ = ["FINISH_THREADS", "OPEN_MAX", "VOTE_THREADS", "Elsewhere", "Voted", "Written"]

VOTE_THREADS = 32
"""Votes that may wait at a time for locks that others hold on the other server."""

FINISH_THREADS = 8

OPEN_MAX = 80
"""Transactions of all clients here that the other server may have at a time: zeod takes 100 on one connection."""

_log = logging.getLogger("ZEO.StorageServer")

Written = Callable[[Outcome[ServerTransaction]], None]
"""Hears in the loop what became of a finish."""


class Voted(NamedTuple):
    """What a vote came to: the oids that the other server changed, and the conflicts that the client is to resolve."""

    changed: Sequence[Oid]
    conflicts: Sequence[Mapping[str, object]] = ()


class _Part:
    """A transaction's part on the other server, from its first vote on."""

    def __init__(self, transaction: ServerTransaction) -> None:
        self.key = UpstreamTransaction(transaction.metadata)
        self.voting = False
        self.connection: object = None  # on which it was voted
        self.told = False  # its finish was answered
        self.unresolved: tuple[Oid, ...] = ()


class _Staged(NamedTuple):
    """What a thread gives to the other server before the vote."""

    prepared: PreparedTransaction
    restored: frozenset[Oid]
    checks: Mapping[Oid, Tid]
    undos: Sequence[Tid]


class Elsewhere:
    """The transactions of one storage of another server. All methods are for the loop, but close."""

    def __init__(
        self,
        storage: RelayedStorage,
        loop: asyncio.AbstractEventLoop,
        voted: Callable[[ServerTransaction, "Voted | Exception"], None],
        written: Written,
        name: str,
    ) -> None:
        """`voted` and `written` are called in the loop with what votes and finishes come to."""
        self._storage = storage
        self._loop = loop
        self._voted = voted
        self._written = written
        self._votes: Executor = ThreadPoolExecutor(VOTE_THREADS, f"zeod votes {name}")
        self._finishes = ThreadPoolExecutor(FINISH_THREADS, f"zeod finishes {name}")
        self._parts: dict[ServerTransaction, _Part] = {}
        self._open = 0  # transactions that the other server has, or soon has
        self._waiting: deque[Callable[[], None]] = deque()  # the first votes of those that it is not yet to have

    @classmethod
    def of(
        cls,
        storage: object,
        loop: asyncio.AbstractEventLoop,
        voted: Callable[[ServerTransaction, "Voted | Exception"], None],
        written: Written,
        name: str,
    ) -> "Elsewhere | None":
        """Return one for a storage of another server, None for others."""
        return cls(storage, loop, voted, written, name) if isinstance(storage, RelayedStorage) else None

    def vote(self, transaction: ServerTransaction) -> None:
        """Have the other server vote; again, if there were conflicts that the client has resolved."""
        part = self._parts.get(transaction)
        if part is None:
            part = self._parts[transaction] = _Part(transaction)
            staged = _Staged(
                transaction.prepared(),
                frozenset(transaction.restored),
                dict(transaction.checks),
                tuple(transaction.undos),
            )
            part.voting = True
            first = partial(self._first_vote, part, staged, transaction.resolves)
            self._waiting.append(partial(self._run_vote, transaction, part, first))
            self._let_in()
        else:
            again = [transaction.writes[oid] for oid in part.unresolved]
            part.voting = True
            self._run_vote(transaction, part, partial(self._next_vote, part, again, transaction.resolves))

    def submit(self, transaction: ServerTransaction, prepared: PreparedTransaction, size_bytes: int) -> None:
        """Have a voted transaction finished; its outcome will be told."""
        part = self._parts.pop(transaction)
        oids = tuple(dict.fromkeys([*transaction.writes, *transaction.resolved]))
        self._finishes.submit(self._finish, transaction, part, oids)

    def anticipate(self, prepared: PreparedTransaction, size_bytes: int) -> None:
        """Do nothing: the other server has it."""

    def end_of(self, transaction: ServerTransaction) -> None:
        """Abort what is left of a transaction on the other server."""
        part = self._parts.get(transaction)
        if part is not None and not part.voting:  # a vote that nobody waits for any more is aborted when it is done
            del self._parts[transaction]
            with suppress(RuntimeError):  # the server stops: the other one aborts what is left when the connection ends
                self._loop.run_in_executor(self._finishes, self._abort, part).add_done_callback(self._left)

    def close(self) -> None:
        """End the threads when the finishes are done; votes end with the connection. Blocks."""
        self._votes.shutdown(wait=False, cancel_futures=True)
        self._finishes.shutdown()

    def _let_in(self) -> None:
        while self._waiting and self._open < OPEN_MAX:
            self._open += 1
            self._waiting.popleft()()

    def _left(self, _done: object = None) -> None:
        self._open -= 1
        self._let_in()

    # -- votes --------------------------------------------------------------------------------------------------------

    def _run_vote(self, transaction: ServerTransaction, part: _Part, vote: Callable[[], UpstreamVote]) -> None:
        self._loop.run_in_executor(self._votes, vote).add_done_callback(partial(self._vote_done, transaction, part))

    def _first_vote(self, part: _Part, staged: _Staged, resolves: bool) -> UpstreamVote:
        storage, key, prepared = self._storage, part.key, staged.prepared
        storage.begin(key, prepared.tid, prepared.status)
        for write in prepared.writes:
            storage.stage(write, key, restored=write.oid in staged.restored)
        for oid, serial in staged.checks.items():
            storage.stage_check(oid, serial, key)
        for tid in staged.undos:
            storage.stage_undo(tid, key)
        return storage.link.vote(key, resolves=resolves)

    def _next_vote(self, part: _Part, again: Sequence[ObjectWrite], resolves: bool) -> UpstreamVote:
        resolved: list[tuple[Oid, Tid, bytes]] = []
        for oid, serial, spooled, *_ in again:
            data = whole(spooled)
            if data is None:
                raise StorageError("a conflict was resolved to no data")
            resolved.append((oid, serial, data))
        return self._storage.link.vote(part.key, resolves=resolves, again=resolved)

    def _vote_done(self, transaction: ServerTransaction, part: _Part, future: "asyncio.Future[UpstreamVote]") -> None:
        part.voting = False
        if future.cancelled():
            return  # the server stops
        error = future.exception()
        if transaction.phase in ENDED:
            self.end_of(transaction)  # its client went away meanwhile
        elif error is not None:
            known = isinstance(error, ZeodError | ValueError | OSError)
            if not known:
                _log.error("%r: the vote of another server failed", transaction, exc_info=error)
            self._voted(transaction, error if isinstance(error, ZeodError) else StorageError(str(error)))
        else:
            vote: UpstreamVote = future.result()
            part.connection = self._storage.link.connection()
            part.unresolved = tuple(conflict.oid for conflict in vote.conflicts)
            self._voted(transaction, self._outcome(transaction, vote))

    def _outcome(self, transaction: ServerTransaction, vote: UpstreamVote) -> Voted | Exception:
        conflicts: list[Conflict] = []
        for oid, committed, read, _data_there in vote.conflicts:
            write = transaction.writes.get(oid)
            # Data that wait in a file are not read for this: the loop would wait for the disk.
            if write is None or not transaction.resolves or not isinstance(write.data, bytes):
                return ConflictError(oid=oid, serials=(committed, read))
            conflicts.append(Conflict(oid, committed, read, write.data))
        told = [conflict.as_map(each.committed_data) for conflict, each in zip(conflicts, vote.conflicts, strict=True)]
        return Voted(tuple(vote.changed), told)

    # -- finishes; in threads -----------------------------------------------------------------------------------------

    def _finish(self, transaction: ServerTransaction, part: _Part, oids: Sequence[Oid]) -> None:
        link, start_s = self._storage.link, perf_counter()

        def finished(tid: Tid) -> None:
            # On another connection it is one of the transactions that were missed, or are heard of.
            if link.connection() is part.connection:
                part.told = True
                outcome = Outcome([transaction], RelayedGroup((tid,), oids), None, perf_counter() - start_s)
                self._storage.in_turn(partial(self._told, outcome))

        error: Exception | None = None
        try:
            self._storage.finish(part.key, finished)
        except Exception as fault:  # noqa: BLE001 - whatever it is, the client has to ask
            error = fault
            self._abort(part)
        if not part.told:
            self._loop.call_soon_threadsafe(self._not_told, transaction, error)
        elif error is not None:
            _log.error("%r: committed, and then: %s", transaction, error, exc_info=error)

    def _told(self, outcome: Outcome[ServerTransaction]) -> None:
        self._left()
        self._written(outcome)

    def _not_told(self, transaction: ServerTransaction, error: Exception | None) -> None:
        """Leave the client without an answer: it will ask what became of its transaction."""
        reason = f"{self._storage.link.address()} was lost during a finish: {error or 'it was committed'}"
        transaction.member.disconnect(reason)
        self._left()
        self._written(Outcome([transaction], None, error or StorageError(reason)))

    def _abort(self, part: _Part) -> None:
        try:
            self._storage.abort(part.key)
        except ZeodError as error:
            _log.info("a transaction is left to the other server to abort: %s", error)
