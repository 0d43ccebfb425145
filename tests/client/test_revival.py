"""New objects whose state was let go at a savepoint, when their transaction goes back or ends."""

import gc

import pytest

from tests.client.objects import Node, Session, state_of
from zeo_client import revival
from zeo_core.errors import ConflictError


@pytest.mark.parametrize("end", ["rollback", "abort", "conflict"])
def test_a_new_object_that_was_let_go_is_whole_when_it_is_disowned(ann: Session, bob: Session, end: str) -> None:
    """Else who tries again with it would store an empty one."""
    first = ann.manager.savepoint()
    node = Node(x=1, child=Node(x=2, child=Node(x=3)))
    node.child.child.top = node
    ann.root["node"] = node
    ann.manager.savepoint()
    ann.conn.cacheMinimize()
    gc.collect()
    assert state_of(node) == "ghost"
    if end == "rollback":
        first.rollback()
    elif end == "abort":
        ann.manager.abort()
    else:
        bob.root["node"] = 1
        bob.commit()
        with pytest.raises(ConflictError):
            ann.commit()
        ann.manager.abort()
    for obj in (node, node.child, node.child.child):
        assert (obj._p_jar, obj._p_oid) == (None, None)
    ann.root["node"] = node
    ann.commit()
    bob.conn.sync()
    found = bob.root["node"]
    assert (found.x, found.child.x, found.child.child.x, found.child.child.top) == (1, 2, 3, found)


def test_new_objects_that_are_too_many_to_be_kept_are_told(
    ann: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(revival, "REVIVED_BYTES", 1000)
    nodes = ann.root["nodes"] = [Node(x="x" * 300) for _ in range(10)]
    ann.manager.savepoint()
    ann.conn.cacheMinimize()
    ann.manager.abort()
    assert [node._p_jar for node in nodes] == [None] * 10
    assert 0 < sum("x" in node.__dict__ for node in nodes) < 4
    [record] = caplog.records
    assert "made anew" in record.getMessage()


def test_a_new_object_that_cannot_be_loaded_again_stops_no_abort(
    ann: Session, caplog: pytest.LogCaptureFixture
) -> None:
    ann.root["node"] = node = Refractory(x=1)
    ann.manager.savepoint()
    ann.conn.cacheMinimize()
    ann.manager.abort()
    assert node._p_jar is None
    assert "cannot keep the state" in caplog.text


class Refractory(Node):
    def __setstate__(self, _state: object) -> None:
        raise RuntimeError("no")
