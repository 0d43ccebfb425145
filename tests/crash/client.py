"""A program that commits through zeod for as long as it can: `python -m tests.crash.client HOST:PORT LANE`.

Each transaction writes its number to all objects of the lane, so that a part of one would show. It says a line for each
number that was acknowledged, and ends when the server is gone.
"""

import os
import sys

from zeo_client.storage import ClientStorage
from zeo_core.errors import ClientDisconnected, CommitInDoubtError, POSKeyError
from zeo_core.ids import MAX_TID, ZERO_TID, pack_id

OBJECTS = 4


class Metadata:
    """What the storage wants to know of a transaction."""

    user, description = "", ""

    def __init__(self) -> None:
        self.extension: dict[str, str] = {}


def oid_of(lane: int, number: int) -> bytes:
    """Return one of the lane's own objects."""
    return pack_id(1_000_000 + 100 * lane + number)


def last_turn(storage: ClientStorage, lane: int) -> tuple[int, bytes]:
    """Return the number that the lane's objects have, and its serial."""
    try:
        revision = storage.load_before(oid_of(lane, 0), MAX_TID)
    except POSKeyError:
        return 0, ZERO_TID
    return (int(revision.data.split()[0]), revision.tid) if revision else (0, ZERO_TID)


def main() -> None:
    """Commit until the server is gone."""
    lane = int(sys.argv[2])
    storage = ClientStorage(sys.argv[1], reconnect_timeout=0)
    turn, serial = last_turn(storage, lane)
    try:
        while True:
            turn += 1
            transaction = Metadata()
            storage.tpc_begin(transaction)
            for number in range(OBJECTS):
                data = b"%d " % turn + b"x" * (turn * 997 % 6000)
                storage.store(oid_of(lane, number), serial, data, "", transaction)
            storage.tpc_vote(transaction)
            serial = storage.tpc_finish(transaction)
            os.write(1, b"%d\n" % turn)
    except (ClientDisconnected, CommitInDoubtError):
        storage.close()


if __name__ == "__main__":
    main()
