"""Which connections have something to send: they are written to together, right after the callback that queued it.

A commit is announced to every client. One callback of the loop for all of them costs less than one for each, and while
each has it ahead, the messages of a whole group of commits are joined to one write for each client. The order is that
of the first messages: others are told of a commit before its committer has its answer. So who hears of it from the
committer, by any other way, finds it told.
"""

import asyncio
import logging
from typing import Protocol

__all__ = ["Outgoing", "Sender"]

_log = logging.getLogger("ZEO.StorageServer")


class Sender(Protocol):
    """A connection."""

    def flush(self) -> None:
        """Write what is queued."""

    def abort(self) -> None:
        """Cut the connection."""


class Outgoing:
    """The connections of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._senders: list[Sender] = []

    def add(self, sender: Sender) -> None:
        """Have `sender.flush()` called soon, once for each time that it was added."""
        if not self._senders:
            self._loop.call_soon(self._flush)
        self._senders.append(sender)

    def _flush(self) -> None:
        senders, self._senders = self._senders, []
        for sender in senders:
            try:
                sender.flush()
            except Exception:  # noqa: BLE001 - not foreseen; the others are to be told all the same
                _log.error("cannot write to a connection", exc_info=True)
                sender.abort()
