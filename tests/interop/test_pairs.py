"""Each way to a database writes what every other reads, changes, undoes and packs: ZODB's DB and ours, both clients."""

import itertools
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from BTrees.Length import Length
from BTrees.OOBTree import OOBTree
from transaction import TransactionManager

from tests.fixtures_zeod import StartZeod
from tests.interop.ways import WAYS, House, Way, change, check, pack, undo, write

Pair = tuple[Way, Way]


def parameters(pairs: list[Pair], quick: list[Pair]) -> list[Any]:
    """Return test parameters: all pairs, those that are not `quick` for the slow suite."""
    return [pytest.param(*pair, marks=[] if pair in quick else pytest.mark.slow) for pair in pairs]


PAIRS = [(one, other) for one, other in itertools.product(WAYS, WAYS) if one != other]
RING = [*zip(WAYS, [*WAYS[3:], *WAYS[:3]], strict=True), (WAYS[0], WAYS[4]), (WAYS[4], WAYS[0])]
"""Each way once as the writer and once as the reader of the other layer's; and all of ZEO's with all of ours."""


@pytest.fixture
def house(tmp_path: Path, start_zeod: StartZeod) -> House:
    return House(tmp_path, start_zeod)


@pytest.mark.parametrize(("writer", "reader"), parameters(PAIRS, RING), ids=lambda way: f"({way})")
def test_one_goes_on_with_what_the_other_wrote(house: House, writer: Way, reader: Way) -> None:
    with house.open(writer) as databases:
        write(databases)
        check(databases, changed=False)
    with house.open(reader) as databases:
        check(databases, changed=False)
        change(databases)
        check(databases, changed=True)
    with house.open(writer) as databases:
        check(databases, changed=True)
        undo(databases)
        check(databases, changed=False)
    with house.open(reader) as databases:
        check(databases, changed=False)
        pack(databases)
        check(databases, changed=False)
    with house.open(writer) as databases:
        check(databases, changed=False)
        change(databases)
    with house.open(reader) as databases:
        undo(databases)
        check(databases, changed=False)


def await_length(manager: TransactionManager, conn: Any, length: int) -> None:
    """Begin transactions until the other's last commit has arrived."""
    deadline = time.monotonic() + 20
    manager.begin()
    while "length" not in conn.root() or conn.root()["length"]() != length:
        assert time.monotonic() < deadline
        time.sleep(0.002)
        manager.begin()


AT_ONCE = [
    (one, other) for one, other in itertools.product(WAYS, WAYS) if one == other or (one.served and other.served)
]


TOGETHER = [(way, way) for way in WAYS] + [(WAYS[0], WAYS[4])]


@pytest.mark.parametrize(("first", "second"), parameters(AT_ONCE, TOGETHER), ids=lambda way: f"({way})")
def test_conflicts_are_resolved_between_them(house: House, first: Way, second: Way) -> None:
    with ExitStack() as stack:
        one = stack.enter_context(house.open(first))
        other = one if first == second else stack.enter_context(house.open(second))
        with one.transaction() as conn:
            conn.root()["tree"] = OOBTree({number: number for number in range(10)})
            conn.root()["length"] = Length(0)
        managers = [TransactionManager(), TransactionManager()]
        conns = [one.main.open(managers[0]), other.main.open(managers[1])]
        for manager, conn in zip(managers, conns, strict=True):
            await_length(manager, conn, 0)
        for step in range(10, 20):
            for manager in managers:
                manager.begin()
            for number, conn in enumerate(conns):
                conn.root()["tree"][step * 10 + number] = step
                conn.root()["length"].change(1)
            managers[step % 2].commit()
            managers[1 - step % 2].commit()
        for manager, conn in zip(managers, conns, strict=True):
            await_length(manager, conn, 20)
            tree = conn.root()["tree"]
            assert list(tree) == [*range(10), *(step * 10 + number for step in range(10, 20) for number in range(2))]
            tree._check()
            manager.abort()
            conn.close()
