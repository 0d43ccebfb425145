"""Answers that take many turns of the loop: one after the other, and no faster than the client reads them."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

__all__ = ["LongAnswers"]

Asked = TypeVar("Asked")


class LongAnswers(Generic[Asked]):
    """What one client has asked for and waits for. All methods are called in the server's loop."""

    def __init__(self, give: Callable[[Asked], Awaitable[None]], takes_more: Callable[[], bool]) -> None:
        """Have `give` answer, which awaits `room` when it should; `takes_more` tells whether the client reads."""
        self._give = give
        self._takes_more = takes_more
        self._asked: deque[Asked] = deque()
        self._task: asyncio.Task[None] | None = None
        self._resumed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._asked)

    def add(self, asked: Asked) -> None:
        """Have it answered, behind what was asked for before."""
        self._asked.append(asked)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def room(self) -> None:
        """Wait until the client has read what it was sent, or most of it."""
        while not self._takes_more():
            self._resumed.clear()
            await self._resumed.wait()

    def resume(self) -> None:
        """Go on: the client takes more."""
        self._resumed.set()

    def close(self) -> None:
        """Answer no more: the connection has ended."""
        self._asked.clear()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            while self._asked:
                await self._give(self._asked.popleft())
        finally:
            self._task = None
