"""What many clients did, and whether all of it together is what snapshot isolation and durability allow.

Each value that is written is written only once, so a value that was read tells which transaction wrote it, and from
when to when it was the current one. Of every transaction then

- all that it read must have been current at one and the same time: its snapshot;
- that time is not before the snapshot of the same client's last transaction, nor before its last commit;
- what it wrote must have followed on what it read: nobody else's change is lost in between;
- if it was confirmed, it is in the log, whole; if it was refused, nothing of it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Committed", "Transaction", "judge"]

_LAST = 1 << 64


@dataclass(frozen=True)
class Transaction:
    """What a client says of one: values by the names of objects. `tid` is what a confirmed one was given, if known."""

    client: int
    reads: Mapping[str, str]
    writes: Mapping[str, str] = field(default_factory=dict)
    outcome: Literal["committed", "refused", "unknown"] = "refused"
    tid: int = 0


@dataclass(frozen=True)
class Committed:
    """A transaction in the log."""

    tid: int
    writes: Mapping[str, str]


class _Log:
    """From when to when each value was the current one."""

    def __init__(self, log: Iterable[Committed]) -> None:
        self.transactions = sorted(log, key=lambda committed: committed.tid)
        self._written: dict[tuple[str, str], int] = {}
        self._replaced: dict[tuple[str, str], int] = {}
        current: dict[str, str] = {}
        for committed in self.transactions:
            for name, value in committed.writes.items():
                if name in current:
                    self._replaced[name, current[name]] = committed.tid
                current[name] = value
                self._written[name, value] = committed.tid

    def span(self, name: str, value: str) -> tuple[int, int] | None:
        """Return when a value became the current one, and when it was replaced; None if it was never committed."""
        written = self._written.get((name, value))
        return None if written is None else (written, self._replaced.get((name, value), _LAST))


def judge(log: Iterable[Committed], told: Iterable[Transaction]) -> list[str]:
    """Return what is wrong; `told` has the transactions of each client in their order."""
    order = _Log(log)
    by_tid = {committed.tid: committed for committed in order.transactions}
    by_value = {item: each.tid for each in order.transactions for item in each.writes.items()}
    wrong: list[str] = []
    floor: dict[int, int] = {}  # of each client's next snapshot
    for transaction in told:
        snapshot = _snapshot(order, transaction, wrong)
        if snapshot is not None:
            earliest, end = snapshot
            if end <= floor.get(transaction.client, 0):
                wrong.append(f"{transaction}: its snapshot is older than the client's last one, or its own commit")
            floor[transaction.client] = max(floor.get(transaction.client, 0), earliest)
        if transaction.outcome == "committed":
            floor[transaction.client] = max(floor.get(transaction.client, 0), transaction.tid)
        wrong += _durability(transaction, by_tid, by_value)
        wrong += _lost_updates(order, transaction, by_value)
    return wrong


def _snapshot(order: _Log, transaction: Transaction, wrong: list[str]) -> tuple[int, int] | None:
    """Return from when to before when all was current that a transaction read."""
    start, end = 0, _LAST
    for name, value in transaction.reads.items():
        span = order.span(name, value)
        if span is None:
            wrong.append(f"{transaction}: {name} had the value {value}, which was never committed")
            return None
        start, end = max(start, span[0]), min(end, span[1])
    if start >= end:
        wrong.append(f"{transaction}: what it read was never current at one time")
        return None
    return start, end


def _durability(
    transaction: Transaction, by_tid: Mapping[int, Committed], by_value: Mapping[tuple[str, str], int]
) -> list[str]:
    found = {by_value.get(item) for item in transaction.writes.items()}
    if transaction.outcome == "committed" and transaction.writes:
        tid = transaction.tid or next(iter(found)) or 0
        committed = by_tid.get(tid)
        if committed is None or committed.writes != transaction.writes:
            return [f"{transaction}: was confirmed, and the log has {committed} there"]
    elif transaction.outcome == "refused":
        if found - {None}:
            return [f"{transaction}: was refused, and the log has something of it"]
    elif len(found) > 1:
        return [f"{transaction}: a part of it is in the log"]
    return []


def _lost_updates(order: _Log, transaction: Transaction, by_value: Mapping[tuple[str, str], int]) -> list[str]:
    wrong = []
    for name, value in transaction.writes.items():
        tid = by_value.get((name, value))
        span = order.span(name, transaction.reads[name]) if name in transaction.reads else None
        if tid is not None and span is not None and span[1] != tid:
            wrong.append(f"{transaction}: {name} was changed by somebody between its reading and its writing")
    return wrong
