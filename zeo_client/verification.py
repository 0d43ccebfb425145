"""What a server tells on a new connection about the time since the last one, and whether it can be relied on."""

import logging
from collections.abc import Sequence

from zeo_client import replies
from zeo_client.transport.channel import Channel
from zeo_core.errors import ClientDisconnected, ReadConflictError, ServerError, StorageError
from zeo_core.ids import Oid, Tid, oid_repr, successor, tid_repr
from zeo_core.wire.codec import encode_one_way

__all__ = ["LostStates", "ServerChanges", "register"]

logger = logging.getLogger(__name__)


def register(channel: Channel, storage: str, known: Tid, *, read_only: bool) -> Tid:
    """Register for a storage and return the server's last transaction; `known` is the last one that is known here.

    ReadOnlyError if the server takes no writes, ValueError if it has no such storage. ClientDisconnected if it is a
    reader's server and behind: a replica that is late will be there soon, and to read from it now would be to go back
    in time. A writer's server that is behind was restored from a backup, or has taken over from one that is gone.
    """
    server_tid: Tid = channel.call("register", (storage, read_only), replies.last_tid)
    if read_only and server_tid < known:
        reason = f"its last transaction is {tid_repr(server_tid)}, behind {tid_repr(known)}, which is known here"
        raise ClientDisconnected(str(channel.address), reason)
    return server_tid


class LostStates:
    """States of the database that were read here and that no server has any more; most clients never see one.

    The tids of what is committed afterwards are later ones, unless the server's clock is behind; see `reached`.
    """

    def __init__(self) -> None:
        self._spans: list[tuple[Tid, Tid]] = []

    def __bool__(self) -> bool:
        return bool(self._spans)

    def add(self, server_tid: Tid, known: Tid) -> None:
        """Take note of a server's last transaction and the last one known here before."""
        if server_tid < known:
            self._spans.append((successor(server_tid), successor(known)))

    def reached(self, tid: Tid) -> None:
        """Take note of a new transaction: where its tid is that of a lost one, or before it, its state can be read."""
        self._spans = [(first, last) for first, last in self._spans if last < successor(tid)]

    def check(self, oid: Oid, tid: Tid) -> None:
        """Refuse to load the state before `tid` for a transaction that has read one that is lost: ReadConflictError.

        What the server has now would be mixed with what was read before.
        """
        if any(first < tid <= last for first, last in self._spans):
            raise ReadConflictError(
                f"object {oid_repr(oid)} cannot be read as of {tid_repr(tid)}: the server has gone back behind this"
                " state of the database; begin a new transaction",
                oid=oid,
            )


class ServerChanges:
    """Asks the server what changed since a tid; a cache that is known up to there forgets it, and is current again.

    `server_tid` is the last transaction as the connection was registered, `name` the storage's for the log. Every tid
    is asked for once, however many caches are known up to it. `knows_forks` says that the server answers only for a tid
    of its own, as zeod does; ZEO's tells what is later than any tid, also one that it lost when it was restored (B12).
    """

    def __init__(self, channel: Channel, server_tid: Tid, name: str, *, knows_forks: bool) -> None:
        self._channel = channel
        self._server_tid = server_tid
        self._name = name
        self._knows_forks = knows_forks
        self._answers: dict[Tid, tuple[Tid, Sequence[Oid]] | None] = {server_tid: (server_tid, ())}

    def __call__(self, known: Tid) -> tuple[Tid, Sequence[Oid]] | None:
        """Return up to which tid the server tells what changed, and the oids; None if it cannot: drop the cache."""
        if known not in self._answers:
            self._answers[known] = self._ask(known)
        return self._answers[known]

    def _ask(self, known: Tid) -> tuple[Tid, Sequence[Oid]] | None:
        answer: tuple[Tid, Sequence[Oid]] | None = None
        if known < self._server_tid:
            answer = self._channel.call("getInvalidations", (known,), replies.changes)
        if answer is not None and answer[0] >= self._server_tid and (self._knows_forks or self._is_in_log(known)):
            return answer
        tids = tid_repr(known), tid_repr(self._server_tid)
        logger.warning("%s: the cache, as of %s, cannot be brought up to %s and is dropped", self._name, *tids)
        return None

    def _is_in_log(self, tid: Tid) -> bool:
        """Tell whether a transaction is in the server's log; not if that cannot be walked."""
        try:
            walk: int = self._channel.call("iterator_start", (tid, tid), replies.number)
            found: replies.RecordedHead | None = self._channel.call("iterator_next", (walk,), replies.recorded_head)
        except (ServerError, StorageError, KeyError, TypeError, ValueError) as error:
            logger.info("%s: the server's log cannot be walked: %s", self._name, error)
            return False
        if found is None:
            return False
        self._channel.send(encode_one_way("iterator_gc", ([walk],)))
        return found.tid == tid
