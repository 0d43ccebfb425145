"""Looking at a socket again and again for a moment, before a thread goes to sleep on it.

Most of a short round trip is the waking of sleeping threads: with two idle processors, 20 to 150 us of it on each side,
where reading and answering a load takes 20. A thread that looks again instead of sleeping has no waking to be waited
for. That pays only if the answer comes soon, so a spin watches its own success: after some misses in a row it lets the
thread sleep at once, and tries again only now and then. Between two looks it offers its processor to others, since the
one whose answer it waits for may be among them. If others take it, there is no processor to spare, and the spin counts
as one that does not pay.
"""

import os
import socket
from collections.abc import Callable
from time import perf_counter

from zeo_client.transport.tls import TLSSocket

__all__ = ["MISSES_MAX", "RETRY_EVERY", "TAKEN_S", "WINDOW_S", "Spin"]

WINDOW_S = 150e-6
"""How long to look: a load's round trip on one machine, or across a fast network, with its server's waking."""

MISSES_MAX = 4
"""Misses in a row after which it is not worth while."""

TAKEN_S = 40e-6
"""A look and an offer of the processor that take longer: somebody has taken it, and has a better use for it."""

RETRY_EVERY = 64
"""Every so many reads it is tried all the same: the server may have become faster, or the processors less busy."""


class Spin:
    """One socket's; used by the thread that reads from it. It needs several `processors` to be worth while."""

    __slots__ = ("_clock", "_misses", "_reads", "_recv", "_worth_while")

    def __init__(
        self,
        sock: socket.socket | TLSSocket,
        processors: int | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._recv = sock.recv
        self._clock = clock
        self._reads = 0
        self._misses = 0
        # On one processor, looking again only keeps the server from it.
        self._worth_while = (processors or len(os.sched_getaffinity(0))) > 1

    def receive(self, max_bytes: int) -> bytes | None:
        """Return what arrives in a moment, b"" at the stream's end; None if it is better to sleep. OSError."""
        self._reads += 1
        if not self._worth_while or (self._misses >= MISSES_MAX and self._reads % RETRY_EVERY):
            return None
        recv, clock = self._recv, self._clock
        now = clock()
        deadline = now + WINDOW_S
        while True:
            try:
                data = recv(max_bytes, socket.MSG_DONTWAIT)
            except BlockingIOError:
                before, now = now, clock()
                if now - before > TAKEN_S:
                    self._misses = MISSES_MAX
                    return None
                if now > deadline:
                    self._misses += 1
                    return None
                os.sched_yield()
            else:
                self._misses = 0
                return data
