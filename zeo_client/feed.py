"""What arrives from the server, brought into the cache and to the DB: in the reader's thread, in the stream's order.

So all changes of the cache and all invalidations happen in one order, and the cache's last tid moves last (lessons B1,
B4, B15). Only one connection at a time may come here: the one that was verified, or that is being verified.
"""

from collections.abc import Callable, Sequence
from typing import Any

from zeo_client import replies
from zeo_client.cache.opening import Cache
from zeo_client.staging import Staging
from zeo_client.transport.channel import Call, Channel
from zeo_client.verification import LostStates
from zeo_core.errors import RemoteProtocolError
from zeo_core.ids import Oid, Tid, tid_repr
from zeo_core.storage import InvalidationSink
from zeo_core.transaction import Revision

__all__ = ["Feed"]


class Feed:
    """The way into `cache`, and to `sink`, which hears of other clients' commits."""

    def __init__(self, cache: Cache) -> None:
        self.lost_states = LostStates()
        self._cache = cache
        self.sink: InvalidationSink | None = None

    def loaded(self, call: Call, answer: Any) -> Revision | None:
        """Take in the reply to a loadBefore, and return it."""
        revision = replies.revision(call, answer)
        return None if revision is None else self._take_in(call, call.args[0], revision)

    def brought(self, call: Call, answer: Any) -> replies.Brought:
        """Take in the reply to a load_many, and return it."""
        brought = replies.many(call, answer)
        return brought._replace(found=[(oid, self._take_in(call, oid, revision)) for oid, revision in brought.found])

    def _take_in(self, call: Call, oid: Oid, revision: Revision) -> Revision:
        if revision.end_tid is None and call.superseded:
            # Belt and braces (B2): an invalidation that passed this load ends what the reply calls current.
            later = [tid for tid, oids in call.superseded if tid > revision.tid and oid in oids]
            revision = revision._replace(end_tid=min(later, default=None))
        if revision.tid <= self._cache.last_tid():
            self._cache.store(oid, revision)
        return revision

    def finished(self, staging: Staging, tid: Tid, announce: Callable[[Tid], None] | None) -> Tid:
        """Take in a commit of this client's, and return its tid."""
        self._check_next(tid)
        changed = staging.changed()
        self._supersede(staging.generation, tid, changed)
        self._cache.invalidate(tid, changed)
        for oid, write in staging.writes.items():  # what waited in a file would drive everything else out of the cache
            if write.data is not None and oid not in staging.resolved:
                self._cache.store(oid, Revision(write.data, tid, None))
        if announce is not None:
            announce(tid)
        self._cache.advance(tid)
        return tid

    def invalidated(self, channel: Channel, tid: Tid, oids: Sequence[Oid]) -> None:
        """Take in a commit of another client's."""
        self._check_next(tid)
        self._supersede(channel, tid, oids)
        self._cache.invalidate(tid, oids)
        if self.sink is not None:
            self.sink.invalidate(tid, oids)
        self._cache.advance(tid)

    def reset(self, tid: Tid) -> None:
        """Tell the sink that anything may have changed up to `tid`, up to which the cache is known (B9)."""
        if self.sink is not None:
            self.sink.invalidateCache()
        self._cache.advance(tid)

    def _check_next(self, tid: Tid) -> None:
        if tid <= self._cache.last_tid():
            known = tid_repr(self._cache.last_tid())
            raise RemoteProtocolError(f"transaction {tid_repr(tid)} was announced after {known}")
        if self.lost_states:
            self.lost_states.reached(tid)

    def _supersede(self, channel: Channel, tid: Tid, oids: Any) -> None:
        """Mark the loads under way of objects that `tid` changed; a load_many may bring any object."""
        for call in channel.pending_calls():
            if call.method == "load_many" or (call.method == "loadBefore" and call.args[0] in oids):
                call.superseded += ((tid, oids),)
