"""Files of ZODB's own making with blobs."""

from pathlib import Path

import transaction
from persistent.mapping import PersistentMapping
from ZODB.blob import Blob
from ZODB.DB import DB
from ZODB.FileStorage import FileStorage


def zodb_blobs(directory: Path, *, rounds: int = 3, text: str = "") -> None:
    """Make Data.fs and blobs in `directory`: new blobs, a changed one, an undone change, and others with `text`."""
    db = DB(FileStorage(str(directory / "Data.fs"), blob_dir=str(directory / "blobs")))
    manager = transaction.TransactionManager()
    root = db.open(manager).root()
    root["changed"] = Blob(b"first")
    for number in range(rounds):
        root[number] = Blob(b"blob %d" % number)
        root[f"object {number}"] = PersistentMapping(text=text)
        manager.commit()
        with root["changed"].open("w") as file:
            file.write(b"changed %d" % number)
        manager.commit()
    db.undo(db.undoInfo(0, 1)[0]["id"], manager.get())
    manager.commit()
    db.close()


def blob_paths(directory: Path) -> list[Path]:
    """Return the blob files below `directory`, sorted."""
    return sorted(directory.rglob("*.blob"))
