"""Turns, for servers that take one transaction a connection at a time: from its vote to its end."""

import threading

from zeo_client.staging import Staging

__all__ = ["LOOK_EVERY_S", "Turns"]

LOOK_EVERY_S = 0.05
"""How often one who waits looks whether the connection is still there: nobody else could tell it."""


class Turns:
    """Who may vote. A turn ends by `give`, or with the connection: the server has forgotten the transaction then."""

    def __init__(self) -> None:
        self._holder: Staging | None = None
        self._given = threading.Condition()

    def take(self, staging: Staging) -> None:
        """Wait for the transaction's turn; returns without one if its connection is lost, as its next call will say."""
        with self._given:
            while not self._is_free_for(staging):
                if staging.generation.lost is not None:
                    return
                self._given.wait(LOOK_EVERY_S)
            self._holder = staging

    def _is_free_for(self, staging: Staging) -> bool:
        holder = self._holder
        return holder is None or holder is staging or holder.generation.lost is not None

    def give(self, staging: Staging) -> None:
        """End the transaction's turn; harmless if it has none."""
        with self._given:
            if self._holder is staging:
                self._holder = None
                self._given.notify()
