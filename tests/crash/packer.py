"""A program to be killed: commits to the Data.fs named by its argument and packs it over and over, both at once.

Each transaction gives its number to a pair of objects that the root leads to, and moves a third one in and out of use.
It says a line for each transaction that is committed. Run as `python -m tests.crash.packer Data.fs`.
"""

import os
import sys
import threading
import time

from tests.server.storages.file.graphs import commit, node
from zeo_core.errors import POSKeyError
from zeo_core.ids import pack_id
from zeo_core.record import references
from zeo_server.storages.file import FileStorage

PAIRS = 40


def turn_of(storage: FileStorage) -> int:
    """Return the number of the last transaction."""
    try:
        return int(storage.load(pack_id(0))[0].rpartition(b"turn ")[2].split(b" ")[0])
    except POSKeyError:
        return 0


def change(turn: int) -> dict[int, bytes]:
    """Return the objects of a turn; the root refers to the pairs, and every other turn to object 1000."""
    first = 1 + 2 * (turn % PAIRS)
    text = f"turn {turn} " + "x" * (turn * 997 % 3000)
    objects = {0: node(*range(1, 1 + 2 * PAIRS), *[1000] * (turn % 2), text=text)}
    objects |= {number: node(text=text) for number in (first, first + 1)}
    return objects


def pack_for_ever(storage: FileStorage) -> None:
    """Pack, up to a moment ago, for as long as the process lives."""
    while True:
        for _ in storage.pack_steps(time.time() - 0.01):
            pass


def main() -> None:
    """Commit until killed."""
    storage = FileStorage(sys.argv[1])
    turn = turn_of(storage)
    if not turn:
        first = {number: node(text="turn 0 ") for number in range(1, 1 + 2 * PAIRS)}
        turn = 1
        commit(storage, first | change(turn) | {1000: node(1001), 1001: node(text="precious")})
    threading.Thread(target=pack_for_ever, args=[storage], daemon=True).start()
    while True:
        turn += 1
        commit(storage, change(turn))
        os.write(1, b"%d\n" % turn)


def check(storage: FileStorage, acknowledged: int) -> None:
    """Assert that everything up to the acknowledged turn is there, at most one turn more, and no half of one."""
    turn = turn_of(storage)
    assert turn in (acknowledged, acknowledged + 1)
    root = storage.load(pack_id(0))[0]
    for oid in references(root):
        assert storage.load(oid)
    for number in range(1, 1 + 2 * PAIRS, 2):
        assert storage.load(pack_id(number))[0] == storage.load(pack_id(number + 1))[0]
    for last in range(max(2, turn - PAIRS + 1), turn + 1):
        for number, data in change(last).items():
            if number:
                assert storage.load(pack_id(number))[0] == data
    if turn % 2:
        assert storage.load(pack_id(1001))[0] == node(text="precious")


if __name__ == "__main__":
    main()
