"""Our DemoStorage beside ZODB's: the same operations on both, and ZODB's DB on ours."""

from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
import transaction
import ZODB
from BTrees.OOBTree import OOBTree
from ZODB.Connection import TransactionMetaData
from ZODB.DemoStorage import DemoStorage as ZODBDemoStorage
from ZODB.MappingStorage import MappingStorage as ZODBMappingStorage
from ZODB.POSException import POSKeyError as ZODBPOSKeyError

from zeo_core.errors import POSKeyError
from zeo_core.ids import MAX_TID, ZERO_TID, Oid, Tid, pack_id, successor
from zeo_server.storages.demo import DemoStorage
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

OIDS = [pack_id(number) for number in range(6)]
STORAGES = {"zodb": (ZODBMappingStorage, ZODBDemoStorage), "zeod": (MappingStorage, DemoStorage)}


class Played(NamedTuple):
    """A storage after some operations, and the tids it gave, by whose numbers two storages are compared."""

    storage: Any
    tids: list[Tid]

    def number(self, tid: Tid | None) -> int | None:
        return None if tid is None else self.tids.index(tid)


def commit(storage: Any, data: dict[Oid, bytes]) -> Tid:
    txn = TransactionMetaData("user", "description")
    storage.tpc_begin(txn)
    for oid, record in data.items():
        try:
            serial = storage.load(oid, "")[1]
        except KeyError:
            serial = ZERO_TID
        storage.store(oid, serial, record, "", txn)
    storage.tpc_vote(txn)
    tid: Tid = storage.tpc_finish(txn)
    return tid


def play(kind: str, seed: int) -> Played:
    """Commit to a base, then to layers over it; which objects, and when a layer comes, is the seed's."""
    mapping, demo = STORAGES[kind]
    random = Random(seed)
    storage, tids = mapping(), []
    for number in range(25):
        if number == 8:
            storage = demo(base=storage)
        elif number > 8 and random.random() < 0.15:
            storage = storage.push()
        tids.append(commit(storage, dict.fromkeys(random.sample(OIDS, random.randrange(3)), b"%d" % number)))
    return Played(storage, tids)


def loaded(played: Played, oid: Oid, before: Tid) -> object:
    try:
        found = played.storage.loadBefore(oid, before)
    except (POSKeyError, ZODBPOSKeyError):
        return "unknown"
    return found and (found[0], played.number(found[1]), played.number(found[2]))


def history(played: Played, oid: Oid, size: int) -> object:
    try:
        entries = played.storage.history(oid, size)
    except (POSKeyError, ZODBPOSKeyError):
        return "unknown"
    return [(played.number(entry["tid"]), entry["size"], entry["user_name"]) for entry in entries]


@pytest.mark.parametrize("seed", range(20))
def test_both_answer_the_same(seed: int) -> None:
    theirs, ours = play("zodb", seed), play("zeod", seed)
    assert ours.number(ours.storage.lastTransaction()) == theirs.number(theirs.storage.lastTransaction()) == 24
    for oid in OIDS:
        for number in range(25):
            for step in (bytes, successor):  # before it, and as of it
                assert loaded(ours, oid, step(ours.tids[number])) == loaded(theirs, oid, step(theirs.tids[number]))
        assert loaded(ours, oid, MAX_TID) == loaded(theirs, oid, MAX_TID)
        for size in (1, 3, 99):
            assert history(ours, oid, size) == history(theirs, oid, size)
    # ZODB's walk over a base that was pushed on gives records of ZODB's, ours records of ours
    walked = [[(record.oid, record.data) for record in step] for step in theirs.storage.iterator()]
    assert [[(r.oid, r.data) for r in step.records] for step in ours.storage.transactions()] == walked


def test_zodbs_db_on_a_demo_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    with closing(ZODB.DB(FileStorage(path))) as db, db.transaction() as connection:
        connection.root()["tree"] = OOBTree({f"key {number}": number for number in range(500)})
    before = path.read_bytes()
    for session in range(2):
        storage = DemoStorage(base=FileStorage(path, read_only=True), changes=FileStorage(tmp_path / "changes.fs"))
        with closing(ZODB.DB(storage)) as db:
            with closing(db.open()) as connection:
                tree = connection.root()["tree"]
                assert len(tree) == 500 + 100 * session
                for number in range(100):
                    tree[f"new {session} {number}"] = number
                transaction.commit()
            with closing(db.open()) as connection:
                assert sorted(connection.root()["tree"])[:2] == ["key 0", "key 1"]
                assert len(connection.root()["tree"]) == 600 + 100 * session
    assert path.read_bytes() == before
