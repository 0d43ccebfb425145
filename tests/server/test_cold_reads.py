"""Loads of what is not in memory: answered by a thread, while the loop goes on, and true when they are answered."""

import os
import threading
from contextlib import closing
from pathlib import Path

import zeo_client
from tests.fixtures_zeod import StartZeod
from tests.server.in_process import in_process
from zeo_core.ids import MAX_TID, ROOT_OID, ZERO_TID, Oid, Tid, pack_id
from zeo_core.transaction import HistoryEntry, ObjectWrite, PreparedTransaction, Revision, TransactionMetadata
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

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


class Slow(MappingStorage):
    """Reads the past only when it is let."""

    let = threading.Event()

    def load_cached(self, oid: Oid, tid: Tid) -> Revision | None:
        raise BlockingIOError

    def load_serial(self, oid: Oid, tid: Tid) -> bytes:
        assert self.let.wait(20)
        return super().load_serial(oid, tid)

    def revisions(self, oid: Oid, size: int) -> list[HistoryEntry]:
        assert self.let.wait(20)
        return super().revisions(oid, size)


def test_whoever_reads_the_past_holds_up_nobody() -> None:
    with in_process({"1": Slow()}) as server, server.client() as reader, server.client() as other:
        tid = other.commit({ROOT_OID: (ZERO_TID, b"data")})
        calls = [reader.send("loadSerial", ROOT_OID, tid), reader.send("history", ROOT_OID, 5)]
        assert other.call("ping") is None
        assert not any(reader.answered(call) for call in calls)
        Slow.let.set()
        assert reader.wait(calls[0]) == b"data"
        assert [line["tid"] for line in reader.wait(calls[1])] == [tid]
