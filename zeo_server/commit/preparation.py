"""What a vote does before it asks for locks: all that may wait for the disk, in threads.

In this order: what undoes transactions is found out; the spooled records are in their file; the blobs are on disk. What
can fail is to fail here (lesson B28), where it costs nobody else anything.
"""

import asyncio
from collections.abc import Callable
from functools import partial

from zeo_core.errors import StorageError
from zeo_core.ids import Oid
from zeo_core.storage import Loads, Undoes
from zeo_core.transaction import ObjectWrite
from zeo_server.commit.phases import ENDED
from zeo_server.commit.transaction import ServerTransaction
from zeo_server.commit.undoing import repeated_blobs, undo_writes
from zeo_server.commit.uploads import Uploads
from zeo_server.storages.relayed import RelayedStorage

__all__ = ["Preparation", "Then"]

Then = Callable[[ServerTransaction], None]
"""Goes on with the vote of a transaction, whose `error` says what went wrong, if anything did."""


class Preparation:
    """Prepares the votes on one storage. What happens to a transaction that ends meanwhile is undone here."""

    def __init__(self, storage: Loads, uploads: Uploads) -> None:
        self._storage = storage
        self._uploads = uploads

    def prepare(self, transaction: ServerTransaction, then: Then) -> None:
        """Prepare a vote, then call `then`, now or later; not for a transaction that has ended by then."""
        if transaction.undos and isinstance(self._storage, Undoes) and not isinstance(self._storage, RelayedStorage):
            work = partial(undo_writes, self._storage, transaction.undos, dict(transaction.writes))
            self._uploads.run(work).add_done_callback(partial(self._undone, transaction, then))
        else:
            self._complete_spool(transaction, then)

    def _undone(
        self, transaction: ServerTransaction, then: Then, future: asyncio.Future[dict[Oid, ObjectWrite]]
    ) -> None:
        error = future.exception()
        if transaction.phase in ENDED:
            return  # its client went away meanwhile
        if isinstance(error, Exception):
            transaction.doom(error)
        else:
            transaction.take_undone(future.result())
            transaction.blobs.update(repeated_blobs(self._storage, future.result()))
        self._complete_spool(transaction, then)

    def _complete_spool(self, transaction: ServerTransaction, then: Then) -> None:
        def completed(future: asyncio.Future[None]) -> None:
            error = future.exception()
            if transaction.phase in ENDED:
                return
            if error is not None:
                transaction.doom(error if isinstance(error, StorageError) else StorageError(str(error)))
            self._stage_blobs(transaction, then)

        if transaction.spool is None:
            self._stage_blobs(transaction, then)
        else:
            self._uploads.run(transaction.spool.complete).add_done_callback(completed)

    def _stage_blobs(self, transaction: ServerTransaction, then: Then) -> None:
        def staged() -> None:
            if transaction.phase in ENDED:
                self._uploads.end_of(transaction)
            else:
                then(transaction)

        if transaction.blobs and transaction.error is None and transaction.stage is None:
            self._uploads.stage(transaction, staged)
        else:
            then(transaction)
