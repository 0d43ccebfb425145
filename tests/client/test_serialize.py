"""Records: written and read. That they are ZODB's byte for byte is in tests/interop."""

import threading
from typing import Any

import pytest
import transaction
from persistent.mapping import PersistentMapping
from persistent.wref import WeakRef
from zodbpickle import pickle

from tests.client.objects import Node, Plain, Slotted, WithNewArgs
from zeo_client.broken import find_class
from zeo_client.connection import Connection
from zeo_client.db import DB
from zeo_client.serialize import ObjectReader, ObjectWriter, dotted_name
from zeo_core.errors import ConflictError, InvalidObjectReference, POSKeyError, StateLoadError, UnpicklableError
from zeo_core.ids import Oid, oid_repr, pack_id
from zeo_core.record import class_name, references
from zeo_server.storages.mapping import MappingStorage

X, Y = pack_id(0x58), pack_id(0x59)
OLD_X = "\0" * 7 + "X"  # as Python 2 wrote it


def adopted(conn: Connection, obj: Any) -> Any:
    conn.add(obj)
    return obj


def record_with(*persistent_ids: object) -> bytes:
    """Return a Node's record whose attribute `found` lists these references."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> object:
            return obj[0] if isinstance(obj, Reference) else None

    chunks = Chunks()
    pickler = Pickler(chunks, 3)
    pickler.dump(Node)
    pickler.dump({"found": [Reference([each]) for each in persistent_ids]})
    return b"".join(chunks)


class Reference(list[object]):
    """Pickled as a reference."""


class Chunks(list[bytes]):
    write = list.append


def read(conn: Connection, data: bytes) -> Any:
    """Return a Node with the state in a record."""
    obj = adopted(conn, Node())
    ObjectReader(conn, conn._cache, find_class).set_state(obj, data)
    return obj


def commit(conn: Connection, obj: Any) -> Oid:
    conn.root()[obj.__class__.__name__] = obj
    conn.transaction_manager.commit()
    oid: Oid = obj._p_oid
    return oid


# -- writing


def test_a_record_names_its_class_and_refers_to_persistent_objects(conn: Connection) -> None:
    child, weak = Node(), adopted(conn, Node())
    data = ObjectWriter(conn).serialize(adopted(conn, Node(child=child, weak=WeakRef(weak), plain=Plain(a=1))))
    assert class_name(data) == "tests.client.objects.Node"
    assert references(data) == [child._p_oid]


def test_new_objects_are_found_and_wait_in_line(conn: Connection) -> None:
    writer = ObjectWriter(conn)
    first, second = Node(), WithNewArgs("key")
    writer.serialize(adopted(conn, Node(children=[first, {"x": second}, first])))
    assert writer.new == [first, second]
    assert first._p_jar is second._p_jar is conn
    writer.serialize(adopted(conn, Node(again=first)))
    assert writer.new == [first, second]
    writer.forget()
    assert writer.new == []


def test_the_target_of_a_weak_reference_is_stored_too(conn: Connection) -> None:
    writer, target = ObjectWriter(conn), Node()
    reference = WeakRef(target)
    writer.serialize(adopted(conn, Node(weak=reference)))
    assert writer.new == [target]
    assert (reference.oid, reference.dm, reference.database_name) == (target._p_oid, conn, "unnamed")


def test_one_object_has_nothing_to_do_with_the_next(conn: Connection) -> None:
    """Nor with a huge one before, or one that failed."""
    shared = ["shared"]
    writer, node = ObjectWriter(conn), adopted(conn, Node(shared=shared))
    alone = ObjectWriter(conn).serialize(node)
    writer.serialize(adopted(conn, Node(shared=shared, many=[str(number) for number in range(5_000)])))
    assert writer.serialize(node) == alone
    with pytest.raises(UnpicklableError):
        writer.serialize(adopted(conn, Node(shared=shared, bad=threading.Lock())))
    assert writer.serialize(node) == alone


def test_what_cannot_be_pickled_is_named(conn: Connection) -> None:
    node = adopted(conn, Node(good=1, parts=[Plain(), Plain(children={"x": Node(), "lock": threading.Lock()})]))
    with pytest.raises(UnpicklableError) as info:
        ObjectWriter(conn).serialize(node)
    error = info.value
    assert (error.class_name, error.oid, error.path) == (dotted_name(node), node._p_oid, ".parts[1].children['lock']")
    assert str(error).startswith(
        f"cannot store tests.client.objects.Node with oid 0x{int.from_bytes(node._p_oid):02x}, at "
    )
    assert "lock" in error.reason


def test_a_local_class_cannot_be_pickled_either(conn: Connection) -> None:
    class Local:
        pass

    with pytest.raises(UnpicklableError, match=r"at \.x: .*Local"):
        ObjectWriter(conn).serialize(adopted(conn, Node(x=Local())))


def test_an_error_of_the_class_itself_is_its_own(conn: Connection) -> None:
    class Failing(Node):
        def __getstate__(self) -> Any:
            raise TypeError("mine")

    with pytest.raises(TypeError, match="mine") as info:
        ObjectWriter(conn).serialize(adopted(conn, Failing()))
    assert not isinstance(info.value, UnpicklableError)
    assert "Failing with oid 0x" in info.value.__notes__[0]


class Conflicting:
    def __reduce__(self) -> Any:
        raise ConflictError(oid=X)


def test_a_conflict_while_pickling_stays_a_conflict(conn: Connection) -> None:
    with pytest.raises(ConflictError):
        ObjectWriter(conn).serialize(adopted(conn, Node(x=Conflicting())))


def test_an_object_of_another_connection_is_refused(conn: Connection, db: DB) -> None:
    with db.transaction() as other:
        foreign = other.root.foreign = Node()
        other.transaction_manager.commit()
        mine = adopted(conn, Node(foreign=foreign))
        with pytest.raises(InvalidObjectReference) as info:
            ObjectWriter(conn).serialize(mine)
    text = str(info.value)
    assert repr(conn) in text
    assert f"at {id(other):#x}" in text
    assert f"oid {oid_repr(foreign._p_oid)}" in text
    assert "conn.get(oid)" in text


def test_an_object_of_another_database_is_refused(conn: Connection) -> None:
    with DB(MappingStorage(), database_name="elsewhere") as elsewhere, elsewhere.transaction() as other:
        foreign = adopted(other, Node())
        with pytest.raises(InvalidObjectReference, match=r"'unnamed'.*'elsewhere'"):
            ObjectWriter(conn).serialize(adopted(conn, Node(foreign=foreign)))


def test_an_object_of_some_other_jar_is_refused(conn: Connection) -> None:
    class Jar:
        def register(self, _obj: object) -> None:
            """Take note."""

    foreign = Node()
    foreign._p_jar, foreign._p_oid = Jar(), X
    with pytest.raises(InvalidObjectReference, match="Jar"):
        ObjectWriter(conn).serialize(adopted(conn, Node(foreign=foreign)))


# -- reading


def test_every_kind_of_reference_is_read(conn: Connection) -> None:
    known = adopted(conn, Node())
    named = adopted(conn, WithNewArgs("key"))
    oid, other = known._p_oid, named._p_oid
    commit(conn, Node(known=known, named=named))
    found = read(conn, record_with((oid, Node), oid, ["w", (oid,)], ["w", (oid, "unnamed")], [oid], other)).found
    assert found[:2] == [known, known]
    assert [type(each) for each in found[2:5]] == [WeakRef] * 3
    assert [each() for each in found[2:5]] == [known] * 3
    assert found[5] is named


def test_references_by_database_are_read_within_it(conn: Connection) -> None:
    oid = commit(conn, Node())
    target = conn.get(oid)
    found = read(conn, record_with(["n", ("unnamed", oid)], ["m", ("unnamed", oid, Node)])).found
    assert found == [target, target]


def test_a_reference_into_a_database_that_is_not_open_says_so(conn: Connection) -> None:
    with pytest.raises(InvalidObjectReference, match="'elsewhere' is not open"):
        read(conn, record_with(["n", ("elsewhere", X)]))


def test_a_weak_reference_into_a_database_that_is_not_open_is_dead_and_kept(conn: Connection) -> None:
    reference = read(conn, record_with(["w", (X, "elsewhere")])).found[0]
    assert reference() is None
    data = ObjectWriter(conn).serialize(adopted(conn, Node(found=[reference])))
    assert read(conn, data).found[0].database_name == "elsewhere"


def test_oids_that_python_2_wrote_as_text(conn: Connection) -> None:
    found = read(conn, record_with((OLD_X, Node), (X, Node), ["w", (OLD_X,)], (OLD_X, Node))).found
    assert found[0] is found[1] is found[3]
    assert found[0]._p_oid == found[2].oid == X
    with pytest.raises(POSKeyError, match="0x5a"):
        read(conn, record_with("\0" * 7 + "Z"))


def test_classes_named_by_module_and_name_are_found(conn: Connection) -> None:
    found = read(conn, record_with((X, ("tests.client.objects", "Node")), (Y, ("no.such.module", "Name")))).found
    assert type(found[0]) is Node
    assert repr(found[1]).startswith("<persistent broken no.such.module.Name")


def test_a_class_that_has_come_to_want_arguments_is_asked_for_in_its_own_record(conn: Connection) -> None:
    oid = commit(conn, WithNewArgs("key"))
    conn.cacheMinimize()
    other = conn.db().open(transaction.TransactionManager())
    assert read(other, record_with((oid, WithNewArgs))).found[0].note == "keykey"


def test_an_unknown_kind_of_reference_is_an_error(conn: Connection) -> None:
    with pytest.raises(StateLoadError, match="unknown kind"):
        read(conn, record_with(["z", (X,)]))


def test_states_of_all_kinds(conn: Connection) -> None:
    writer, reader = ObjectWriter(conn), ObjectReader(conn, conn._cache, find_class)
    for obj in (Node(a=1, b=[Plain(x=2)]), Slotted(1, {"x": 2}), WithNewArgs("k"), PersistentMapping(a=1)):
        data = writer.serialize(adopted(conn, obj))
        ghost = reader.ghost(X, data)
        assert type(ghost) is type(obj)
        reader.set_state(ghost, data)
        assert ghost.__getstate__() == reader.state(obj, data) == obj.__getstate__()


@pytest.mark.parametrize("metadata", [(Node, None), (Node, ()), (("tests.client.objects", "Node"), None)])
def test_old_forms_of_metadata_make_the_same_ghost(conn: Connection, metadata: object) -> None:
    data = pickle.dumps(metadata, 3) + pickle.dumps({}, 3)
    assert type(ObjectReader(conn, conn._cache, find_class).ghost(X, data)) is Node


@pytest.mark.parametrize("data", [b"", b"garbage", record_with()[:-3]])
def test_a_damaged_record_is_named(conn: Connection, data: bytes) -> None:
    reader = ObjectReader(conn, conn._cache, find_class)
    node = adopted(conn, Node())
    with pytest.raises(StateLoadError, match="Node with oid") as info:
        reader.set_state(node, data)
    with pytest.raises(StateLoadError, match="Node with oid"):
        reader.state(node, data)
    assert (info.value.oid, info.value.class_name) == (node._p_oid, "tests.client.objects.Node")


@pytest.mark.parametrize("data", [b"", b"garbage", b"N.N.", record_with()[:10]])
def test_a_record_without_a_class_is_named(conn: Connection, data: bytes) -> None:
    with pytest.raises(StateLoadError, match="oid 0x58"):
        ObjectReader(conn, conn._cache, find_class).ghost(X, data)


def test_an_attribute_error_while_loading_is_no_missing_attribute(conn: Connection) -> None:
    class Failing(Node):
        def __setstate__(self, state: object) -> None:
            raise AttributeError("mine")

    with pytest.raises(StateLoadError, match="AttributeError: mine"):
        ObjectReader(conn, conn._cache, find_class).set_state(adopted(conn, Failing()), record_with())


class Rebuilt:
    """Conflicts when it is made."""

    def __setstate__(self, state: object) -> None:
        raise ConflictError(oid=X)


def test_a_conflict_while_loading_stays_a_conflict(conn: Connection) -> None:
    rebuilt = Rebuilt()
    rebuilt.x = 1  # type: ignore[attr-defined]
    data = ObjectWriter(conn).serialize(adopted(conn, Node(rebuilt=rebuilt)))
    with pytest.raises(ConflictError):
        read(conn, data)


def test_a_string_of_python_2_that_may_be_bytes_says_how_to_convert_it(conn: Connection) -> None:
    node = adopted(conn, Node())
    record = b"ctests.client.objects\nNode\nq\x01.}q\x02U\x01xq\x03U\x02\xc3\xa4s."
    with pytest.raises(StateLoadError, match=r"UnicodeDecodeError: .* zodbupdate converts databases of Python 2"):
        conn._reader.set_state(node, record)
