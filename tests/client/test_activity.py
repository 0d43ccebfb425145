"""The activity monitor."""

import time

import pytest
from ZODB.ActivityMonitor import ActivityMonitor as ZODBMonitor

from tests.client.objects import Node
from zeo_client.activity import ActivityMonitor
from zeo_client.db import DB


class Connection:
    """Has moved what it is told."""

    def __init__(self, loads: int, stores: int) -> None:
        self._counts = loads, stores

    def getTransferCounts(self, clear: bool = False) -> tuple[int, int]:  # noqa: N802
        assert clear
        return self._counts


def test_it_counts_what_connections_did(db: DB) -> None:
    monitor = ActivityMonitor()
    assert db.getActivityMonitor() is None
    db.setActivityMonitor(monitor)
    assert db.getActivityMonitor() is monitor
    with db.transaction() as conn:
        conn.root.a, conn.root.b = Node(), Node()
    with db.transaction() as conn:
        conn.cacheMinimize()
        conn.root.a._p_activate()
    total = monitor.getActivityAnalysis(divisions=1)
    # The root was stored by one of these connections too, before there was a monitor to tell.
    assert [(line["loads"], line["stores"], line["connections"]) for line in total] == [(2, 4, 2)]


def test_it_counts_as_zodbs_does(db: DB) -> None:
    ours, theirs = ActivityMonitor(), ZODBMonitor()
    for number in range(5):
        ours.closedConnection(Connection(number, 10 * number))
        theirs.closedConnection(Connection(number, 10 * number))
    end = time.time() + 1
    for start, divisions in ((end - 10, 10), (end - 2, 1), (end - 3600, 7)):
        analysis = ours.getActivityAnalysis(start, end, divisions)
        assert analysis == theirs.getActivityAnalysis(start, end, divisions)
        assert sum(line["stores"] for line in analysis) == 100


def test_it_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    monitor = ActivityMonitor(history_length=60)
    monitor.closedConnection(Connection(1, 1))
    now += 50
    monitor.closedConnection(Connection(2, 2))
    assert [use.loads for use in monitor.log] == [1, 2]
    now += 20
    monitor.closedConnection(Connection(3, 3))
    assert [use.loads for use in monitor.log] == [2, 3]
    monitor.setHistoryLength(10)
    assert monitor.getHistoryLength() == 10
    assert [use.loads for use in monitor.log] == [3]
    assert monitor.getActivityAnalysis(divisions=2)[1]["loads"] == 3
