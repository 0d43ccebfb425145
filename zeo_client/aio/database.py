"""A DB for asyncio programs: a synchronous DB, worker threads for what uses its objects, and the order of closing."""

import asyncio
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeVar, TypeVarTuple, cast

import zeo_client.db
from zeo_client.aio.changes import Changes
from zeo_client.aio.transaction import Transactions
from zeo_client.aio.workers import Workers, check_cancelled
from zeo_client.attempts import DEFAULT_ATTEMPTS, Attempt, Attempts
from zeo_client.connection import Connection
from zeo_core.errors import ConnectionStateError

__all__ = ["DB", "TRANSACTIONS", "WORKERS"]

_Result = TypeVar("_Result")
_Arguments = TypeVarTuple("_Arguments")

WORKERS: Final = 8
"""Threads that wait for a server most of the time; more of them compute no faster."""

TRANSACTIONS: Final = 32


class DB:
    """The objects of one storage, for the tasks of one event loop.

    `database` is the synchronous DB that all is done with. Up to `workers` threads run what uses objects, and up to
    `transactions` blocks of `transaction()` are open at a time; further ones wait for their turn. `database`'s
    pool_size is best the sum of both, which is what `zeo_client.aio.open` makes it.
    """

    def __init__(self, database: zeo_client.db.DB, *, workers: int = WORKERS, transactions: int = TRANSACTIONS) -> None:
        if transactions < 1:
            raise ValueError(f"transactions must be at least 1, not {transactions}")
        self.database = database
        self._workers = Workers(workers)
        self._places = asyncio.Semaphore(transactions)
        self._changes: weakref.WeakSet[Changes] = weakref.WeakSet()
        self._closed = False

    def __repr__(self) -> str:
        return f"<zeo_client.aio.DB {self.database.database_name!r} on {self.database.getName()}>"

    async def run(
        self,
        function: Callable[[Connection, *_Arguments], _Result],
        *args: *_Arguments,
        attempts: int = DEFAULT_ATTEMPTS,
        note: str | None = None,
        user: str | None = None,
        extension: Mapping[str, Any] | None = None,
    ) -> _Result:
        """Call `function(connection, *args)` in a worker thread, commit, and return what it returned.

        After a conflict it is called again, up to `attempts` times in all; no thread is held in the pauses between. So
        all that it does is to be in the database, and what it returns should not be persistent objects.

        If this task is cancelled, nothing is committed, unless the commit is under way, which goes to its end first.
        CancelledError comes out when the function has ended; one that takes long can ask `check_cancelled`.
        """
        result: _Result | None = None
        for wait_s, attempt in Attempts(self.database, attempts, note, user, extension).tries():
            if wait_s:
                await asyncio.sleep(wait_s)
            result = await self._workers.run(_attempted, attempt, function, args)
        return cast(_Result, result)

    def transaction(
        self,
        note: str | None = None,
        *,
        attempts: int | None = None,
        user: str | None = None,
        extension: Mapping[str, Any] | None = None,
    ) -> Transactions:
        """Make a transaction of several steps: `async with db.transaction() as t: await t.call(function, ...)`.

        Other things may be awaited between the steps. It is committed at the end of the block, aborted if an exception
        leaves it. To try again: `async for block in db.transaction(attempts=5): async with block as t:`.
        """
        described = Attempts(self.database, attempts, note, user, extension)
        return Transactions(described, attempts, self._workers, self._places)

    async def call(self, function: Callable[[zeo_client.db.DB, *_Arguments], _Result], *args: *_Arguments) -> _Result:
        """Call `function(database, *args)` in a worker thread, outside of transactions: DB.pack, DB.undoLog, ..."""
        return await self._workers.run(function, self.database, *args)

    def changes(self) -> Changes:
        """Return an asynchronous iterator of what is committed from now on, here and by other clients."""
        if self._closed:
            raise ConnectionStateError(f"{self!r} is closed")
        changes = Changes(self.database.hub)
        self._changes.add(changes)
        return changes

    async def close(self) -> None:
        """End the iterators of changes, wait for the functions that run, close the database. Harmless when repeated.

        Blocks that are still open lose their changes: their end raises ConnectionStateError.
        """
        self._closed = True
        for changes in list(self._changes):
            changes.close()
        # Not one of the workers, for which it waits; shielded, for a database half closed is of no use to anybody.
        await asyncio.shield(asyncio.to_thread(self._close))

    def _close(self) -> None:
        self._workers.close()
        self.database.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def _attempted(
    attempt: Attempt, function: Callable[[Connection, *_Arguments], _Result], args: tuple[*_Arguments]
) -> _Result | None:
    """Make one attempt, which says itself whether another is to follow; in a worker thread."""
    with attempt as connection:
        check_cancelled()
        result = function(connection, *args)
        check_cancelled()
        return result
    return None
