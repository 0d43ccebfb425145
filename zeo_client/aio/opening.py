"""`zeo_client.aio.open`: from the name of a place to a database, without blocking the loop."""

import os
from collections.abc import Callable, Generator, Mapping
from functools import partial
from types import TracebackType
from typing import Any

import zeo_client.db
import zeo_client.opening
from zeo_client.aio.database import DB, TRANSACTIONS, WORKERS
from zeo_client.aio.workers import Workers

__all__ = ["Opening", "open"]


class Opening:
    """A database that is about to be opened: `async with` it, or `await` it and close the DB later."""

    def __init__(self, opener: Callable[[], zeo_client.db.DB], workers: int, transactions: int) -> None:
        self._opener = opener
        self._workers = workers
        self._transactions = transactions
        self._db: DB | None = None

    def __await__(self) -> Generator[Any, None, DB]:
        return self._open().__await__()

    async def _open(self) -> DB:
        opened: list[DB] = []
        opener = Workers(1)
        try:
            await opener.run(lambda: opened.append(self._opened()))
        except BaseException:
            for db in opened:  # cancelled meanwhile
                await db.close()
            raise
        finally:
            opener.close(wait=False)
        return opened[0]

    def _opened(self) -> DB:
        return DB(self._opener(), workers=self._workers, transactions=self._transactions)

    async def __aenter__(self) -> DB:
        self._db = await self._open()
        return self._db

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._db is not None:
            await self._db.close()


def open(  # noqa: A001 - as zeo_client.open
    where: str | os.PathLike[str],
    *,
    workers: int = WORKERS,
    transactions: int = TRANSACTIONS,
    storage_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Opening:
    """Open the database at `where`, for `async with` or `await`.

    `where` and the options are those of `zeo_client.open`; `workers` and `transactions` those of `DB`; `pool_size` is
    the sum of these if it is not given. How long it waits for a server is the storage's `wait_timeout`, which a
    cancellation does not shorten.
    """
    options.setdefault("pool_size", workers + transactions)
    opener = partial(zeo_client.opening.open, where, storage_options=storage_options, **options)
    return Opening(opener, workers, transactions)
