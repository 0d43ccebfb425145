"""Records read by both: whatever graph they hold, in whatever protocol, our reader makes of them what ZODB's makes."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
import ZODB
from hypothesis import given, settings
from hypothesis import strategies as st
from persistent import Persistent
from persistent.wref import WeakRef
from zodbpickle import pickle

from tests.client.objects import Node, Plain, write
from tests.interop.test_object_layer import cook, ours, recipes, zodbs
from zeo_client.db import DB
from zeo_core.ids import Oid
from zeo_server.storages.mapping import MappingStorage


class Stub:
    """A reference, between reading a record and writing it anew."""

    def __init__(self, reference: Any) -> None:
        self.reference = reference


def in_protocol(record: bytes, protocol: int) -> bytes:
    """Return the record as a pickler of that protocol writes it, with a memo for each pickle as in old records."""
    unpickler = pickle.Unpickler(BytesIO(record))
    unpickler.persistent_load = Stub
    parts = unpickler.load(), unpickler.load()
    chunks = []
    for part in parts:
        file = BytesIO()
        pickler = pickle.Pickler(file, protocol)
        pickler.persistent_id = lambda obj: obj.reference if type(obj) is Stub else None
        pickler.dump(part)
        chunks.append(file.getvalue())
    return b"".join(chunks)


def shape(value: Any, seen: dict[Oid, Any] | None = None) -> Any:
    """Return what can be compared between two databases: states, with oids in the place of persistent objects."""
    seen = {} if seen is None else seen
    if isinstance(value, WeakRef):
        return "weak", value.oid, value() is not None
    if isinstance(value, Persistent) and value._p_oid is not None:
        if value._p_oid not in seen:
            seen[value._p_oid] = None
            value._p_activate()
            seen[value._p_oid] = type(value), value._p_serial, shape(value.__getstate__(), seen)
        return "oid", value._p_oid
    if isinstance(value, Plain):
        return Plain, shape(vars(value), seen)
    if isinstance(value, dict):
        return {"dict": [(shape(key, seen), shape(each, seen)) for key, each in value.items()]}
    if isinstance(value, list | tuple):
        return type(value), [shape(each, seen) for each in value]
    return type(value), value


def database_shape(opened: Callable[..., Any], storage: Any) -> dict[Oid, Any]:
    """Return the shape of all that can be reached from the root."""
    seen: dict[Oid, Any] = {}
    with opened(storage) as conn:
        shape(conn.root(), seen)
    return seen


@given(
    recipe=recipes, writer=st.sampled_from([ours, zodbs]), protocol=st.integers(1, 3)
)  # in 0 a reference is a line of text, which can be no oid
@settings(max_examples=80, deadline=None)
def test_any_graph_in_any_protocol_is_read_alike(
    recipe: list[tuple[str, Any]], writer: Callable[..., Any], protocol: int
) -> None:
    # Not protocol 0: a reference is a line of text there, which can be no oid.
    storage = MappingStorage()
    with writer(storage) as conn:
        conn.root()["nodes"] = cook(recipe)
        conn.root()["part"] = Plain(values=cook(recipe)[:1])
    if protocol < 3:
        current = {each.oid: each.data for one in storage.transactions() for each in one.records if each.data}
        write(storage, {oid: in_protocol(data, protocol) for oid, data in current.items()})
    assert database_shape(ours, storage) == database_shape(zodbs, storage)


METADATA = [
    Node,
    (Node, None),
    (Node, ()),
    (("tests.client.objects", "Node"), None),
    (("tests.client.objects", "Node"), ()),
]


@pytest.mark.parametrize("protocol", range(4))
@pytest.mark.parametrize("metadata", METADATA, ids=repr)
def test_every_form_of_a_class_is_read_and_written_back_as_zodb_does(metadata: Any, protocol: int) -> None:
    file = BytesIO()
    pickler = pickle.Pickler(file, protocol)
    pickler.dump(metadata)
    pickler.dump({"x": [1]})
    data = file.getvalue()
    written = []
    for make in (DB, ZODB.DB):
        storage = MappingStorage()
        with make(storage).transaction() as conn:
            conn.root()["node"] = node = Node()
            conn.add(node)
        write(storage, {node._p_oid: data})
        with make(storage).transaction() as conn:
            conn.cacheMinimize()
            found = conn.root()["node"]
            assert (type(found), found.x) == (Node, [1])
            found.x.append(2)
            found._p_changed = True
        written.append(storage.load(found._p_oid)[0])
    assert written[0] == written[1]
