"""A program that races others: `python -m tests.integration.racer SHIFT URL ROLE SEED`.

The database has two counters and a phase; every transaction of a writer changes one counter and the phase, so that in
every state that was ever committed `one - two == phase`. Two counters that always change together would not show a
skipped invalidation: here the three objects of a snapshot come from different transactions (lesson B3).

Lines of JSON tell how many snapshots were checked, how many commits were acknowledged or left in doubt, and what was
wrong.
"""

import contextlib
import random
import sys
import threading
import time
from dataclasses import dataclass, field

from persistent import Persistent
from transaction import TransactionManager

import zeo_client
from tests.integration.crew import Shift
from zeo_client import ClientDisconnected, CommitInDoubtError, ConflictError, Connection

__all__ = ["Number", "Tally", "open_db", "prepare", "read", "write"]

THREADS = 2

PAUSE_S = 0.003
"""Readers rest up to this long between two looks: else they keep the processors from the writers, and see the same
state again and again."""


class Number(Persistent):
    def __init__(self, value: int) -> None:
        self.value = value


@dataclass
class Tally:
    checked: int = 0
    committed: int = 0
    in_doubt: int = 0
    lost: int = 0
    wrong: list[str] = field(default_factory=list)


def prepare(db: zeo_client.DB) -> None:
    """Make the objects."""
    with db.transaction() as conn:
        for name in ("one", "two", "phase"):
            conn.root()[name] = Number(0)


def check(conn: Connection, choice: random.Random, tally: Tally) -> None:
    """Look at one snapshot, the objects in any order, some of them twice and loaded again."""
    names = ["one", "two", "phase"]
    choice.shuffle(names)
    numbers = {name: conn.root()[name] for name in names}
    values = {name: number.value for name, number in numbers.items()}
    if choice.random() < 0.3:
        conn.cacheMinimize()
    again = {name: number.value for name, number in numbers.items()}
    serials = {name: number._p_serial.hex() for name, number in numbers.items()}
    if values["one"] - values["two"] != values["phase"] or again != values:
        tally.wrong.append(f"{values} and again {again}, serials {serials}")
    tally.checked += 1


def read(db: zeo_client.DB, shift: Shift, seed: int) -> None:
    """Check snapshots, over connections that are opened, used for a while and put back."""
    tally = Tally()
    choice = random.Random(seed)
    while shift:
        manager = TransactionManager()
        conn = db.open(manager)
        for _ in range(choice.randrange(1, 30)):
            time.sleep(choice.random() * PAUSE_S)
            try:
                manager.begin()
                check(conn, choice, tally)
            except ClientDisconnected:
                tally.lost += 1
            except ConflictError:
                pass  # it has no revision of that time any more; never a wrong one
            finally:
                manager.abort()
        conn.close()
        shift.tell(seed, tally)


def write(db: zeo_client.DB, shift: Shift, seed: int) -> None:
    """Change one counter and the phase in each transaction, checking the state that it starts from."""
    tally = Tally()
    choice = random.Random(seed)
    manager = TransactionManager()
    conn = db.open(manager)
    while shift:
        try:
            manager.begin()
            check(conn, choice, tally)
            phase = conn.root()["phase"]
            step = choice.choice((-1, 1)) if phase.value == 0 else -phase.value
            if choice.random() < 0.5:
                conn.root()["one"].value += step
            else:
                conn.root()["two"].value -= step
            phase.value += step
            manager.commit()
            tally.committed += 1
        except CommitInDoubtError:
            tally.in_doubt += 1
        except ClientDisconnected:
            tally.lost += 1
        except ConflictError:
            pass
        finally:
            manager.abort()
        shift.tell(seed, tally)
    conn.close()


def open_db(url: str) -> zeo_client.DB:
    """Open the database; the first connections may be cut like any other."""
    while True:
        with contextlib.suppress(ClientDisconnected):
            return zeo_client.open(url, wait_timeout=30, reconnect_timeout=10)


def main() -> None:
    """Run in two threads on one DB until the shift ends."""
    shift, url, role, seed = Shift(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    with contextlib.closing(open_db(url)) as db:
        target = {"read": read, "write": write}[role]
        threads = [threading.Thread(target=target, args=(db, shift, seed + number)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
