"""The process runs of a fab: 10,000 runs, found by id and by owner.

    python examples/process_runs.py                          a zeod on this machine, at its usual port
    python examples/process_runs.py runs.fs                  a file, without any server
    python examples/process_runs.py zeo://otherhost:9672 --runs 100000

A run has an owner, a title, an account number and an ordered list of operations, each with its parameters. The root
holds a Fab: one BTree from a run's id to the run, one from an owner to the ids of the owner's runs. Runs are added
to those that are there already.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from BTrees.IIBTree import IITreeSet
from BTrees.IOBTree import IOBTree
from BTrees.OOBTree import OOBTree
from persistent import Persistent
from persistent.list import PersistentList

import zeo_client
from zeo_core.errors import ZeodError

DEFAULT = "zeo://127.0.0.1:9672"
BATCH = 500  # runs in one transaction

OWNERS = ("ann", "bob", "carla", "dirk", "eve", "fatima", "george", "hana")
RECIPES: tuple[tuple[str, Mapping[str, float]], ...] = (
    ("clean", {"minutes": 10, "celsius": 75}),
    ("oxidize", {"minutes": 30, "celsius": 1050, "nanometres": 40}),
    ("spin resist", {"rpm": 4000, "micrometres": 1.2}),
    ("expose", {"dose": 85, "focus": -0.1}),
    ("etch", {"minutes": 4, "watts": 150}),
    ("implant", {"kev": 60, "dose": 3e15}),
)


class Operation(Persistent):
    """One step of a run: what is done, with which parameters."""

    def __init__(self, name: str, parameters: Mapping[str, float]) -> None:
        self.name = name
        self.parameters = dict(parameters)

    def change(self, parameter: str, value: float) -> None:
        """Set a parameter. A changed dictionary would go unnoticed: only setting an attribute marks the object."""
        self.parameters = {**self.parameters, parameter: value}


class Run(Persistent):
    """A process run. Its list of operations is an object of its own, loaded when it is first looked at."""

    def __init__(self, number: int, owner: str, title: str, account: str) -> None:
        self.number = number
        self.owner = owner
        self.title = title
        self.account = account
        self.operations = PersistentList()

    def __str__(self) -> str:
        return f"run {self.number} of {self.owner}, account {self.account}: {self.title}"


class Fab(Persistent):
    """All runs, and the ways to find them."""

    def __init__(self) -> None:
        self.by_number = IOBTree()
        self.numbers_by_owner = OOBTree()

    def add(self, owner: str, title: str, account: str) -> Run:
        """Make a run with the next free number."""
        number = self.by_number.maxKey() + 1 if self.by_number else 1
        run = Run(number, owner, title, account)
        self.by_number[number] = run
        if owner not in self.numbers_by_owner:
            self.numbers_by_owner[owner] = IITreeSet()
        self.numbers_by_owner[owner].insert(number)
        return run

    def run(self, number: int) -> Run:
        """Return a run by its number; KeyError if there is none."""
        found: Run = self.by_number[number]
        return found

    def runs_of(self, owner: str) -> Iterator[Run]:
        """Walk an owner's runs in the order of their numbers."""
        return (self.by_number[number] for number in self.numbers_by_owner.get(owner, ()))


@contextmanager
def timed(what: str, count: int) -> Iterator[None]:
    """Print how long the block took, and for each of `count`."""
    start_s = time.perf_counter()
    yield
    took_s = time.perf_counter() - start_s
    print(f"{what:<42}{took_s * 1000:9.1f} ms  {took_s / max(count, 1) * 1e6:9.1f} us each")


def fill(db: zeo_client.DB, count: int) -> None:
    """Add `count` runs, a batch in each transaction."""
    for start in range(0, count, BATCH):
        with db.transaction() as conn:
            root = conn.root()
            if "fab" not in root:
                root["fab"] = Fab()
            fab = root["fab"]
            for index in range(start, min(start + BATCH, count)):
                owner = random.choice(OWNERS)
                run = fab.add(owner, f"trial {index + 1}", f"{random.randrange(10_000):04d}-7")
                for name, parameters in random.sample(RECIPES, 3):
                    run.operations.append(Operation(name, parameters))


def look_up(db: zeo_client.DB, lookups: int) -> None:
    """Find runs by number and by owner, and change one."""
    with db.transaction() as conn:
        fab: Fab = conn.root()["fab"]
        last = fab.by_number.maxKey()
        with timed(f"find {lookups} runs by number", lookups):
            found = [fab.run(random.randint(1, last)).title for _ in range(lookups)]
        owner = random.choice(sorted(fab.numbers_by_owner))
        total = len(fab.numbers_by_owner[owner])
        with timed(f"read all {total} runs of {owner}", total):
            titles = [run.title for run in fab.runs_of(owner)]
        run = fab.run(random.randint(1, last))
        with timed("read the operations of one run", 1):
            operations = [(operation.name, operation.parameters) for operation in run.operations]
    if len(found) != lookups or len(titles) != total:
        sys.exit("the database does not hold what was stored")
    print(f"\n{run}")
    for step, (name, parameters) in enumerate(operations, 1):
        print(f"  {step}. {name:<12}" + ", ".join(f"{key} {value:g}" for key, value in parameters.items()))


def change(db: zeo_client.DB) -> None:
    """Change one parameter of one operation: one small object is written, not the run nor the list."""
    print()
    with timed("change one parameter and commit", 1), db.transaction() as conn:
        run = conn.root()["fab"].run(1)
        run.operations[0].change("minutes", random.randint(5, 60))


def main() -> None:
    """Add runs, then look some up with a second, cold DB."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", nargs="?", default=DEFAULT, help=f"an address or a file, {DEFAULT} by default")
    parser.add_argument("--runs", type=int, default=10_000, help="how many to add (10000)")
    parser.add_argument("--lookups", type=int, default=1_000, help="how many to find by number (1000)")
    options = parser.parse_args()
    with zeo_client.open(options.database) as db, timed(f"add {options.runs} runs", options.runs):
        fill(db, options.runs)
    with zeo_client.open(options.database) as db:  # with nothing in its cache
        look_up(db, options.lookups)
        change(db)


if __name__ == "__main__":
    # A stored object names its class by module, and `__main__` is another module in every program.
    import process_runs

    try:
        process_runs.main()
    except ZeodError as error:  # the server is not there, the file is in use, ...
        sys.exit(f"process_runs: {error}")
