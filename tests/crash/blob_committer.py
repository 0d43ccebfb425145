"""A program to be killed: commits blobs to the database in the directory named by its argument, and says so.

Each transaction writes its number to all blobs, so that a part of one would show. Run as
`python -m tests.crash.blob_committer DIRECTORY`.
"""

import os
import sys
import tempfile
from types import SimpleNamespace

import ZODB.blob
from ZODB.serialize import ObjectWriter

from zeo_core.ids import ZERO_TID, Oid, pack_id
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file.blob_storage import BlobFileStorage

BLOBS = 24


def oid_of(number: int) -> Oid:
    """Return a blob's oid."""
    return pack_id(1 + number)


def open_storage(directory: str) -> BlobFileStorage:
    """Open the database."""
    path = os.path.join(directory, "Data.fs")
    storage = FileStorage(path, blob_dir=os.path.join(directory, "blobs"))
    if not isinstance(storage, BlobFileStorage):
        raise TypeError(type(storage))
    return storage


def commit(storage: BlobFileStorage, turn: int, blobs: int = BLOBS) -> None:
    """Commit the turn's number to so many blobs."""
    record: bytes = ObjectWriter().serialize(ZODB.blob.Blob())
    transaction = SimpleNamespace(user=b"", description=b"%d" % turn, extension={})
    storage.tpc_begin(transaction)
    for number in range(blobs):
        # A name of its own: after a power cut an old one may still lead to a blob that was committed.
        descriptor, path = tempfile.mkstemp(prefix="BUC", dir=storage.temporaryDirectory())
        with open(descriptor, "wb") as file:
            file.write(b"%d " % turn + b"x" * (turn * 997 % 60_000))
        serial = storage.current_tid(oid_of(number)) or ZERO_TID
        storage.storeBlob(oid_of(number), serial, record, path, "", transaction)
    storage.tpc_vote(transaction)
    storage.tpc_finish(transaction)


def main() -> None:
    """Commit until killed."""
    storage = open_storage(sys.argv[1])
    turn = len(list(storage.transactions()))
    while True:
        turn += 1
        commit(storage, turn)
        os.write(1, b"%d\n" % turn)


if __name__ == "__main__":
    main()
