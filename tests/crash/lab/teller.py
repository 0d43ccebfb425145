"""A client that reads and writes pairs of objects for a while and tells, a line for each transaction, what it saw.

Run as `python -m tests.crash.lab.teller URL NUMBER SECONDS [cache]`. With `cache`, the client's cache is broken on
purpose: it keeps what the server sent only when the next load comes, after the invalidations that came between.
"""

import json
import random
import sys
import time
from typing import Any

import transaction
from persistent.mapping import PersistentMapping

import zeo_client
from zeo_client.cache.memory import MemoryCache
from zeo_core.errors import CommitInDoubtError, ZeodError
from zeo_core.ids import Oid
from zeo_core.transaction import Revision

__all__ = ["NAMES", "prepare"]

NAMES = [f"object {number}" for number in range(6)]

_RECONNECT_S = 0.05


def prepare(db: zeo_client.DB) -> None:
    """Make the objects."""
    with db.transaction() as conn:
        for name in NAMES:
            conn.root()[name] = PersistentMapping(value=f"first {name}")


def _break_cache() -> None:
    store = MemoryCache.store
    waiting: list[tuple[Oid, Revision]] = []

    def late(self: MemoryCache, oid: Oid, revision: Revision) -> None:
        waiting.append((oid, revision))
        if len(waiting) > 2:
            store(self, *waiting.pop(0))

    MemoryCache.store = late  # type: ignore[method-assign]


def _transact(db: zeo_client.DB, label: str, chance: random.Random) -> dict[str, Any]:
    """Do one transaction, and return what is to be told of it."""
    told: dict[str, Any] = {"reads": {}, "writes": {}, "outcome": "refused", "tid": 0}
    manager = transaction.TransactionManager()
    conn = db.open(manager)
    try:
        conn.cacheMinimize()
        names = chance.sample(NAMES, 4)
        told["reads"] = {name: conn.root()[name]["value"] for name in names}
        changed = [conn.root()[name] for name in names[: chance.choice([0, 0, 1, 2])]]
        for name, item in zip(names, changed, strict=False):
            item["value"] = told["writes"][name] = f"{label} {name}"
        manager.commit()
        told["outcome"] = "committed"
        for item in changed:
            told["tid"] = int.from_bytes(item._p_serial, "big")  # 0 if it was replaced already
    except CommitInDoubtError:
        told["outcome"] = "unknown"
    except ZeodError:
        pass
    finally:
        manager.abort()
        conn.close()
    return told


def main() -> None:
    """Work, and tell."""
    url, number, seconds, *broken = sys.argv[1:]
    if "cache" in broken:
        _break_cache()
    chance = random.Random(int(number))
    count, end = 0, time.monotonic() + float(seconds)
    with zeo_client.open(url) as db:
        while time.monotonic() < end:
            count += 1
            told = _transact(db, f"{number}-{count}", chance)
            print(json.dumps(told | {"client": int(number)}), flush=True)
            if len(told["reads"]) < 4:
                time.sleep(_RECONNECT_S)  # the server is away


if __name__ == "__main__":
    main()
