"""A program that outlives servers: `python -m tests.integration.survivor SHIFT URL NUMBER`.

Each of its threads adds 1 to a counter of its own and to one that all share, in one transaction, and counts how often
it was told that this was done. A commit that was done without being told, or twice, shows in the counters.
"""

import contextlib
import sys
import threading
import time
from dataclasses import dataclass

from BTrees.Length import Length
from persistent.mapping import PersistentMapping

import zeo_client
from tests.integration.crew import Shift
from zeo_client import CommitInDoubtError, Connection

__all__ = ["RECONNECT_TIMEOUT_S", "THREADS", "Tally", "prepare"]

THREADS = 4
RECONNECT_TIMEOUT_S = 30.0


@dataclass
class Tally:
    acknowledged: int = 0
    in_doubt: int = 0
    lost: int = 0
    longest_s: float = 0.0


def prepare(db: zeo_client.DB, clients: int) -> None:
    """Make the counters."""
    with db.transaction() as conn:
        conn.root()["all"] = Length()
        conn.root()["own"] = PersistentMapping()
        for number in range(clients * THREADS):
            conn.root()["own"][number] = Length()


def add(db: zeo_client.DB, shift: Shift, number: int) -> None:
    """Add 1 again and again; `longest_s` is how long a single attempt took at most."""
    tally = Tally()

    def one(conn: Connection) -> None:
        conn.root()["own"][number].change(1)
        conn.root()["all"].change(1)

    while shift:
        try:
            for attempt in db.transaction(attempts=10_000):
                began = time.monotonic()
                try:
                    with attempt as conn:
                        one(conn)
                finally:
                    tally.longest_s = max(tally.longest_s, time.monotonic() - began)
            tally.acknowledged += 1
        except CommitInDoubtError:
            tally.in_doubt += 1
        shift.tell(number, tally)


def main() -> None:
    """Add in several threads on one DB until the shift ends."""
    shift, url, first = Shift(sys.argv[1]), sys.argv[2], int(sys.argv[3]) * THREADS
    with contextlib.closing(zeo_client.open(url, wait_timeout=60, reconnect_timeout=RECONNECT_TIMEOUT_S)) as db:
        threads = [threading.Thread(target=add, args=(db, shift, first + number)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
