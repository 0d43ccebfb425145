"""Loads of what is not in memory: answered by a thread, while the loop goes on, and true when they are answered."""

import os
from contextlib import closing
from pathlib import Path

import zeo_client
from tests.fixtures_zeod import StartZeod
from zeo_core.ids import MAX_TID, pack_id
from zeo_core.transaction import ObjectWrite, PreparedTransaction, TransactionMetadata
from zeo_server.storages.file import FileStorage

OBJECTS = 2000


def write_objects(path: Path) -> None:
    with closing(FileStorage(path)) as storage:
        writes = tuple(
            ObjectWrite(pack_id(number), bytes(8), b"%d" % number * 3000) for number in range(1, OBJECTS + 1)
        )
        storage.publish(storage.write_group([PreparedTransaction(TransactionMetadata(), writes)]))


def forget(path: Path) -> None:
    """Have the system drop the file from memory."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def test_loads_from_the_disk_are_right(start_zeod: StartZeod, tmp_path: Path) -> None:
    write_objects(tmp_path / "Data.fs")
    server = start_zeod("-f", "Data.fs")
    with closing(zeo_client.ClientStorage(server.address)) as storage:
        for number in range(1, OBJECTS + 1, 7):
            if number % 5 == 0:
                forget(tmp_path / "Data.fs")
            revision = storage.load_before(pack_id(number), MAX_TID)
            assert revision is not None
            assert revision.data == b"%d" % number * 3000
            assert revision.end_tid is None
