"""What a server tells on a new connection about the time since the last one, and whether it can be relied on."""

import logging
from collections.abc import Sequence

from zeo_client import replies
from zeo_client.transport.channel import Channel
from zeo_core.ids import Oid, Tid, tid_repr

__all__ = ["ServerChanges"]

logger = logging.getLogger(__name__)


class ServerChanges:
    """Asks the server what changed since a tid; a cache that is known up to there forgets it, and is current again.

    `server_tid` is the last transaction as the connection was registered, `name` the storage's for the log. Every tid
    is asked for once, however many caches are known up to it.
    """

    def __init__(self, channel: Channel, server_tid: Tid, name: str) -> None:
        self._channel = channel
        self._server_tid = server_tid
        self._name = name
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
        if answer is not None and answer[0] >= self._server_tid:
            return answer
        tids = tid_repr(known), tid_repr(self._server_tid)
        logger.warning("%s: the cache, as of %s, cannot be brought up to %s and is dropped", self._name, *tids)
        return None
