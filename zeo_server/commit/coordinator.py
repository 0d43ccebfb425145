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
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial

from zeo_core.errors import (
    ConflictError,
    POSKeyError,
    ReadConflictError,
    RecordFormatError,
    StorageClosedError,
    StorageError,
    StorageTransactionError,
    ZeodError,
)
from zeo_core.ids import ZERO_TID, Oid, Tid
from zeo_core.record import class_name
from zeo_core.storage import LoadsCached, Packs, ServedStorage, WrittenGroup
from zeo_core.transaction import Invalidation
from zeo_core.wire.codec import Encoder
from zeo_server.commit.group import GroupWriter, Outcome
from zeo_server.commit.locks import ObjectLocks
from zeo_server.commit.phases import ENDED, IN_DOUBT, Phase, Step
from zeo_server.commit.timeout import Timeouts
from zeo_server.commit.transaction import Answer, BlobSource, Member, ServerTransaction
from zeo_server.commit.uploads import Uploads
from zeo_server.invalidation import Audience, InvalidationLog
from zeo_server.status import Counters, StorageStatus

__all__ = ["OPEN_TRANSACTIONS_MAX", "TRANSACTION_MAX_BYTES", "Coordinator"]

TRANSACTION_MAX_BYTES = 512 * 1024 * 1024
"""What one transaction may stage, in memory for now: to become the key that says when it is spooled to disk."""

OPEN_TRANSACTIONS_MAX = 100
"""Transactions that one connection may have open; ZEO's clients have one at a time."""

