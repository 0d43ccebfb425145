"""A transaction that lasts for an `async with` block, whose steps run in worker threads."""

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TypeVar, TypeVarTuple

from zeo_client.aio.workers import Workers, check_cancelled
from zeo_client.attempts import Attempt, Attempts
from zeo_client.connection import Connection
from zeo_core.errors import ConnectionStateError

__all__ = ["Block", "Transaction", "Transactions"]

_Result = TypeVar("_Result")
_Arguments = TypeVarTuple("_Arguments")


class Transaction:
    """A transaction that is open: what a block has."""

    def __init__(self, connection: Connection, workers: Workers) -> None:
        self._connection = connection
        self._workers = workers
        self._turn = asyncio.Lock()  # a connection is for one thread at a time
        self._torn = False
        self._over = False

    async def call(self, function: Callable[[Connection, *_Arguments], _Result], *args: *_Arguments) -> _Result:
        """Call `function(connection, *args)` in a worker thread, and return what it returns: no persistent objects.

        Calls of several tasks take turns. A call that is cancelled comes back when the function has ended; the
        transaction cannot be committed any more then, since nobody knows how far the function came.
        ConnectionStateError after the block's end.
        """
        async with self._turn:
            if self._over:
                raise ConnectionStateError("the transaction is over: the block that it was for has ended")
            try:
                return await self._workers.run(function, self._connection, *args)
            except asyncio.CancelledError:
                self._torn = True
                raise

    async def end(self, finish: Callable[[BaseException | None], bool], error: BaseException | None) -> bool:
        """Call `finish` in a worker thread, after the calls that are under way; for the block, at its end.

        With the block's error, or the cancellation that came meanwhile.
        """
        self._over = True
        cancelled = await self._last_turn()
        try:
            outcome = await self._workers.run(self._finish, finish, error or cancelled, in_any_case=True)
        finally:
            self._turn.release()  # to those who are to be told that it is over
        if cancelled is not None:
            raise cancelled
        return outcome

    async def _last_turn(self) -> asyncio.CancelledError | None:
        """Wait for the call that is under way, whatever happens to this task; return its cancellation."""
        cancelled = None
        while True:
            try:
                await self._turn.acquire()
            except asyncio.CancelledError as error:
                cancelled = error
            else:
                return cancelled

    def _finish(self, finish: Callable[[BaseException | None], bool], error: BaseException | None) -> bool:
        if error is None:
            try:
                check_cancelled()
            except asyncio.CancelledError as cancelled:
                error = cancelled
            if self._torn:
                self._connection.transaction_manager.doom()
        return finish(error)


class Block:
    """`async with block as transaction`: committed at its end, aborted if an exception leaves it or it is cancelled.

    Cancelled while it commits, the commit goes to its end first, one way or the other.
    """

    def __init__(self, attempt: Attempt, workers: Workers, places: asyncio.Semaphore) -> None:
        self._attempt = attempt
        self._workers = workers
        self._places = places
        self._transaction: Transaction | None = None

    async def __aenter__(self) -> Transaction:
        await self._places.acquire()
        begun: list[Connection] = []
        try:
            await self._workers.run(lambda: begun.append(self._attempt.__enter__()))
        except BaseException as error:
            try:
                if begun:
                    await self._workers.run(self._finish, error, in_any_case=True)
            finally:
                self._places.release()
            raise
        self._transaction = Transaction(begun[0], self._workers)
        return self._transaction

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._transaction is None:
            return False
        try:
            return await self._transaction.end(self._finish, error)
        finally:
            self._places.release()

    def _finish(self, error: BaseException | None) -> bool:
        return self._attempt.__exit__(None if error is None else type(error), error, None)


class Transactions:
    """A transaction to be made, in one of two ways.

    - `async with db.transaction() as t:`, the block of one transaction;
    - `async for block in db.transaction(attempts=5): async with block as t:`, which runs until it is committed.
    """

    def __init__(self, attempts: Attempts, number: int | None, workers: Workers, places: asyncio.Semaphore) -> None:
        self._attempts = attempts
        self._number = number
        self._workers = workers
        self._places = places
        self._single: Block | None = None

    async def __aenter__(self) -> Transaction:
        if self._number not in (None, 1):
            raise TypeError(
                "an async with block cannot run twice; to try again, write"
                " `async for block in db.transaction(attempts=...): async with block as t:`, or await db.run(function)"
            )
        if self._single is not None:
            raise TypeError("this transaction has been used; call db.transaction() for each")
        self._single = self._block(Attempt(self._attempts, is_last=True))
        return await self._single.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._single is not None:
            await self._single.__aexit__(kind, error, traceback)

    async def __aiter__(self) -> AsyncIterator[Block]:
        for wait_s, attempt in self._attempts.tries():
            await asyncio.sleep(wait_s)
            yield self._block(attempt)

    def _block(self, attempt: Attempt) -> Block:
        return Block(attempt, self._workers, self._places)
