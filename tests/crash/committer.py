"""A program to be killed: commits groups to the Data.fs named by its argument and says so, one line a group.

Each transaction writes its number to all objects, so that a part of one would show. Run as
`python -m tests.crash.committer Data.fs`.
"""

import os
import sys

from zeo_core.ids import ZERO_TID, pack_id
from zeo_core.transaction import ObjectWrite, PreparedTransaction, TransactionMetadata
from zeo_server.storages.file import FileStorage

LANES = 3
OBJECTS = 4


def oid_of(lane: int, number: int) -> bytes:
    """Return an object's oid; a group has one transaction for each lane, since they must not share objects."""
    return pack_id(1 + lane * 70_000 + number)


def transaction(lane: int, turn: int) -> PreparedTransaction:
    """Return the transaction of a turn: the turn's number in all objects of the lane, in records of changing sizes."""
    data = b"%d " % turn + b"x" * (turn * 997 % 6000)
    writes = tuple(ObjectWrite(oid_of(lane, number), ZERO_TID, data) for number in range(OBJECTS))
    return PreparedTransaction(TransactionMetadata(b"lane %d" % lane), writes)


def main() -> None:
    """Commit until killed."""
    storage = FileStorage(sys.argv[1])
    turn = 0
    # A kill may have left a part of a group, whole transactions: the group is then done once more.
    if len(storage):
        turn = min(int(storage.load(oid_of(lane, 0))[0].split()[0]) for lane in range(LANES))
    while True:
        turn += 1
        storage.publish(storage.write_group([transaction(lane, turn) for lane in range(LANES)]))
        os.write(1, b"%d\n" % turn)


if __name__ == "__main__":
    main()