_log = logging.getLogger("zeo_server.commit")


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
        max_bytes: int = TRANSACTION_MAX_BYTES,
    ) -> None:
        self.storage = storage
        self.load = storage.load_cached if isinstance(storage, LoadsCached) else storage.load_before
        """Loads in the loop's thread; where it would wait for the disk it raises BlockingIOError."""
        self.name = name
        self.counters = Counters()
        self.audience: Audience[Member] = Audience()
        self.invalidations = invalidation_log or InvalidationLog(100, [Invalidation(storage.last_tid(), ())])
        self._loop = loop
        self._max_bytes = max_bytes
        self._encoder = Encoder()
        self._open: dict[Member, dict[Hashable, ServerTransaction]] = {}
        self._in_doubt: set[ServerTransaction] = set()
        self._promised_bytes = 0  # of all transactions in doubt
        # What can fail is to fail at the vote (lesson B28); a storage without a disk has nothing to check.
        self._check_room: Callable[[int], None] | None = getattr(storage, "check_room", None)
        self._locks: ObjectLocks[ServerTransaction] = ObjectLocks()
        self._timeouts: Timeouts[ServerTransaction] = Timeouts(loop, timeout_s, self._timed_out)
        self._writer: GroupWriter[ServerTransaction] = GroupWriter(storage, self._post, name)
        self.uploads = Uploads(storage, loop, name)
        self._stopping: str | None = None
        self._closed = threading.Event()  # for the thread that packs
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

    def is_in_doubt(self, member: Member) -> bool:
        """Tell whether a transaction of `member` is voted or with the writer."""
        return any(transaction.phase in IN_DOUBT for transaction in self._open.get(member, {}).values())

    # -- calls of a client -------------------------------------------------------------------------------------------

    def begin(self, member: Member, txn_id: Hashable) -> ServerTransaction:
        """Open a transaction. A repeated begin of an open one changes nothing, as with ZEO."""
        mine = self._open[member]
        transaction = mine.get(txn_id)
        if transaction is None:
            if len(mine) >= OPEN_TRANSACTIONS_MAX:
                raise StorageTransactionError(f"{len(mine)} transactions are open on this connection")
            transaction = mine[txn_id] = ServerTransaction(member, txn_id, self._max_bytes)
            self.counters.active_txns += 1
        return transaction

    def store(self, member: Member, txn_id: Hashable, oid: Oid, serial: Tid, data: bytes) -> None:
        """Stage an object; StorageTransactionError if there is no such transaction."""
        transaction = self._open[member].get(txn_id)
        if transaction is None:
            raise _no_transaction(txn_id)
        self.counters.stores += 1
        transaction.store(oid, serial, data)

    def store_blob(
        self, member: Member, txn_id: Hashable, oid: Oid, serial: Tid, data: bytes, source: BlobSource
    ) -> None:
        """Stage an object with its blob; StorageTransactionError if there is no such transaction."""
        try:
            self.counters.stores += 1
            needless = self._find(member, txn_id).store_blob(oid, serial, data, source)
        except StorageTransactionError:
            self.uploads.discard(source)
            raise
        if needless is not None:
            self.uploads.discard(needless)

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

    def vote(self, member: Member, txn_id: Hashable, answer: Answer) -> None:
        """Lock and check; `answer` gets the list of oids resolved (none yet), or the error, now or later."""
        transaction = self._find(member, txn_id)
        transaction.move(Step.VOTE)
        transaction.answer = answer
        if transaction.blobs and transaction.error is None:
            # What can fail is to fail at the vote (lesson B28): the blobs are on disk before any lock is asked for.
            self.uploads.stage(transaction, partial(self._staged, transaction))
        else:
            self._lock(transaction)

    def _staged(self, transaction: ServerTransaction) -> None:
        if transaction.phase in ENDED:  # its client went away meanwhile
            self.uploads.end_of(transaction)
        else:
            self._lock(transaction)

    def _lock(self, transaction: ServerTransaction) -> None:
        # Serials only grow: a conflict seen now is one for good, so the loser need not wait for locks to hear of it.
        fault = self._fault(transaction)
        if fault is not None:
            self._refuse(transaction, fault)
        elif self._locks.request(transaction, transaction.writes, transaction.checks.keys() - transaction.writes):
            self._grant(transaction)
        else:
            _log.debug("%s: %r waits for its locks, as %d do", self.name, transaction, self._locks.waiting())

    def finish(self, member: Member, txn_id: Hashable, answer: Answer) -> None:
        """Have a voted transaction written; `answer` gets its tid when it is on disk and visible, or the error."""
        transaction = self._find(member, txn_id)
        transaction.move(Step.FINISH)
        transaction.answer = answer
        self._timeouts.stop(transaction)
        self._writer.submit(transaction, transaction.prepared(), transaction.size_bytes)

    def abort(self, member: Member, txn_id: Hashable) -> None:
        """Forget a transaction; harmless for an unknown one."""
        transaction = self._open[member].get(txn_id)
        if transaction is not None:
            self._abort(transaction)

    def pack(self, until_s: float, answer: Answer) -> None:
        """Pack the storage, in a thread that has the work done elsewhere; `answer` gets None, or the error.

        StorageError if it is no storage that can be packed.
        """
        storage = self.storage
        if not isinstance(storage, Packs):
            raise StorageError(f"storage {self.name} cannot be packed")

        def packed(future: "asyncio.Future[None]") -> None:
            error = future.exception()
            if error is None:
                _log.info("%s: packed, %d bytes now", self.name, storage.byte_size())
                self.audience.tell(self._encoder.one_way("info", (self.info(),)))
            else:
                _log.error("%s: not packed: %s", self.name, error)
            answer(error)

        _log.info("%s: packing %d bytes", self.name, storage.byte_size())
        steps = storage.pack_steps(until_s)
        self._loop.run_in_executor(None, self._walk, steps).add_done_callback(packed)

    def _walk(self, steps: Iterator[object]) -> None:
        """Do all steps, in a thread; give up when the server stops, which must not wait for a pack."""
        for _ in steps:
            if self._closed.is_set():
                raise StorageClosedError("the server is stopping")

    def change_timeout(self, timeout_s: float) -> None:
        """Give clients that much time between vote and finish from now on; 0 for ever."""
        self._timeouts.change(timeout_s)

    def info(self) -> dict[str, object]:
        """Return the figures of get_info that a commit changes."""
        return {"length": self.storage.object_count(), "size": self.storage.byte_size()}

    def status(self) -> StorageStatus:
        """Return this storage's figures as of now."""
        return StorageStatus.of(
            self.counters,
            connections=len(self.audience),
            waiting=self._locks.waiting(),
            locked_for_s=self._timeouts.longest_s(),
            last_tid=self.storage.last_tid(),
            timeout_enabled=self._timeouts.timeout_s > 0,
        )

    # -- the end ----------------------------------------------------------------------------------------------------

    def refuse_votes(self, reason: str) -> None:
        """Grant no vote from now on; `reason` is what the clients are told."""
        self._stopping = reason

    async def quiet(self, grace_s: float) -> bool:
        """Wait until no transaction is in doubt, but at most `grace_s`; tell whether that came to pass."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), grace_s)
        return not self._in_doubt

    async def close(self) -> None:
        """Write and answer what is with the writer and end its thread. The storage stays open."""
        self.refuse_votes("the server is stopping")
        self._closed.set()
        # The writer posts its outcomes before it ends, so they are dealt with before this returns.
        await self._loop.run_in_executor(None, self._writer.close)
        await self.uploads.close()
        self._timeouts.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _find(self, member: Member, txn_id: Hashable) -> ServerTransaction:
        transaction = self._open[member].get(txn_id)
        if transaction is None:
            raise _no_transaction(txn_id)
        return transaction

    def _fault(self, transaction: ServerTransaction) -> Exception | None:
        """Return why a vote cannot be granted: a remembered error, the first conflict, or that the server stops."""
        if transaction.error is not None:
            return transaction.error
        if self._stopping is not None:
            return StorageClosedError(self._stopping)
        current_tid = self.storage.current_tid
        try:
            transaction.check_restorable(self.storage.last_tid())
            for oid, serial, data, _, _ in transaction.writes.values():
                committed = current_tid(oid)
                if committed is None and data is None and oid not in transaction.restored:
                    return POSKeyError(oid)
                committed = committed or ZERO_TID
                if committed != serial and oid not in transaction.restored:
                    return ConflictError(oid=oid, serials=(committed, serial), class_name=_class_name(data))
            for oid, serial in transaction.checks.items():
                committed = current_tid(oid) or ZERO_TID
                if committed != serial and oid not in transaction.writes:
                    return ReadConflictError(oid=oid, serials=(committed, serial))
            if self._check_room is not None:
                self._check_room(self._promised_bytes + transaction.size_bytes)
        except (ZeodError, OSError) as error:
            _log.error("%s: a vote is refused: %s", self.name, error)
            return error
        return None

    def _grant(self, transaction: ServerTransaction) -> None:
        transaction.move(Step.GRANT)
        self._in_doubt.add(transaction)
        self._promised_bytes += transaction.size_bytes
        self._settled.clear()
        self._timeouts.start(transaction)
        _give(transaction, [])
        if len(self._in_doubt) == 1:
            # Nobody else can finish before it but who votes from now on: the disk may begin while its client is told,
            # and not before that, since the writer's thread and the loop's cannot both run Python.
            self._loop.call_soon(self._anticipate, transaction)

    def _anticipate(self, transaction: ServerTransaction) -> None:
        if transaction.phase is Phase.VOTED:
            self._writer.anticipate(transaction.prepared(), transaction.size_bytes)

    def _refuse(self, transaction: ServerTransaction, error: Exception) -> None:
        if isinstance(error, ConflictError):
            self.counters.conflicts += 1
        self.counters.aborts += 1
        self._end(transaction, Step.REFUSE)
        _give(transaction, error)

    def _abort(self, transaction: ServerTransaction) -> None:
        self.counters.aborts += 1
        self._end(transaction, Step.ABORT)
        self._release([transaction])

    def _end(self, transaction: ServerTransaction, step: Step) -> None:
        """Move a transaction to its end and forget it, but for its locks."""
        if transaction in self._in_doubt:
            self._in_doubt.remove(transaction)
            self._promised_bytes -= transaction.size_bytes
        transaction.move(step)
        transaction.drop()
        self.uploads.end_of(transaction)
        self.counters.active_txns -= 1
        self._timeouts.stop(transaction)
        mine = self._open.get(transaction.member)
        if mine is not None:
            del mine[transaction.id]
        if not self._in_doubt:
            self._settled.set()

    def _release(self, ended: Iterable[ServerTransaction]) -> None:
        """Free the locks of transactions that ended, and grant or refuse those who waited for them.

        A queue, not recursion: each refusal frees locks in turn, and a hundred may wait in a row for one hot object.
        """
        ready = deque(granted for transaction in ended for granted in self._locks.release(transaction))
        while ready:
            transaction = ready.popleft()
            if transaction.phase in ENDED:
                continue  # its client left while it stood in this queue
            fault = self._fault(transaction)
            if fault is None:
                self._grant(transaction)
            else:
                ready.extend(self._locks.release(transaction))
                self._refuse(transaction, fault)

    def _timed_out(self, transaction: ServerTransaction) -> None:
        member = transaction.member
        reason = f"Transaction timeout after {self._timeouts.timeout_s:g} seconds"
        _log.critical("%s: %s: %r", self.name, reason, transaction)
        self._abort(transaction)
        member.disconnect(reason)

    def _post(self, outcome: Outcome[ServerTransaction]) -> None:
        self._loop.call_soon_threadsafe(self._written, outcome)

    def _written(self, outcome: Outcome[ServerTransaction]) -> None:
        if outcome.group is None:
            for transaction in outcome.keys:
                self.counters.aborts += 1
                self._end(transaction, Step.FAILED)
                _give(transaction, outcome.error)
        else:
            try:
                self._publish(outcome.keys, outcome.group)
            except Exception:  # noqa: BLE001 - whatever it is, what is shown is no longer what is on disk
                _log.critical("%s: transactions are on disk that could not be shown", self.name, exc_info=True)
                self._give_up(outcome.keys)
        self._release(outcome.keys)

    def _give_up(self, transactions: Sequence[ServerTransaction]) -> None:
        """Serve no more: what is on disk and what is shown differ, and only a restart can mend that (lesson B28).

        The clients are cut off without an answer, which tells those who wait for one that they have to find out.
        """
        self.refuse_votes("an earlier transaction could not be published: restart the server")
        for transaction in transactions:
            if transaction.phase not in ENDED:
                self._end(transaction, Step.FAILED)
        for member in list(self._open):
            member.disconnect("the storage can no longer be served")

    def _publish(self, transactions: Sequence[ServerTransaction], group: WrittenGroup) -> None:
        by_tid = dict(zip(group.tids, transactions, strict=True))
        info: list[bytes] = []

        def announce(tid: Tid, oids: Sequence[Oid]) -> None:
            self.invalidations.add(tid, oids)
            transaction = by_tid[tid]
            self.audience.tell(self._encoder.one_way("invalidateTransaction", (tid, oids)), but=transaction.member)
            if not info:
                info.append(self._encoder.one_way("info", (self.info(),)))
            self.counters.commits += 1
            self._end(transaction, Step.WRITTEN)
            if transaction.member in self._open:
                transaction.member.send(info[0])
                _give(transaction, tid)

        self.storage.publish(group, announce)


def _give(transaction: ServerTransaction, outcome: object) -> None:
    """Answer the call that waits; its callback is used once."""
    answer, transaction.answer = transaction.answer, None
    if answer is not None:
        answer(outcome)


def _no_transaction(txn_id: Hashable) -> StorageTransactionError:
    return StorageTransactionError(f"no transaction {txn_id!r} is open on this connection")


def _class_name(data: bytes | None) -> str | None:
    try:
        return class_name(data) if data else None
    except RecordFormatError:
        return None  # the conflict is to be reported all the same
