"""The walks over a storage's log that one client has open, named by numbers as in ZEO's protocol.

A walk ends by itself, with the reply None, when the client says so, or with the connection. It may be held only by one
thread at a time, which `slow_calls` sees to.
"""

from collections.abc import Iterable, Iterator
from itertools import count

from zeo_core.commit_marker import unmarked
from zeo_core.errors import StorageError, UnknownIteratorError
from zeo_core.ids import Tid, tid_repr
from zeo_core.storage import Iterates
from zeo_core.transaction import RecordedObject, RecordedTransaction, extension_map
from zeo_server.limits import DEFAULT_LIMITS

__all__ = ["Iterators", "TransactionLine"]

TransactionLine = tuple[Tid, str, bytes, bytes, dict[str, object] | bytes]
"""A transaction as it travels: tid, status, user, description, extension."""


class _Walk:
    """A walk over transactions; `last` is the one that it came to last. `exact` ones give extensions as bytes."""

    def __init__(self, transactions: Iterator[RecordedTransaction], exact: bool) -> None:
        self.transactions = transactions
        self.exact = exact
        self.last: RecordedTransaction | None = None


class Iterators:
    """The open walks of one client, up to `most`."""

    def __init__(self, storage: Iterates, most: int = DEFAULT_LIMITS.iterators_max) -> None:
        self._storage = storage
        self._most = most
        self._numbers = count()
        self._walks: dict[int, _Walk] = {}
        self._records: dict[int, Iterator[RecordedObject]] = {}

    def __len__(self) -> int:
        """Return how many walks are open."""
        return len(self._walks) + len(self._records)

    def start(self, start: Tid | None, stop: Tid | None, *, exact: bool = False) -> int:
        """Begin a walk over the transactions with start <= tid <= stop, of those that there are now."""
        self._check_room()
        number = next(self._numbers)
        self._walks[number] = _Walk(self._storage.transactions(start, stop), exact)
        return number

    def next(self, number: int) -> TransactionLine | None:
        """Return the walk's next transaction, None at its end."""
        walk = self._walk(number)
        transaction = walk.last = next(walk.transactions, None)
        if transaction is None:
            del self._walks[number]
            return None
        metadata = transaction.metadata
        status = transaction.status.decode("latin-1")
        extension = unmarked(metadata.extension) if walk.exact else extension_map(metadata.extension)
        return transaction.tid, status, metadata.user, metadata.description, extension

    def record_start(self, number: int, tid: Tid) -> int:
        """Begin a walk over the objects of the transaction that a walk came to last, which must be `tid`."""
        last = self._walk(number).last
        if last is None or last.tid != tid:
            raise StorageError(f"iterator {number} does not stand at transaction {tid_repr(tid)}")
        self._check_room()
        own = next(self._numbers)
        self._records[own] = iter(last.records)
        return own

    def record_next(self, number: int) -> RecordedObject | None:
        """Return the next object, None at the end."""
        records = self._records.get(number)
        if records is None:
            raise UnknownIteratorError(number)
        record = next(records, None)
        if record is None:
            del self._records[number]
        return record

    def forget(self, numbers: Iterable[int]) -> None:
        """End walks; harmless for those that have ended."""
        for number in numbers:
            self._walks.pop(number, None)
            self._records.pop(number, None)

    def clear(self) -> None:
        """End all walks."""
        self._walks.clear()
        self._records.clear()

    def _walk(self, number: int) -> _Walk:
        walk = self._walks.get(number)
        if walk is None:
            raise UnknownIteratorError(number)
        return walk

    def _check_room(self) -> None:
        if len(self) >= self._most:
            raise StorageError(f"{self._most} iterators are open on this connection")
