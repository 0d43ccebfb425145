"""The stock of a small laboratory: who took how much of what, and a way to take a mistake back.

python examples/stock.py add acetone 10             ten litres arrived
python examples/stock.py take acetone 3 --by ann    retried if somebody takes some at the same time
python examples/stock.py list                       what is there, and who took how much of it
python examples/stock.py log                        the last changes, newest first
python examples/stock.py undo                       take the last change back

The stock is in the file stock.fs; -d zeo://127.0.0.1:9672 works on a server, which several programs can share.
"""

import argparse
import sys
from typing import Any

from BTrees.OOBTree import OOBTree
from persistent import Persistent

import zeo_client
from zeo_client import UndoError, ZeodError

MADE = "initial database creation"
"""What the history says of the transaction that made the root object: to undo that would take the database away."""


class OutOfStockError(Exception):
    """There is less than somebody wants to take."""


class Item(Persistent):
    """One thing in stock. Its attributes are stored whenever they change."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.amount = 0
        self.taken: OOBTree = OOBTree()  # person -> amount; a change within it is noticed, unlike in a dictionary

    def take(self, amount: int, person: str) -> None:
        """Let `person` have some; OutOfStockError if there is less."""
        if amount > self.amount:
            raise OutOfStockError(f"there are {self.amount} of {self.name}, not {amount}")
        self.amount -= amount
        self.taken[person] = self.taken.get(person, 0) + amount


def items(conn: zeo_client.Connection) -> OOBTree:
    """Return name -> Item, made when it is first asked for."""
    root = conn.root()
    if "items" not in root:
        root["items"] = OOBTree()
    return root["items"]


def add(db: zeo_client.DB, name: str, amount: int) -> None:
    """Note that something arrived."""

    def change(conn: zeo_client.Connection) -> None:
        stock = items(conn)
        if name not in stock:
            stock[name] = Item(name)
        stock[name].amount += amount

    db.run(change, note=f"{amount} of {name} arrived")


def take(db: zeo_client.DB, name: str, amount: int, person: str) -> None:
    """Let somebody have some. An exception leaves everything as it was."""

    def change(conn: zeo_client.Connection) -> None:
        item = items(conn).get(name)
        if item is None:
            raise OutOfStockError(f"there is no {name}")
        item.take(amount, person)

    db.run(change, note=f"took {amount} of {name}", user=person)


def show(db: zeo_client.DB) -> None:
    """Print what is there, as of one moment, whatever others do meanwhile."""
    with db.transaction() as conn:
        for name, item in conn.root().get("items", {}).items():
            taken = ", ".join(f"{person} took {amount}" for person, amount in item.taken.items())
            print(f"{item.amount:5} {name}" + (f"  ({taken})" if taken else ""))


def changes(db: zeo_client.DB) -> list[dict[str, Any]]:
    """Return the last changes, newest first."""
    return [line for line in db.undoLog(0, 10) if line["description"] != MADE]


def log(db: zeo_client.DB) -> None:
    """Print the last changes."""
    for line in changes(db):
        print(line["description"] + (f", {line['user_name'].strip()}" if line["user_name"] else ""))


def undo(db: zeo_client.DB) -> None:
    """Take the last change back. That is a change too, so to undo twice is to do it after all."""
    lines = changes(db)
    if not lines:
        raise UndoError("nothing has been changed yet")
    with db.transaction(f"undo: {lines[0]['description']}") as conn:
        db.undo(lines[0]["id"], conn.transaction_manager.get())
    print(f"undone: {lines[0]['description']}")


def positive(text: str) -> int:
    """Read an amount from the command line."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no amount")
    return int(text)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", "--database", default="stock.fs", help="a file or an address, stock.fs by default")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("add", "take"):
        one = commands.add_parser(command)
        one.add_argument("name")
        one.add_argument("amount", type=positive)
        if command == "take":
            one.add_argument("--by", default="somebody")
    for command in ("list", "log", "undo"):
        commands.add_parser(command)
    options = parser.parse_args()
    with zeo_client.open(options.database) as db:
        if options.command == "add":
            add(db, options.name, options.amount)
        elif options.command == "take":
            take(db, options.name, options.amount, options.by)
        else:
            {"list": show, "log": log, "undo": undo}[options.command](db)


if __name__ == "__main__":
    try:
        main()
    except (ZeodError, OutOfStockError) as error:
        sys.exit(f"stock: {error}")
