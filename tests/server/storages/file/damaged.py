"""Files of ZODB's own making, with all that a log can hold, and places to damage them at."""

from pathlib import Path

import transaction
from persistent.mapping import PersistentMapping
from ZODB.DB import DB
from ZODB.FileStorage import FileStorage


def zodb_file(path: Path, commits: int = 6) -> bytes:
    """Make a file with commits, an undo and an undone creation at `path`; return its bytes."""
    db = DB(FileStorage(str(path)))
    manager = transaction.TransactionManager()
    connection = db.open(manager)
    root = connection.root()
    for number in range(commits):
        manager.get().note(f"commit {number}")
        root[f"item {number}"] = PersistentMapping({"number": number, "text": "x" * number * 50})
        if number:
            root[f"item {number - 1}"]["next"] = root[f"item {number}"]
        manager.commit()
    db.undo(db.undoInfo(0, 1)[0]["id"], manager.get())
    manager.get().note("undo")
    manager.commit()
    db.close()
    return path.read_bytes()
