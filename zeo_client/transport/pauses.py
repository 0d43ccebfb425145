"""How long to wait between attempts: each time longer, and never for exactly as long as others do."""

import random
from typing import NamedTuple

from zeo_core.errors import ConfigurationError

__all__ = ["BACKOFF", "SEEKING", "Pauses", "shortened"]


class Pauses(NamedTuple):
    """Pauses that double from the first to the longest.

    Each is shortened at random by up to a half, so that the clients of a server that comes back do not arrive all at
    once.
    """

    first_s: float
    longest_s: float

    def within(self, least_s: float | None, most_s: float | None) -> "Pauses":
        """Return pauses that are no shorter and no longer than that; None is no bound. ConfigurationError."""
        if any(bound is not None and bound < 0 for bound in (least_s, most_s)):
            raise ConfigurationError(f"disconnect polls of {least_s} and {most_s} seconds: they cannot be negative")
        if least_s is not None and most_s is not None and least_s > most_s:
            raise ConfigurationError(
                f"the least disconnect poll, {least_s:g} s, is longer than the longest, {most_s:g} s"
            )
        least = self.first_s if least_s is None else least_s
        most = max(self.longest_s, least) if most_s is None else most_s
        return Pauses(min(least, most), most)

    def longer(self, pause_s: float) -> float:
        """Return the pause after one of `pause_s` seconds."""
        return min(pause_s * 2, self.longest_s)


BACKOFF = Pauses(0.05, 1.0)
"""Between attempts to connect. A call waits some seconds for a server that is restarted: longer ones would use them
up."""

SEEKING = Pauses(1.0, 10.0)
"""Between looks for a better server, while one serves."""


def shortened(pause_s: float) -> float:
    """Return a pause of up to `pause_s` seconds, and at least half of it."""
    return pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter needs no secrecy
