"""Faults of earlier systems, each as a scenario that shows it on ZEO 6.2 with ZODB 6.4 and must not show it here.

| lesson | what must be | what ZEO and ZODB do |
|---|---|---|
| B12 | a restored backup forks no client's cache | the client goes on with a revision that exists nowhere |
| B13 | a cache forgets what is invalidated with the tid that it has | the entry stays, and breaks the cache later |
| B14 | a commit whose reply was lost is not applied twice | the loop that retries adds 1 twice |
| B17 | a voter whose time is over frees its locks | all writers wait until the server is restarted |
| B19 | a download that was cut leaves nothing behind | the blob gets what was left over as its beginning |
| B25 | no oid is given out twice | who outlives the server has oids that others get as well |
| B31 | a pack keeps what was linked again after its time | it is gone: POSKeyError |
| B34 | a pack that was cut between its two renames loses nothing | the next start makes an empty database |
| B42 | metadata that cannot travel are refused for good | the connection is lost, which looks like worth a retry |

B35, a pack that takes what a snapshot still needs, is in tests/client/test_isolation.py: the reader gets a
ReadConflictError from both, never another revision.
"""

import datetime
import os
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import transaction
import ZEO.cache
import ZODB
from persistent.mapping import PersistentMapping
from transaction.interfaces import TransientError
from ZEO.ClientStorage import ClientStorage as ZEOClientStorage
from ZODB.Connection import TransactionMetaData

import zeo_client
from tests.client.peer import until
from tests.fixtures_runzeo import StartRunZEO
from tests.fixtures_zeod import StartZeod
from tests.proxy import Proxy
from tests.server.raw_client import RawClient
from zeo_client.cache.memory import MemoryCache
from zeo_core.errors import POSKeyError
from zeo_core.ids import ZERO_TID, pack_id
from zeo_core.transaction import Revision

BLOB_RECORD = b"\x80\x03cZODB.blob\nBlob\nq\x01.\x80\x03N."


class Side:
    """A server with its own client and its own DB, on a Data.fs with blobs in `directory`."""

    def __init__(self, name: str, directory: Path, request: pytest.FixtureRequest) -> None:
        self.ours = name == "zeod"
        self.path = directory / "Data.fs"
        self.directory = directory
        self._request = request
        self.server: Any = None

    def start(self, options: str = "") -> tuple[str, int]:
        """Start the server, and return its address."""
        blobs = self.directory / "blobs"
        if self.ours:
            start_zeod: StartZeod = self._request.getfixturevalue("start_zeod")
            conf = self.directory / "zeod.conf"
            conf.write_text(
                f"<zeo>\n  address 127.0.0.1:0\n{options}</zeo>\n"
                f"<filestorage 1>\n  path {self.path}\n  blob-dir {blobs}\n</filestorage>\n"
            )
            self.server = start_zeod("-C", str(conf))
        else:
            start_runzeo: StartRunZEO = self._request.getfixturevalue("start_runzeo")
            self.server = start_runzeo(self.path, blobs, options)
        address: tuple[str, int] = self.server.address
        return address

    def storage(self, address: tuple[str, int], blob_dir: Path | None = None) -> Any:
        where = str(blob_dir) if blob_dir else None
        if self.ours:
            return zeo_client.ClientStorage(address, blob_dir=where, reconnect_timeout=20)
        return ZEOClientStorage(address, blob_dir=where, wait_timeout=20)

    def db(self, address: tuple[str, int]) -> Any:
        storage = self.storage(address)
        return zeo_client.DB(storage) if self.ours else ZODB.DB(storage)


def restored_backup(side: Side) -> object:
    x, y = pack_id(1), pack_id(2)
    with Proxy(side.start()) as proxy, closing(side.storage(proxy.address)) as client:
        with RawClient(proxy.target) as writer:
            first = writer.commit({x: (ZERO_TID, b"as backed up")})
            shutil.copy(side.path, side.directory / "backup.fs")
            second = writer.commit({x: (first, b"after the backup")})
        until(lambda: client.lastTransaction() == second)
        assert client.load(x)[0] == b"after the backup"
        proxy.refusing = True
        side.server.stop()
        proxy.cut()
        for left in side.directory.glob("Data.fs*"):
            left.unlink()
        shutil.copy(side.directory / "backup.fs", side.path)
        proxy.target = side.start()
        with RawClient(proxy.target) as writer:
            third = writer.commit({y: (ZERO_TID, b"another history")})
        assert third > second
        proxy.refusing = False
        until(lambda: client.lastTransaction() == third)
        return client.load(x)[0]


def same_tid_invalidated(side: Side) -> object:
    oid, tid = pack_id(1), pack_id(1000)
    if side.ours:
        ours = MemoryCache(10_000)
        ours.store(oid, Revision(b"x" * 100, tid, None))
        ours.invalidate(tid, [oid])
        for number in range(2, 500):
            ours.store(pack_id(number), Revision(b"x" * 100, tid, None))
        return ours.load_before(oid, pack_id(2000))
    with closing(ZEO.cache.ClientCache(str(side.directory / "cache.zec"), 10_000)) as theirs:
        theirs.store(oid, tid, None, b"x" * 100)
        theirs.invalidate(oid, tid)
        try:
            for number in range(2, 500):
                theirs.store(pack_id(number), tid, None, b"x" * 100)
        except KeyError:
            return KeyError
        return None


