"""A bank: `python -m tests.integration.bank SHIFT URL ROLE SEED [ACKNOWLEDGED]` with the role "move" or "audit".

A customer has two accounts, either of which may be overdrawn as long as the two together are not: whoever takes money
from one has to ask that the other is current (readCurrent), or two tellers could each do what only one of them may.
Money only moves, so all accounts sum up to the same in every state that was ever committed.

A teller counts its transactions in the database, and writes the number of each that was acknowledged into a file: it
may be killed at any moment, and what it was told to be committed must be there.
"""

import contextlib
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from BTrees.IOBTree import IOBTree
from persistent import Persistent
from transaction import TransactionManager

import zeo_client
from tests.integration.crew import Shift
from zeo_client import ClientDisconnected, CommitInDoubtError, ConflictError, Connection

__all__ = ["ACCOUNTS", "TOTAL", "Account", "Tally", "Teller", "audit", "faults", "move", "prepare", "read_count"]

ACCOUNTS = 1_000
BALANCE = 100
TOTAL = ACCOUNTS * BALANCE

HOT_ACCOUNTS = 8
"""Half of all moves are between these, so that tellers meet."""

AUDIT_PAUSE_S = 0.02
"""Auditors rest so long between two audits: else they keep the processors from the tellers."""


class Account(Persistent):
    def __init__(self) -> None:
        self.balance = BALANCE


class Teller(Persistent):
    def __init__(self) -> None:
        self.moves = 0


@dataclass
class Tally:
    audited: int = 0
    moved: int = 0
    conflicts: int = 0
    lost: int = 0
    wrong: list[str] = field(default_factory=list)


def prepare(db: zeo_client.DB, tellers: int) -> None:
    """Make the accounts."""
    with db.transaction() as conn:
        conn.root()["accounts"] = IOBTree({number: Account() for number in range(ACCOUNTS)})
        conn.root()["tellers"] = [Teller() for _ in range(tellers)]


def faults(conn: Connection, balances: dict[int, int]) -> list[str]:
    """Return what is wrong with a whole set of balances."""
    wrong = []
    if sum(balances.values()) != TOTAL:
        wrong.append(f"the accounts sum up to {sum(balances.values())} in {conn!r}")
    overdrawn = [number for number in range(0, ACCOUNTS, 2) if balances[number] + balances[number + 1] < 0]
    if overdrawn:
        wrong.append(f"overdrawn: {overdrawn}")
    return wrong


def _account(choice: random.Random) -> int:
    return choice.randrange(HOT_ACCOUNTS if choice.random() < 0.5 else ACCOUNTS)


def _move_once(conn: Connection, choice: random.Random, seed: int) -> int:
    """Move money, and return the number of this teller's transaction."""
    accounts = conn.root()["accounts"]
    payer = _account(choice)
    payee = _account(choice)
    other = accounts[payer ^ 1]
    available = accounts[payer].balance + other.balance
    if available > 0 and payee != payer:
        conn.readCurrent(other)
        amount = choice.randint(1, available)  # often all there is: the rule is to be broken easily
        accounts[payer].balance -= amount
        accounts[payee].balance += amount
    teller = conn.root()["tellers"][seed]
    teller.moves += 1
    return int(teller.moves)


def move(db: zeo_client.DB, goes_on: Callable[[Tally], bool], seed: int, acknowledged: str) -> None:
    """Be the teller number `seed` for as long as `goes_on`, which is told how far it is, says so."""
    tally = Tally()
    choice = random.Random()
    manager = TransactionManager()
    conn = db.open(manager)
    with open(acknowledged, "ab") as count:
        while goes_on(tally):
            try:
                manager.begin()
                number = _move_once(conn, choice, seed)
                manager.commit()
                os.truncate(count.fileno(), number)  # one call, so that no kill leaves half a number
                tally.moved += 1
            except ConflictError:
                tally.conflicts += 1
            except (ClientDisconnected, CommitInDoubtError):
                tally.lost += 1
            finally:
                manager.abort()
    conn.close()


def read_count(acknowledged: str) -> int:
    """Return the number of the last transaction that a teller was told to be committed."""
    return os.path.getsize(acknowledged)


def audit(db: zeo_client.DB, goes_on: Callable[[Tally], bool], seed: int) -> None:
    """Look at the accounts in two connections at once, which see different states, in any order."""
    tally = Tally()
    choice = random.Random(seed)
    managers = [TransactionManager(), TransactionManager()]
    conns = [db.open(manager) for manager in managers]
    while goes_on(tally):
        time.sleep(AUDIT_PAUSE_S)
        order = choice.sample(range(ACCOUNTS), ACCOUNTS)
        old, new = choice.sample([0, 1], 2)
        try:
            managers[old].begin()
            balances = _look(conns[old], order[: ACCOUNTS // 2])
            managers[new].begin()
            tally.wrong += faults(conns[new], _look(conns[new], order))
            if choice.random() < 0.2:
                conns[old].cacheMinimize()
            balances.update(_look(conns[old], order[ACCOUNTS // 2 :]))
            tally.wrong += faults(conns[old], balances)
            tally.audited += 2
        except ClientDisconnected:
            tally.lost += 1
        except ConflictError:
            tally.conflicts += 1  # it has no revision of that time any more; never a wrong one
    for manager, conn in zip(managers, conns, strict=True):
        manager.abort()
        conn.close()


def _look(conn: Connection, order: list[int]) -> dict[int, int]:
    accounts = conn.root()["accounts"]
    return {number: accounts[number].balance for number in order}


def main() -> None:
    """Be one client until the shift ends."""
    shift, url, role, seed = Shift(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])

    def goes_on(tally: Tally) -> bool:
        shift.tell(seed, tally)
        return bool(shift)

    with contextlib.closing(zeo_client.open(url)) as db:
        if role == "move":
            move(db, goes_on, seed, sys.argv[5])
        else:
            audit(db, goes_on, seed)


if __name__ == "__main__":
    main()
