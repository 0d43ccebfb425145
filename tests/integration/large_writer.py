"""A program that commits one large transaction: `python -m tests.integration.large_writer URL MEGABYTES HOW`.

HOW is `storage`, which gives the records to the storage, or `objects`, which makes persistent objects, with savepoints
in between so that they can leave the memory. One line of JSON tells by how many bytes the memory has grown at most.
"""

import json
import os
import sys

import transaction
from persistent import Persistent
from persistent.mapping import PersistentMapping

import zeo_client
from zeo_client.storage import ClientStorage
from zeo_core.ids import ZERO_TID

RECORD_BYTES = 10_000
A_SAVEPOINT = 200  # objects


class Filled(Persistent):
    def __init__(self) -> None:
        self.data = os.urandom(RECORD_BYTES)


class Transaction:
    def __init__(self) -> None:
        self.user, self.description = "", ""
        self.extension: dict[str, object] = {}


def memory_bytes(key: str) -> int:
    with open("/proc/self/status") as status:
        [line] = [line for line in status if line.startswith(key)]
    return int(line.split()[1]) * 1024


def give_records(storage: ClientStorage, count: int) -> None:
    """Commit so many records in one transaction."""
    began = Transaction()
    storage.tpc_begin(began)
    for _ in range(count):
        storage.store(storage.new_oid(), ZERO_TID, os.urandom(RECORD_BYTES), "", began)
    storage.tpc_vote(began)
    storage.tpc_finish(began)


def make_objects(db: zeo_client.DB, count: int) -> None:
    """Commit so many objects in one transaction."""
    conn = db.open()
    parts = conn.root()["parts"] = PersistentMapping()
    for start in range(0, count, A_SAVEPOINT):
        part = parts[start] = PersistentMapping()
        for number in range(A_SAVEPOINT):
            part[number] = Filled()
        transaction.savepoint(optimistic=True)
        conn.cacheMinimize()
    transaction.commit()
    conn.close()


def main() -> None:
    url, count, how = sys.argv[1], int(sys.argv[2]) * 1_000_000 // RECORD_BYTES, sys.argv[3]
    with zeo_client.open(url) as db:
        before = memory_bytes("VmRSS")
        if how == "storage":
            assert isinstance(db.storage, ClientStorage)
            give_records(db.storage, count)
        else:
            make_objects(db, count)
        print(json.dumps(memory_bytes("VmHWM") - before))


if __name__ == "__main__":
    main()
