"""What became of a transaction whose client lost the connection before it was told (lesson B14, invariant 8).

The client asks on its next connection, by the marker that it gave the transaction (`zeo_core.commit_marker`). The
marker stands in the log with the transaction, so the answer is the same after any number of restarts. Two things could
make it untrue later: a finish that is still on its way through the old connection, so a transaction that is open yet is
aborted before anything is answered; and one that is with the writer's thread, which is waited for.
"""

import asyncio
from collections.abc import Callable
from functools import partial

from zeo_core.commit_marker import is_marked
from zeo_core.errors import StorageError
from zeo_core.ids import ZERO_TID, Tid
from zeo_core.storage import ServedStorage
from zeo_server.commit.coordinator import Coordinator
from zeo_server.commit.phases import Phase
from zeo_server.commit.transaction import Answer
from zeo_server.storages.logged import LoggedStorage
from zeo_server.storages.relayed import RelayedStorage

__all__ = ["LOOK_EVERY_S", "InThread", "find_commit", "keeps_markers", "tell_outcome"]

LOOK_EVERY_S = 0.005
"""How often it is looked whether the writer is done with a transaction that somebody asks for."""

InThread = Callable[[Callable[[], object], Answer], None]
"""Has a thread call a function."""


def keeps_markers(storage: ServedStorage) -> bool:
    """Tell whether a storage's log gives extensions back to the byte, and so the markers: ours do."""
    return storage.link.keeps_markers() if isinstance(storage, RelayedStorage) else isinstance(storage, LoggedStorage)


def tell_outcome(coordinator: Coordinator, in_thread: InThread, marker: bytes, since: Tid, answer: Answer) -> None:
    """Have `answer` get the tid of the transaction that was given `marker`, None if it will never be committed."""
    for transaction in coordinator.transactions():
        if not is_marked(transaction.metadata.extension, marker):
            continue
        if transaction.phase is Phase.FINISHING:
            again = partial(tell_outcome, coordinator, in_thread, marker, since, answer)
            asyncio.get_running_loop().call_later(LOOK_EVERY_S, again)
            return
        coordinator.abort(transaction.member, transaction.id)
    in_thread(partial(find_commit, coordinator.storage, marker, since), answer)


def find_commit(storage: ServedStorage, marker: bytes, since: Tid) -> Tid | None:
    """Return the tid of a transaction by its marker, of those after `since`, None if there is none; for a thread.

    StorageError if `since` is no transaction of the log: a pack, or a restored backup, may have dropped later ones too.
    """
    if isinstance(storage, RelayedStorage):
        return storage.link.outcome(marker, since)
    walk = iter(storage.transactions(since))
    if since != ZERO_TID:
        first = next(walk, None)
        if first is None or first.tid != since:
            raise StorageError("the log has changed: what became of the transaction cannot be told")
    return next((entry.tid for entry in walk if is_marked(entry.metadata.extension, marker)), None)
