"""Walking the log of a storage on a server, by M5's calls: one round trip for each transaction and each object.

What the server keeps for a walk it forgets at the walk's end or with the connection. A walk that is dropped half way is
named to the server later, with the next call about walks: it is dropped by the garbage collector, in whichever thread,
perhaps one that is in the middle of sending.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from zeo_client import replies
from zeo_client.transport.channel import Channel
from zeo_core.ids import Tid
from zeo_core.transaction import RecordedObject, RecordedTransaction
from zeo_core.wire.codec import encode_one_way
from zeo_core.wire.methods import EXTENSION_BYTES

__all__ = ["RemoteLog"]

_StartArgs = tuple[Tid | None, Tid | None] | tuple[Tid | None, Tid | None, bool]


class _Dropped(NamedTuple):
    channel: Channel
    number: int


class RemoteLog:
    """The log; `channel` gives the connection to begin a walk on, `has` tells what the server has beyond M5."""

    def __init__(self, channel: Callable[[], Channel], has: Callable[[str], bool]) -> None:
        self._channel = channel
        self._has = has
        self._dropped: deque[_Dropped] = deque()

    def transactions(self, start: Tid | None = None, stop: Tid | None = None) -> Iterator[RecordedTransaction]:
        """Walk the transactions with start <= tid <= stop; the end is fixed here, at the call."""
        self.forget_dropped()
        channel = self._channel()
        return _Transactions(
            channel, (start, stop, True) if self._has(EXTENSION_BYTES) else (start, stop), self._dropped
        )

    def forget_dropped(self) -> None:
        """Have the server forget the walks that were dropped half way; ClientDisconnected if it is away."""
        numbers: dict[Channel, list[int]] = {}
        while self._dropped:
            channel, number = self._dropped.popleft()
            if channel.lost is None:
                numbers.setdefault(channel, []).append(number)
        for channel, dropped in numbers.items():
            channel.send(encode_one_way("iterator_gc", (dropped,)))


class _Walk:
    """A walk that the server keeps under a number."""

    def __init__(self, channel: Channel, number: int, dropped: deque[_Dropped]) -> None:
        self.channel = channel
        self.number = number
        self.ended = False
        self._dropped = dropped

    def __del__(self) -> None:
        if not self.ended:
            self._dropped.append(_Dropped(self.channel, self.number))


class _Transactions(Iterator[RecordedTransaction]):
    """A walk over transactions; ClientDisconnected when the connection on which it began is lost."""

    def __init__(self, channel: Channel, args: _StartArgs, dropped: deque[_Dropped]) -> None:
        number: int = channel.call("iterator_start", args, replies.number)
        self.walk = _Walk(channel, number, dropped)
        self.last: Tid | None = None
        self._dropped = dropped

    def __next__(self) -> RecordedTransaction:
        if self.walk.ended:
            raise StopIteration
        told: replies.RecordedHead | None = self.walk.channel.call(
            "iterator_next", (self.walk.number,), replies.recorded_head
        )
        if told is None:
            self.walk.ended = True
            self.last = None
            raise StopIteration
        self.last = told.tid
        return RecordedTransaction(told.tid, told.status, told.metadata, _Records(self, told.tid, self._dropped))


class _Records:
    """A transaction's objects, which may be walked more than once."""

    def __init__(self, transactions: _Transactions, tid: Tid, dropped: deque[_Dropped]) -> None:
        self._transactions = transactions
        self._tid = tid
        self._dropped = dropped

    def __iter__(self) -> Iterator[RecordedObject]:
        channel = self._transactions.walk.channel
        transactions = self._transactions
        if transactions.last != self._tid:  # the server knows the last one only
            transactions = _Transactions(channel, (self._tid, self._tid), self._dropped)
            next(transactions)
        number: int = channel.call("iterator_record_start", (transactions.walk.number, self._tid), replies.number)
        return _RecordsWalk(_Walk(channel, number, self._dropped))


class _RecordsWalk(Iterator[RecordedObject]):
    def __init__(self, walk: _Walk) -> None:
        self._walk = walk

    def __next__(self) -> RecordedObject:
        if self._walk.ended:
            raise StopIteration
        walk = self._walk
        record: RecordedObject | None = walk.channel.call("iterator_record_next", (walk.number,), replies.recorded)
        if record is None:
            walk.ended = True
            raise StopIteration
        return record
