"""A client that outlives its server: `python -m tests.crash.lane SHIFT HOST:PORT LANE`.

Each transaction writes its number to all objects of the lane, so that a part of one would show. After every loss the
client looks at what is there: exactly the last number that was acknowledged, or the one whose finish was in doubt. Its
lines of JSON tell how far it is and what was wrong.
"""

import sys
from dataclasses import dataclass, field

from tests.crash.client import OBJECTS, Metadata, oid_of
from tests.integration.crew import LIMIT_S, Shift
from zeo_client.storage import ClientStorage
from zeo_core.errors import ClientDisconnected, CommitInDoubtError, POSKeyError, StorageError
from zeo_core.ids import MAX_TID, ZERO_TID, Tid

__all__ = ["Tally"]


@dataclass
class Tally:
    turn: int = 0
    lost: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)


class Lane:
    """The objects of one client, and what it was told about them."""

    def __init__(self, storage: ClientStorage, number: int) -> None:
        self.tally = Tally()
        self._storage = storage
        self._number = number
        self._serial: Tid = ZERO_TID
        self._in_doubt: int | None = None

    def look(self) -> None:
        """Compare what is there with what was told."""
        found = {self._load(number) for number in range(OBJECTS)}
        turns = {turn for turn, _ in found}
        allowed = {self.tally.turn} if self._in_doubt is None else {self.tally.turn, self._in_doubt}
        if len(found) != 1 or not turns <= allowed:
            self.tally.wrong.append(f"lane {self._number} has {sorted(found)} where {allowed} may be")
        self.tally.turn, self._serial = max(found)
        self._in_doubt = None

    def commit(self) -> None:
        """Write the next number."""
        turn = self.tally.turn + 1
        transaction = Metadata()
        self._storage.tpc_begin(transaction)
        try:
            for number in range(OBJECTS):
                data = b"%d " % turn + b"x" * (turn * 997 % 6000)
                self._storage.store(oid_of(self._number, number), self._serial, data, "", transaction)
            self._storage.tpc_vote(transaction)
            self._serial = self._storage.tpc_finish(transaction)
        except CommitInDoubtError:
            self._in_doubt = turn
            raise
        finally:
            self._storage.tpc_abort(transaction)
        self.tally.turn = turn

    def _load(self, number: int) -> tuple[int, Tid]:
        try:
            revision = self._storage.load_before(oid_of(self._number, number), MAX_TID)
        except POSKeyError:
            return 0, ZERO_TID
        return (int(revision.data.split()[0]), revision.tid) if revision else (0, ZERO_TID)


def main() -> None:
    """Commit until the shift ends."""
    shift, number = Shift(sys.argv[1]), int(sys.argv[3])
    storage = ClientStorage(sys.argv[2], wait_timeout=LIMIT_S, reconnect_timeout=LIMIT_S)
    lane = Lane(storage, number)
    looked = False
    while shift or not looked:
        try:
            if not looked:
                lane.look()
                looked = True
            lane.commit()
        except (ClientDisconnected, CommitInDoubtError):
            lane.tally.lost += 1
            looked = False
        except StorageError as error:
            # Over the wire these are told by their words.
            if " bytes to store" in str(error):
                lane.tally.refused += 1
            elif "the server is stopping" in str(error):
                lane.tally.lost += 1
                looked = False
            else:
                raise
        shift.tell(number, lane.tally)
    storage.close()


if __name__ == "__main__":
    main()
