"""The transactions of a ClientStorage that are in progress: staged here, sent at the vote, until the server's word."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from zeo_client import replies
from zeo_client.resolver import Resolver
from zeo_client.staging import MEMORY_BYTES, Staging
from zeo_client.transport.channel import Channel, OnReply
from zeo_client.turns import Turns
from zeo_core.errors import (
    ClientDisconnected,
    CommitInDoubtError,
    ConflictError,
    NotCommittedError,
    RemoteProtocolError,
    StorageTransactionError,
    ZeodError,
)
from zeo_core.ids import Oid, Tid
from zeo_core.wire.codec import encode_one_way
from zeo_core.wire.methods import CLIENT_RESOLUTION, COMMIT_OUTCOME, CONCURRENT_TRANSACTIONS, EXTENSION_BYTES

__all__ = ["ATTEMPTS_TO_ASK", "LOOKED_AT_MAX", "VOTES_MAX", "OpenTransactions", "Sender"]

LOOKED_AT_MAX = 100
"""Objects of a transaction up to which their classes are looked at before the vote: a microsecond each."""

VOTES_MAX = 9
"""Votes of one transaction whose conflicts are resolved here; with zeod, which holds its locks meanwhile, two do."""

ATTEMPTS_TO_ASK = 10
"""Connections on which it is asked what became of a commit, should each of them break, too."""


class Sender(Protocol):
    """How a storage brings what is staged to the server; one with blobs has more to bring."""

    def send_staged(self, channel: Channel, staging: Staging) -> bytes:
        """Return what is to be sent right before the vote; it may have been sent already."""

    def while_voting(self, staging: Staging) -> None:
        """Do what there is to do while the server votes."""


class OpenTransactions:
    """Those of one storage, of any number of threads. `has` tells whether the server announced an extension."""

    def __init__(
        self,
        channel: Callable[[], Channel],
        last_tid: Callable[[], Tid],
        has: Callable[[str], bool],
        resolver: Resolver,
        sender: Sender,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        """`last_tid` is the last transaction that is known here; past `memory_bytes` each goes on in a file.

        `channel` waits for a connection, up to a time, to a server that takes writes: what became of a commit, a
        replica may not know yet.
        """
        self._channel = channel
        self._last_tid = last_tid
        self._has = has
        self._resolver = resolver
        self._sender = sender
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._txn_ids = itertools.count(1)
        self._staged: dict[int, Staging] = {}
        self._turns = Turns()

    def begin(self, transaction: Any, channel: Channel, tid: Tid | None, status: str | bytes) -> None:
        """Begin; StorageTransactionError if it has begun already."""
        staging = Staging.begin(
            transaction,
            next(self._txn_ids),
            channel,
            tid=tid,
            status=status,
            exact=self._has(EXTENSION_BYTES),
            markable=self._has(COMMIT_OUTCOME) and tid is None,
            memory_bytes=self._memory_bytes,
        )
        with self._lock:
            if id(transaction) in self._staged:
                raise StorageTransactionError("tpc_begin twice for one transaction")
            self._staged[id(transaction)] = staging

    def find(self, transaction: Any) -> Staging | None:
        """Return what a transaction has staged, None if it is not in progress."""
        staging = self._staged.get(id(transaction))
        return None if staging is None or staging.transaction is not transaction else staging

    def staging(self, transaction: Any) -> Staging:
        """Return what a transaction has staged; StorageTransactionError if it is not in progress."""
        staging = self.find(transaction)
        if staging is None:
            raise StorageTransactionError("this transaction is not in progress; call tpc_begin first")
        return staging

    def vote(self, transaction: Any) -> Sequence[Oid]:
        """Send everything in one burst and wait for the server's word; ConflictError, ReadConflictError."""
        staging = self.staging(transaction)
        resolves = self._offers_to_resolve(staging)
        again: list[tuple[Oid, Tid, bytes]] = []
        for _ in range(VOTES_MAX):
            answer = self.vote_once(transaction, resolves=resolves, again=again)
            if not answer.conflicts:
                return list(staging.resolved)
            again = [self._resolved(staging, conflict) for conflict in answer.conflicts]
        raise ConflictError(oid=answer.conflicts[0].oid)

    def vote_once(
        self, transaction: Any, *, resolves: bool, again: Sequence[tuple[Oid, Tid, bytes]] = ()
    ) -> replies.Votes:
        """Send everything and return the server's word, which with `resolves` may be conflicts to be resolved.

        `again` has what was made of those of the last vote: oid, the committed serial, data. Nothing else is sent then.
        """
        staging = self.staging(transaction)
        if not self._has(CONCURRENT_TRANSACTIONS):
            self._turns.take(staging)
        channel = _same_channel(staging)
        args = (staging.txn_id, True) if resolves and self._has(CLIENT_RESOLUTION) else (staging.txn_id,)
        if again:
            before = b"".join([staging.resolve(*resolved) for resolved in again])
            call = channel.start("vote", args, replies.votes, before=before)
        else:
            call = channel.start("vote", args, replies.votes, before=self._sender.send_staged(channel, staging))
            self._sender.while_voting(staging)
        answer: replies.Votes = channel.wait(call)
        staging.resolved |= answer.changed
        staging.voted = not answer.conflicts
        return answer

    def _offers_to_resolve(self, staging: Staging) -> bool:
        if not self._has(CLIENT_RESOLUTION):
            return False  # nobody would ask: the classes need not be looked at
        writes, may_resolve = staging.writes, self._resolver.may_resolve
        return (
            staging.spool is not None
            or len(writes) > LOOKED_AT_MAX
            or any(may_resolve(write.data) for write in writes.values())
        )

    def _resolved(self, staging: Staging, conflict: replies.ToResolve) -> tuple[Oid, Tid, bytes]:
        write = staging.write(conflict.oid)
        data = self._resolver.resolve(conflict, None if write is None else write.data)
        return conflict.oid, conflict.committed, data

    def finish(
        self,
        transaction: Any,
        finished: Callable[[Staging], OnReply],
        announce: Callable[[Tid], None] | None,
    ) -> Tid:
        """Commit; `finished` says what the reply does, in the reader's thread.

        If the connection breaks before the server's word, the server is asked as soon as it is there again: then the
        tid is returned, or NotCommittedError raised. CommitInDoubtError if that cannot be found out.
        """
        staging = self.staging(transaction)
        if not staging.voted:
            raise StorageTransactionError("tpc_finish before tpc_vote")
        channel = _same_channel(staging)
        since = self._last_tid()
        call = channel.start("tpc_finish", (staging.txn_id,), finished(staging))
        del self._staged[id(transaction)]
        try:
            tid: Tid = channel.wait(call)
        except (ClientDisconnected, RemoteProtocolError) as error:
            tid = self._outcome(staging, since, error)
            if announce is not None:
                announce(tid)
        except Exception:
            # Should it be committed in spite of the error, only a verified cache will know (B14).
            channel.fail("tpc_finish failed")
            raise
        finally:
            self._turns.give(staging)
            staging.close()
        return tid

    def _outcome(self, staging: Staging, since: Tid, error: Exception) -> Tid:
        """Return the tid of a transaction whose finish got no answer because of `error`; see finish."""
        address, reason = str(staging.generation.address), getattr(error, "reason", str(error))
        for _ in range(ATTEMPTS_TO_ASK if staging.marker else 0):
            try:
                channel = self._channel()
            except ClientDisconnected:
                break
            if not self._has(COMMIT_OUTCOME):
                break  # another server than before
            try:
                tid: Tid | None = channel.call("transaction_outcome", (staging.marker, since), replies.outcome)
            except ClientDisconnected:
                continue
            except ZeodError as refusal:
                reason += f"; {refusal}"
                break
            if tid is None:
                raise NotCommittedError(address, reason) from error
            return tid
        raise CommitInDoubtError(address, reason) from error

    def abort(self, transaction: Any) -> None:
        """Forget the transaction, here and on the server."""
        with self._lock:
            staging = self._staged.pop(id(transaction), None)
        if staging is not None and staging.sent and staging.generation.lost is None:
            with contextlib.suppress(ClientDisconnected):  # the server aborts what a lost client left
                staging.generation.send(encode_one_way("tpc_abort", (staging.txn_id,)))
        if staging is not None:
            self._turns.give(staging)
            staging.close()


def _same_channel(staging: Staging) -> Channel:
    """Return the channel that the transaction began on: oids and checks of another one mean nothing (B14)."""
    channel = staging.generation
    if channel.lost is not None:
        reason = f"lost during the transaction: {channel.lost}"
        raise ClientDisconnected(str(channel.address), reason, channel.lost_when)
    return channel
