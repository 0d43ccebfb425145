"""The asynchronous face: for programs whose own code runs in an asyncio event loop.

    import zeo_client.aio

    async with zeo_client.aio.open("zeo://127.0.0.1:9672") as db:
        total = await db.run(add, 5)  # add(conn, 5), in a worker thread, in a transaction, tried again on conflicts

Touching a persistent object may load it, at any dot, so code that uses objects cannot be code of the loop. It is in
plain functions, which run in worker threads; they and the network's waiting never hold up the loop.
docs/howto/asyncio.md tells what this can and cannot do.
"""

from zeo_client.aio.changes import Change, Changes
from zeo_client.aio.database import DB
from zeo_client.aio.opening import Opening, open  # noqa: A004 - as zeo_client.open
from zeo_client.aio.transaction import Block, Transaction, Transactions
from zeo_client.aio.workers import check_cancelled

__all__ = ["DB", "Block", "Change", "Changes", "Opening", "Transaction", "Transactions", "check_cancelled", "open"]