def lost_finish_reply(side: Side) -> object:
    with Proxy(side.start()) as proxy, closing(side.db(proxy.address)) as db:
        manager = transaction.TransactionManager()
        conn = db.open(manager)
        conn.root()["n"] = 0
        manager.commit()
        proxy.lose_reply_to = b"tpc_finish"
        raised = None
        try:
            for attempt in manager.attempts(3):
                with attempt:
                    conn.root()["n"] += 1
        except zeo_client.CommitInDoubtError as error:
            raised = type(error)
        until(lambda: proxy.connections == 2)
        manager.abort()
        conn.close()
        with closing(side.db(proxy.target)) as other:  # type: ignore[arg-type]
            conn = other.open(manager)
            n = conn.root()["n"]
            manager.abort()
            conn.close()
        return n, raised


def timed_out_voter(side: Side) -> object:
    address = side.start("  transaction-timeout 1\n")
    oid = pack_id(1)
    with RawClient(address) as voter, RawClient(address) as waiter, RawClient(address) as monitor:
        voter.begin(1, {oid: (ZERO_TID, b"voted")})
        voter.call("vote", 1)
        waiter.begin(1, {oid: (ZERO_TID, b"waits")})
        vote = waiter.send("vote", 1)
        voter.wait_closed()
        if monitor.call("server_status")["waiting"]:
            return "the others wait"
        waiter.wait(vote)
        waiter.call("tpc_finish", 1)
        return "free"


def download_leftovers(side: Side) -> object:
    address = side.start()
    source, size = side.directory / "source", 200_000
    source.write_bytes(b"x" * size)
    with closing(side.storage(address, side.directory / "writer")) as writer:
        oid, txn = writer.new_oid(), TransactionMetaData()
        writer.tpc_begin(txn)
        writer.storeBlob(oid, ZERO_TID, BLOB_RECORD, str(source), "", txn)
        writer.tpc_vote(txn)
        tid = writer.tpc_finish(txn)
        place = writer.loadBlob(oid, tid)
    with closing(side.storage(address, side.directory / "reader")) as reader:
        place = str(side.directory / "reader" / os.path.relpath(place, side.directory / "writer"))
        os.makedirs(os.path.dirname(place), exist_ok=True)
        Path(place + ".dl").write_bytes(b"left over" * 1000)
        return os.path.getsize(reader.loadBlob(oid, tid)) - size


def oids_of_who_outlives_the_server(side: Side) -> object:
    with Proxy(side.start()) as proxy, closing(side.storage(proxy.address)) as survivor:
        survivor.new_oid()
        connections = proxy.connections
        proxy.refusing = True
        side.server.stop()
        proxy.cut()
        proxy.target = side.start()
        proxy.refusing = False
        until(lambda: proxy.connections > connections and survivor.is_connected())
        with closing(side.storage(proxy.target)) as other:
            others = {other.new_oid() for _ in range(90)}
        return bool(others & {survivor.new_oid() for _ in range(90)})


def linked_again_after_the_pack_time(side: Side) -> object:
    address = side.start()
    manager = transaction.TransactionManager()
    with closing(side.db(address)) as db:
        conn = db.open(manager)
        conn.root()["a"] = PersistentMapping(text="kept")
        manager.commit()
        linked = conn.root().pop("a")
        manager.commit()
        pack_time = time.time()
        conn.root()["b"] = linked
        manager.commit()
        db.pack(pack_time)
        conn.close()
    with closing(side.db(address)) as db:
        conn = db.open(manager)
        try:
            return conn.root()["b"]["text"]
        except KeyError as error:
            return type(error).__name__
        finally:
            manager.abort()
            conn.close()


def pack_cut_between_its_renames(side: Side) -> object:
    with RawClient(side.start()) as client:
        client.commit({pack_id(0): (ZERO_TID, b"precious")})
    side.server.stop()
    shutil.copy(side.path, f"{side.path}.pack")
    side.path.rename(f"{side.path}.old")
    try:
        address = side.start()
    except AssertionError as error:
        return "refuses to start and names the files" if f"{side.path}.old" in str(error) else str(error)
    with RawClient(address) as client:
        try:
            return client.load(pack_id(0))[0]
        except POSKeyError:
            return "an empty database"


def metadata_that_cannot_travel(side: Side) -> object:
    with closing(side.storage(side.start())) as storage:
        txn = TransactionMetaData(extension={"when": datetime.datetime(2026, 1, 1)})
        phase = "tpc_begin"
        try:
            storage.tpc_begin(txn)
            phase = "tpc_vote"
            storage.store(storage.new_oid(), ZERO_TID, b"data", "", txn)
            storage.tpc_vote(txn)
        except Exception as error:  # noqa: BLE001 - which one it is, is the question
            storage.tpc_abort(txn)
            return phase, "retried" if isinstance(error, TransientError) else "for good"
        return "granted"


class Lesson(NamedTuple):
    name: str
    scenario: Callable[[Side], object]
    theirs: object
    ours: object


LESSONS = [
    Lesson("B12", restored_backup, b"after the backup", b"as backed up"),
    Lesson("B13", same_tid_invalidated, KeyError, None),
    Lesson("B14", lost_finish_reply, (2, None), (1, None)),
    Lesson("B17", timed_out_voter, "the others wait", "free"),
    Lesson("B19", download_leftovers, 9_000, 0),
    Lesson("B25", oids_of_who_outlives_the_server, True, False),
    Lesson("B31", linked_again_after_the_pack_time, "POSKeyError", "kept"),
    Lesson("B34", pack_cut_between_its_renames, "an empty database", "refuses to start and names the files"),
    Lesson("B42", metadata_that_cannot_travel, ("tpc_vote", "retried"), ("tpc_begin", "for good")),
]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("lesson", LESSONS, ids=[lesson.name for lesson in LESSONS])
@pytest.mark.parametrize("name", ["ZEO", "zeod"])
def test_what_becomes_of_it(name: str, lesson: Lesson, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    assert lesson.scenario(Side(name, tmp_path, request)) == (lesson.theirs if name == "ZEO" else lesson.ours)
