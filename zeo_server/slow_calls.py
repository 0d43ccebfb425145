"""The slow calls of one connection: in threads, one after the other, so that none of them holds up the loop.

A connection has one of them running at a time. So what they share, an iterator say, needs no lock, and a client that
asks for many keeps one thread busy, not all of them. How many it may have waiting is the session's matter, which takes
no more from it then.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial

from zeo_server.commit.transaction import Answer

__all__ = ["SlowCalls"]

_Function = Callable[[], object]


class SlowCalls:
    """A line of calls; all methods are for the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, executor: Executor) -> None:
        self._loop = loop
        self._executor = executor
        self._waiting: deque[tuple[_Function, Answer]] = deque()
        self._running = False
        self._at_end: Callable[[], object] | None = None

    def add(self, function: _Function, answer: Answer) -> None:
        """Run `function` after all that were added before; `answer` gets what it returns or raises."""
        self._waiting.append((function, answer))
        self._start()

    def end(self, function: Callable[[], object]) -> None:
        """Forget the calls that wait, and call `function`, here in the loop, when the one that runs is done."""
        self._waiting.clear()
        self._at_end = function
        if not self._running:
            function()

    def _start(self) -> None:
        if self._waiting and not self._running:
            function, answer = self._waiting.popleft()
            self._running = True
            self._loop.run_in_executor(self._executor, function).add_done_callback(partial(self._done, answer))

    def _done(self, answer: Answer, future: "asyncio.Future[object]") -> None:
        self._running = False
        outcome = future.exception() or future.result()  # asked for in any case, or asyncio logs an error as unheard
        if self._at_end is not None:
            self._at_end()
            return
        self._start()
        answer(outcome)
