"""The commits of one storage: locks, conflict checks, the writer's thread, invalidations and answers, put together.

Everything here runs in the server's loop, but for the writer's thread inside GroupWriter. Answers are callbacks, not
futures: a commit makes no task and no future.

What a committed group does, in one callback of the loop (invariants 2 and 3): the storage makes it visible; then for
each transaction in the order of the tids the invalidation is queued to every other client and the answer to its own,
so that the tids on every connection grow; then the locks are released, and whoever is granted by that gets its answer.
No load can be answered in between.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from time import perf_counter

from zeo_core.errors import (
    ClientDisconnected,
    ConflictError,
    StorageClosedError,
    StorageTransactionError,
    UndoError,
    ZeodError,
)
from zeo_core.ids import Oid, Tid
from zeo_core.storage import LoadsCached, ServedStorage, Undoes, WrittenGroup
from zeo_core.transaction import Invalidation, whole
from zeo_core.wire.codec import Encoder
from zeo_core.zodb_records import tid_from_undo_id
from zeo_server.allow_list import AllowList
from zeo_server.commit.conflicts import Checked, Checker
from zeo_server.commit.elsewhere import Elsewhere, Voted
from zeo_server.commit.group import GroupWriter, Outcome
from zeo_server.commit.locks import ObjectLocks
from zeo_server.commit.phases import ENDED, IN_DOUBT, Phase, Step
from zeo_server.commit.preparation import Preparation
from zeo_server.commit.resolver import Resolver
from zeo_server.commit.spool import Spooling
from zeo_server.commit.timeout import Timeouts
from zeo_server.commit.transaction import Answer, BlobSource, Conflict, Member, ServerTransaction
from zeo_server.commit.turns import Turns
from zeo_server.commit.uploads import Uploads
from zeo_server.counters import Counters
from zeo_server.invalidation import Audience, InvalidationLog
from zeo_server.limits import DEFAULT_LIMITS, Limits
from zeo_server.packing import Packing
from zeo_server.undo_lines import UndoLines

__all__ = ["Coordinator"]

_log = logging.getLogger("ZEO.StorageServer")


class Coordinator:
    """Serves one storage to many clients."""

    def __init__(
        self,
        storage: ServedStorage,
        loop: asyncio.AbstractEventLoop,
        *,
        name: str = "1",
        timeout_s: float = 30.0,
        invalidation_log: InvalidationLog | None = None,
        limits: Limits = DEFAULT_LIMITS,
        resolution_classes: AllowList | None = None,
        clients_resolve: bool = False,
        spool_directory: str | None = None,
    ) -> None:
        self.storage = storage
        self.load = storage.load_cached if isinstance(storage, LoadsCached) else storage.load_before
        """Loads in the loop's thread; where it would wait for the disk it raises BlockingIOError."""
        self.name = name
        self.counters = Counters()
        self.audience: Audience[Member] = Audience()
        self.invalidations = invalidation_log or InvalidationLog(100, [Invalidation(storage.last_tid(), ())])
        self._loop = loop
        self._limits = limits
        self._encoder = Encoder()
        self._resolver = Resolver(
            storage.load_before, AllowList() if resolution_classes is None else resolution_classes
        )
        self._checker = Checker(storage, self._resolver, name)
        self._clients_resolve = clients_resolve
        self._open: dict[Member, dict[Hashable, ServerTransaction]] = {}
        self._in_doubt: set[ServerTransaction] = set()
        self._promised_bytes = 0  # of all transactions in doubt
        self.locks: ObjectLocks[ServerTransaction] = ObjectLocks()
        self._turns = Turns(self.locks, loop, self._open, self._check, self._serve, self.counters.lock_wait_seconds)
        self.timeouts: Timeouts[ServerTransaction] = Timeouts(loop, timeout_s, self._timed_out)
        self._elsewhere = Elsewhere.of(storage, loop, self._voted_elsewhere, self._written, name)
        self._writer = self._elsewhere or GroupWriter[ServerTransaction](storage, self._post, name, limits)
        self.uploads = Uploads(storage, loop, name, limits)
        self._spooling = Spooling(storage, self.uploads.run, limits, spool_directory)
        self._preparation = Preparation(storage, self.uploads)
        self._refusal: ZeodError | None = None  # of all votes
        self.packing = Packing(storage, loop, name, self._tell_info)
        self.undo_lines = UndoLines(storage)
        self._settled = asyncio.Event()
        self._settled.set()

    # -- clients ----------------------------------------------------------------------------------------------------

    def join(self, member: Member) -> None:
        """Register a client: from here on it is told of every commit."""
        self._open[member] = {}
        self.audience.join(member)

    def leave(self, member: Member) -> None:
        """Forget a client and free all it holds (lesson B17); what is with the writer is finished without it."""
        self.audience.leave(member)
        self.uploads.leave(member)
        transactions = self._open.pop(member, {})
        for transaction in list(transactions.values()):
            if transaction.phase is not Phase.FINISHING:
                self._abort(transaction)
        self._turns.leave(member)

    def is_in_doubt(self, member: Member) -> bool:
        """Tell whether a transaction of `member` is voted or with the writer."""
        return any(transaction.phase in IN_DOUBT for transaction in self._open.get(member, {}).values())

    def transactions(self) -> set[ServerTransaction]:
        """Return those that are open or with the writer."""
        return self._in_doubt.union(*(mine.values() for mine in self._open.values()))

    # -- calls of a client -------------------------------------------------------------------------------------------

    def begin(self, member: Member, txn_id: Hashable) -> ServerTransaction:
        """Open a transaction. A repeated begin of an open one changes nothing, as with ZEO."""
        mine = self._open[member]
        transaction = mine.get(txn_id)
        if transaction is None:
            if len(mine) >= self._limits.transactions_max:
                raise StorageTransactionError(f"{len(mine)} transactions are open on this connection")
            transaction = mine[txn_id] = ServerTransaction(member, txn_id, self._limits, self._spooling)
            self.counters.active_txns += 1
        return transaction

    def store(self, member: Member, txn_id: Hashable, oid: Oid, serial: Tid, data: bytes) -> None:
        """Stage an object; StorageTransactionError if there is no such transaction."""
        self._find(member, txn_id).store(oid, serial, data)
        self.counters.stores += 1

    def stage_blob(
        self, member: Member, txn_id: Hashable, oid: Oid, source: BlobSource, stage: Callable[[ServerTransaction], None]
    ) -> None:
        """Stage an object, which `stage` does, with its blob; StorageTransactionError if there is no transaction."""
        self.counters.stores += 1
        self.uploads.give(source, oid, partial(self._find, member, txn_id), stage)

    def delete(self, member: Member, txn_id: Hashable, oid: Oid, serial: Tid) -> None:
        """Stage an object's deletion; StorageTransactionError if there is no such transaction."""
        self.counters.stores += 1
        self._find(member, txn_id).delete(oid, serial)

    def restore(self, member: Member, txn_id: Hashable, oid: Oid, data: bytes | None, data_tid: Tid | None) -> None:
        """Stage an object of another storage's transaction; StorageTransactionError if there is no such transaction."""
        self.counters.stores += 1
        self._find(member, txn_id).restore(oid, data, data_tid)

    def check(self, member: Member, txn_id: Hashable, oid: Oid, serial: Tid) -> None:
        """Stage the demand that `serial` is current; StorageTransactionError if there is no such transaction."""
        self._find(member, txn_id).check(oid, serial)

    def refuse(self, member: Member, txn_id: Hashable, error: Exception) -> None:
        """Let the vote of a transaction, begun by this if need be, say that a part of it was refused."""
        self.begin(member, txn_id).refuse(error)

    def undo(self, member: Member, txn_id: Hashable, transaction_id: bytes) -> None:
        """Stage the undoing of a transaction; StorageTransactionError if there is none to stage it in."""
        transaction = self._find(member, txn_id)
        try:
            if not isinstance(self.storage, Undoes):
                raise UndoError(f"storage {self.name} undoes nothing")  # noqa: TRY301
            transaction.undo(tid_from_undo_id(transaction_id))
        except UndoError as error:
            transaction.doom(error)

    def vote(self, member: Member, txn_id: Hashable, answer: Answer, *, resolves: bool = False) -> None:
        """Lock and check; `answer` gets the list of oids that the server changed, or the error, now or later.

        From a client that resolves conflicts it may get a list of conflicts instead: it is to store what it made of
        them and to vote again.
        """
        transaction = self._find(member, txn_id)
        if isinstance(self._refusal, ClientDisconnected) and not self.is_in_doubt(member):
            # To retry loops a lost connection is what that is, also to those of ZEO's clients, which do not know ours.
            member.disconnect(self._refusal.reason)
            return
        transaction.move(Step.VOTE)
        transaction.vote_s = transaction.vote_s or perf_counter()
        transaction.answer = answer
        transaction.resolves = resolves or self._clients_resolve
        self.timeouts.stop(transaction)
        self._preparation.prepare(transaction, self._lock)

    def _lock(self, transaction: ServerTransaction) -> None:
        # Serials only grow: a conflict seen now is one for good, so the loser waits only for its turn to try again.
        checked = self._check(transaction)
        writes, reads = tuple(transaction.writes), tuple(transaction.checks.keys() - transaction.writes)
        if checked.fault is not None:
            if self._turns.refuse_later(transaction, checked.fault):
                return
        elif not self.locks.covers(transaction, writes, reads):
            self._release([transaction])  # what it holds from an earlier vote, when it had fewer objects
            if not self._turns.ask(transaction, writes, reads):
                return
        if not self._answer_vote(transaction, checked):
            self._release([transaction])

    def finish(self, member: Member, txn_id: Hashable, answer: Answer) -> None:
        """Have a voted transaction written; `answer` gets its tid when it is on disk and visible, or the error."""
        transaction = self._find(member, txn_id)
        transaction.move(Step.FINISH)
        transaction.finish_s = perf_counter()
        transaction.answer = answer
        self.timeouts.stop(transaction)
        self._writer.submit(transaction, transaction.prepared(), transaction.size_bytes)

    def abort(self, member: Member, txn_id: Hashable) -> None:
        """Forget a transaction; harmless for an unknown one."""
        transaction = self._open[member].get(txn_id)
        if transaction is not None:
            self._abort(transaction)

    def change_limits(self, limits: Limits) -> None:
        """Let other limits hold for what begins from now on."""
        self._limits = self.uploads.limits = self._spooling.limits = limits

    def info(self) -> dict[str, object]:
        """Return the figures of get_info that a commit changes."""
        return {"length": self.storage.object_count(), "size": self.storage.byte_size()}

    def transactions_of(self, member: Member) -> tuple[int, bool]:
        """Return how many transactions a client has open, and whether one of them holds locks."""
        mine = self._open.get(member, {}).values()
        return len(mine), any(map(self.locks.holds, mine))

    # -- the end ----------------------------------------------------------------------------------------------------

    def refuse_votes(self, reason: str) -> None:
        """Grant no vote from now on: the server goes away, and `reason` says why. Retry loops repeat such a vote."""
        self._refusal = ClientDisconnected("", reason)

    async def quiet(self, grace_s: float) -> bool:
        """Wait until no transaction is in doubt, but at most `grace_s`; tell whether that came to pass."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), grace_s)
        return not self._in_doubt

    async def close(self) -> None:
        """Write and answer what is with the writer and end its thread. The storage stays open."""
        self.refuse_votes("the server is stopping")
        self.packing.close()
        self.undo_lines.close()
        # The writer posts its outcomes before it ends, so they are dealt with before this returns.
        await self._loop.run_in_executor(None, self._writer.close)
        for transaction in self.transactions():
            transaction.drop()
        await self.uploads.close()
        self.timeouts.close()
        self._turns.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _find(self, member: Member, txn_id: Hashable) -> ServerTransaction:
        transaction = self._open[member].get(txn_id)
        if transaction is None:
            raise StorageTransactionError(f"no transaction {txn_id!r} is open on this connection")
        return transaction

    def _check(self, transaction: ServerTransaction) -> Checked:
        if self._refusal is not None and transaction.error is None:
            return Checked(self._refusal)
        return self._checker.check(transaction, self._promised_bytes + transaction.size_bytes)

    def _answer_vote(self, transaction: ServerTransaction, checked: Checked) -> bool:
        """Answer the vote of a transaction that holds its locks, now or when its conflicts are resolved here.

        False if it is refused.
        """
        if checked.fault is not None:
            self._refuse(transaction, checked.fault)
            return False
        if self._elsewhere is not None:
            self._elsewhere.vote(transaction)
            return True
        if not all(isinstance(conflict.data, bytes | None) for conflict in checked.conflicts):
            return self._read_back(transaction, checked.conflicts)
        here = [conflict for conflict in checked.conflicts if self._resolver.can(conflict)]
        try:
            resolved = [self._resolver.resolve_at_once(conflict, self.load) for conflict in here]
        except BlockingIOError:
            future = self.uploads.run(lambda: [self._resolver.resolve(conflict) for conflict in here])
            future.add_done_callback(partial(self._resolved, transaction, checked.conflicts, here))
            return True
        except (ZeodError, OSError) as error:  # the disk's troubles
            self._refuse(transaction, error)
            return False
        return self._take_resolved(transaction, checked.conflicts, here, resolved)

    def _read_back(self, transaction: ServerTransaction, conflicts: Sequence[Conflict]) -> bool:
        """Have the spooled data of conflicts read, then answer the vote; False if it is refused."""
        if sum(len(conflict.data or b"") for conflict in conflicts) > self._limits.backlog_max_bytes:
            self._refuse(transaction, conflicts[0].error())  # neither to be resolved here nor to be sent
            return False

        def read(future: "asyncio.Future[list[Conflict]]") -> None:
            error = future.exception()
            if transaction.phase in ENDED:
                return  # its client went away meanwhile
            checked = Checked(error) if isinstance(error, Exception) else Checked(None, future.result())
            if not self._answer_vote(transaction, checked):
                self._release([transaction])

        future = self.uploads.run(lambda: [conflict._replace(data=whole(conflict.data)) for conflict in conflicts])
        future.add_done_callback(read)
        return True

    def _resolved(
        self,
        transaction: ServerTransaction,
        conflicts: Sequence[Conflict],
        here: Sequence[Conflict],
        future: "asyncio.Future[list[bytes | None]]",
    ) -> None:
        error = future.exception()
        if transaction.phase in ENDED:
            return  # its client went away meanwhile
        if isinstance(error, Exception):
            self._refuse(transaction, error)
        if error is not None or not self._take_resolved(transaction, conflicts, here, future.result()):
            self._release([transaction])

    def _take_resolved(
        self,
        transaction: ServerTransaction,
        conflicts: Sequence[Conflict],
        here: Sequence[Conflict],
        resolved: Sequence[bytes | None],
    ) -> bool:
        for conflict, data in zip(here, resolved, strict=True):
            if data is not None:
                transaction.take_resolved(conflict.oid, conflict.committed, data)
                self.counters.conflicts_resolved += 1
        left = [conflict for conflict in conflicts if conflict.oid not in transaction.resolved]
        if transaction.error is not None:  # what was resolved made it too large
            self._refuse(transaction, transaction.error)
        elif not left:
            self._grant(transaction)
        elif transaction.resolves:
            committed_data = self._resolver.committed_data
            self._have_resolved(transaction, [each.as_map(committed_data(each, self.load)) for each in left])
        else:
            self._refuse(transaction, left[0].error())
        return transaction.phase not in ENDED

    def _have_resolved(self, transaction: ServerTransaction, conflicts: Sequence[Mapping[str, object]]) -> None:
        transaction.move(Step.CONFLICT)
        self.timeouts.start(transaction)
        transaction.give(list(conflicts))

    def _voted_elsewhere(self, transaction: ServerTransaction, outcome: Voted | Exception) -> None:
        if isinstance(outcome, Exception):
            self._refuse(transaction, outcome)
            self._release([transaction])
        elif outcome.conflicts:
            self._have_resolved(transaction, outcome.conflicts)
        else:
            transaction.resolved.update(dict.fromkeys(outcome.changed))
            self._grant(transaction)

    def _grant(self, transaction: ServerTransaction) -> None:
        transaction.move(Step.GRANT)
        self._in_doubt.add(transaction)
        self._promised_bytes += transaction.size_bytes
        transaction.member.awaiting += 1
        self._settled.clear()
        self.timeouts.start(transaction)
        transaction.give(list(transaction.resolved))
        if len(self._in_doubt) == 1 and transaction.phase is Phase.VOTED:
            # Nobody else can finish before it but who votes from now on, so the disk may begin. At once: the writer's
            # thread needs as long to wake up as the answer to leave, after which it can have the interpreter.
            self._writer.anticipate(transaction.prepared(), transaction.size_bytes)

    def _refuse(self, transaction: ServerTransaction, error: Exception) -> None:
        if isinstance(error, ConflictError):
            self.counters.conflicts += 1
        self.counters.aborts += 1
        self._end(transaction, Step.REFUSE)
        self._turns.refused(transaction, error)
        transaction.give(error)

    def _abort(self, transaction: ServerTransaction) -> None:
        self.counters.aborts += 1
        self._end(transaction, Step.ABORT)
        self._release([transaction])

    def _end(self, transaction: ServerTransaction, step: Step) -> None:
        """Move a transaction to its end and forget it, but for its locks."""
        self._settle(transaction)
        transaction.move(step)
        transaction.drop()
        self.uploads.end_of(transaction)
        if self._elsewhere is not None:
            self._elsewhere.end_of(transaction)
        self.counters.active_txns -= 1
        self.timeouts.stop(transaction)
        mine = self._open.get(transaction.member)
        if mine is not None:
            del mine[transaction.id]
        if not self._in_doubt:
            self._settled.set()

    def _settle(self, transaction: ServerTransaction) -> None:
        if transaction in self._in_doubt:
            self._in_doubt.remove(transaction)
            self._promised_bytes -= transaction.size_bytes
            transaction.member.awaiting -= 1

    def _release(self, ended: Iterable[ServerTransaction]) -> None:
        """Free the locks of transactions that ended, and grant or refuse those who waited for them."""
        self._serve([granted for transaction in ended for granted in self._turns.release(transaction)])

    def _serve(self, granted: Iterable[ServerTransaction]) -> None:
        """Grant or refuse those who have waited."""
        # No recursion: each refusal frees locks in turn, and a hundred may wait in a row for one hot object.
        ready = deque(granted)
        while ready:
            transaction = ready.popleft()
            if transaction.phase in ENDED:
                continue  # its client left while it stood in this queue
            self._turns.waited(transaction)
            if not self._answer_vote(transaction, self._check(transaction)):
                ready.extend(self._turns.release(transaction))

    def _timed_out(self, transaction: ServerTransaction) -> None:
        member = transaction.member
        reason = f"Transaction timeout after {self.timeouts.timeout_s:g} seconds"
        _log.critical("%s: %s: %r", self.name, reason, transaction)
        self._abort(transaction)
        member.disconnect(reason)

    def _tell_info(self) -> None:
        self.audience.tell(self._encoder.one_way("info", (self.info(),)))

    def _post(self, outcome: Outcome[ServerTransaction]) -> None:
        self._loop.call_soon_threadsafe(self._written, outcome)

    def _written(self, outcome: Outcome[ServerTransaction]) -> None:
        for transaction in outcome.keys:
            self._settle(transaction)  # all of them before any is answered: what the others are told leaves with that
        if outcome.group is None:
            for transaction in outcome.keys:
                self.counters.aborts += 1
                self._end(transaction, Step.FAILED)
                transaction.give(outcome.error)
        else:
            try:
                self.counters.write_seconds.observe(outcome.seconds)
                self.counters.group_sizes.observe(len(outcome.keys))
                self._publish(outcome.keys, outcome.group)
            except Exception:  # noqa: BLE001 - whatever it is, what is shown is no longer what is on disk
                _log.critical("%s: transactions are on disk that could not be shown", self.name, exc_info=True)
                self._give_up(outcome.keys)
        self._release(outcome.keys)

    def _give_up(self, transactions: Sequence[ServerTransaction]) -> None:
        """Serve no more: what is on disk and what is shown differ, and only a restart can mend that (lesson B28).

        The clients are cut off without an answer, which tells those who wait for one that they have to find out.
        """
        self._refusal = StorageClosedError("an earlier transaction could not be published: restart the server")
        for transaction in transactions:
            if transaction.phase not in ENDED:
                self._end(transaction, Step.FAILED)
        for member in list(self._open):
            member.disconnect("the storage can no longer be served")

    def _publish(self, transactions: Sequence[ServerTransaction], group: WrittenGroup) -> None:
        by_tid = dict(zip(group.tids, transactions, strict=True))
        info: list[bytes] = []

        def announce(tid: Tid, oids: Sequence[Oid]) -> None:
            transaction = by_tid[tid]
            if self.invalidations.add(tid, oids):
                self.audience.tell(self._encoder.one_way("invalidateTransaction", (tid, oids)), but=transaction.member)
            if not info:
                info.append(self._encoder.one_way("info", (self.info(),)))
            self.counters.committed(transaction.vote_s, transaction.finish_s)
            self._end(transaction, Step.WRITTEN)
            if transaction.member in self._open:
                transaction.member.send(info[0])
                transaction.give(tid)

        self.storage.publish(group, announce)
