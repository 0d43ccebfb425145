"""Reports of connections and caches."""

import re

import transaction

from tests.client.objects import Node, Session
from zeo_client.db import DB
from zeo_core.ids import ROOT_OID


def filled(db: DB) -> Session:
    """Return a user with the root and three nodes in memory."""
    with db.transaction() as conn:
        conn.root.nodes = [Node(id="one"), Node(__name__="two"), Node()]
    session = Session(db)
    for node in session.root["nodes"]:
        node._p_activate()
    return session


def test_how_many_of_each_class(db: DB) -> None:
    session = filled(db)
    assert db.cacheDetail() == [("persistent.mapping.PersistentMapping", 1), ("tests.client.objects.Node", 3)]
    assert db.cacheSize() == session.conn.cached == 4
    [line] = db.cacheDetailSize()
    assert line == {"connection": repr(session.conn), "ngsize": 4, "size": 4}
    for sweep in (db.cacheFullSweep, db.cacheMinimize):
        for node in session.root["nodes"]:
            node._p_activate()
        assert db.cacheSize() == 4
        sweep()
        assert db.cacheSize() == 0
    assert db.cacheDetailSize()[0]["ngsize"] == 0


def test_every_object(db: DB) -> None:
    session = filled(db)
    held = session.root["nodes"][2]
    held.changed = True
    lines = {line["oid"]: line for line in db.cacheExtremeDetail()}
    assert len(lines) == 4
    assert lines[ROOT_OID]["klass"] == "persistent.mapping.PersistentMapping"
    assert lines[ROOT_OID]["state"] is False
    assert {line["id"] for line in lines.values()} == {"one", "two", ""}
    assert lines[held._p_oid] == {
        "conn_no": 1,
        "oid": held._p_oid,
        "id": "",
        "klass": "tests.client.objects.Node",
        "rc": 3,  # the list of the root, the connection's changed objects, and `held`
        "state": True,
    }
    session.manager.abort()


def test_connections(db: DB) -> None:
    session = Session(db)
    past = db.open(transaction.TransactionManager(), at=db.lastTransaction())
    db.cacheMinimize()
    past.setDebugInfo("GET", "/index")
    session.conn.setDebugInfo("only")
    lines = {line["before"]: line for line in db.connectionDebugInfo()}
    assert lines[None]["info"] == "only (0)"
    assert lines[past.before]["info"] == "('GET', '/index') (0)"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \(\d+\.\d\ds\)", lines[None]["opened"])
    session.conn.close()
    past.close()
    assert [line["opened"] for line in db.connectionDebugInfo()] == [None, None]
    assert {line["info"] for line in db.connectionDebugInfo()} == {" (0)"}
