"""A process that adds to one counter, commit after commit, and retries nothing.

    python -m tests.integration.hot_counter ADDRESS KEY COUNT

It fails with the first conflict that nobody resolves.
"""

import sys

import transaction
from persistent import Persistent

from zeo_client.db import DB
from zeo_client.storage import ClientStorage

__all__ = ["Tally", "main"]


class Tally(Persistent):
    """A counter of the application's own, which the server does not know."""

    def __init__(self) -> None:
        self.value = 0

    def change(self, number: int) -> None:
        """Add."""
        self.value += number

    def _p_resolveConflict(  # noqa: N802 - its name
        self, old: dict[str, int], committed: dict[str, int], new: dict[str, int]
    ) -> dict[str, int]:
        return {"value": committed["value"] + new["value"] - old["value"]}


def main(address: str, key: str, count: int) -> None:
    """Add `count` times 1."""
    with DB(ClientStorage(address)) as db:
        conn = db.open()
        for _ in range(count):
            conn.root()[key].change(1)
            transaction.commit()
        conn.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
