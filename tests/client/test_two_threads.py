"""A connection in the hands of two threads."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.client.objects import Node, Session
from zeo_client.db import DB
from zeo_core.errors import ConnectionStateError
from zeo_core.ids import Oid, Tid
from zeo_server.storages.mapping import MappingStorage


class Slow(MappingStorage):
    """A storage that lets a load, or a vote, wait once it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.waits_in = ""
        self.waiting, self.go_on = threading.Event(), threading.Event()

    def _wait(self, where: str) -> None:
        if self.waits_in == where:
            self.waits_in = ""
            self.waiting.set()
            assert self.go_on.wait(20)

    def load_before(self, oid: Oid, tid: Tid) -> Any:
        self._wait("load")
        return super().load_before(oid, tid)

    def tpc_vote(self, transaction: Any) -> Any:
        self._wait("vote")
        return super().tpc_vote(transaction)


@pytest.mark.parametrize("other", ["load", "change", "commit", "savepoint", "begin"])
@pytest.mark.parametrize("one", ["load", "vote"])
def test_two_threads_at_once_are_told(one: str, other: str) -> None:
    slow = Slow()
    with DB(slow) as db:
        ann = Session(db)
        ann.root["a"], ann.root["b"] = Node(x=1), Node(x=1)
        ann.commit()
        a, b = ann.root["a"], ann.root["b"]
        ann.root["c"] = 1
        a._p_deactivate()
        if other == "load":
            b._p_deactivate()
        slow.waits_in = one
        thread = threading.Thread(target=(lambda: a.x) if one == "load" else ann.commit, name="the first")
        thread.start()
        assert slow.waiting.wait(20)
        others: dict[str, Callable[[], object]] = {
            "load": lambda: b.x,
            "change": lambda: setattr(b, "x", 2),
            "commit": lambda: ann.conn.tpc_begin(None),
            "savepoint": ann.conn.savepoint,
            "begin": lambda: ann.conn.newTransaction(None),
        }
        with pytest.raises(ConnectionStateError, match="two threads at once, 'the first' and 'MainThread'"):
            others[other]()
        slow.go_on.set()
        thread.join(20)
        ann.commit()
        assert (a.x, b.x) == (1, 1)


def test_threads_may_take_turns(ann: Session) -> None:
    ann.root["a"] = Node(x=1)
    ann.commit()
    ann.conn.cacheMinimize()
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(ann.root["a"].x))
    thread.start()
    thread.join(20)
    ann.root["a"].x += 1
    ann.commit()
    assert found == [1]


def test_an_object_may_load_others_while_it_is_loaded(ann: Session) -> None:
    ann.root["a"] = a = Greedy()
    a.other = Node(x=1)
    ann.commit()
    ann.conn.cacheMinimize()
    assert a.seen == 1


class Greedy(Node):
    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({**state, "seen": state["other"].x})
