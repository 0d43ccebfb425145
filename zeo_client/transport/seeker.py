"""Looks for a better server while a second-best one serves: in a thread of its own, on connections of its own.

A connection on which a server was asked is closed at once, whatever the answer: nothing that comes over it reaches the
cache, which one channel at a time may feed.
"""

import logging
import threading
from collections.abc import Callable, Sequence

from zeo_client.transport.address import Address
from zeo_client.transport.channel import Channel
from zeo_client.transport.dialling import Dialler
from zeo_client.transport.pauses import Pauses
from zeo_core.errors import ZeodError

__all__ = ["Seeker"]

logger = logging.getLogger(__name__)


class Seeker:
    """Asks server after server, whenever it is told to; `probe` raises if one is no better."""

    def __init__(
        self,
        dialler: Dialler,
        probe: Callable[[Channel], None],
        next_round: Callable[[float], Sequence[Address]],
        found: Callable[[Address], None],
        pauses: Pauses,
    ) -> None:
        """`dialler` makes the connections; their pushes are to be heard by nobody.

        `next_round` waits until there is something to look for, and for so many seconds, and returns the addresses to
        ask, none if the search is over for good; `found` is called with the first one that is better.
        """
        self._dialler = dialler
        self._probe = probe
        self._next_round = next_round
        self._found = found
        self._pauses = pauses
        self._thread = threading.Thread(target=self._run, name="zeod looks for a better server", daemon=True)

    def start(self) -> None:
        """Begin, in the background."""
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """End, with what it waits for. Any thread may, repeatedly."""
        self._dialler.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        pause_s = self._pauses.first_s
        while addresses := self._next_round(pause_s):
            better = next(filter(self._is_better, addresses), None)
            if better is None:
                pause_s = self._pauses.longer(pause_s)
            else:
                pause_s = self._pauses.first_s
                self._found(better)

    def _is_better(self, address: Address) -> bool:
        try:
            channel = self._dialler.dial(address)
            try:
                self._probe(channel)
            finally:
                channel.close()
        except (OSError, ValueError, ZeodError) as error:
            logger.debug("%s is no better: %s", address, error)
            return False
        except Exception:  # not foreseen; the search must go on all the same
            logger.exception("%s: cannot ask whether it is better", address)
            return False
        return True
