"""Placeholders for classes that are gone."""

import sys
from collections.abc import Iterator
from io import BytesIO
from types import ModuleType
from typing import Any

import pytest
from persistent import Persistent
from ZODB.interfaces import IBroken
from zodbpickle import pickle
from zope.interface.verify import verifyObject

from zeo_client.broken import Broken, BrokenPickler, PersistentBroken, find_class, persistent_broken, rebuild
from zeo_client.connection import Connection
from zeo_client.db import DB

GONE = "zeod_tests_gone_module"


def make_module() -> ModuleType:
    module = ModuleType(GONE)
    namespace = vars(module)
    exec(  # in a module that can be taken away again
        "from persistent import Persistent\n"
        "class Thing(Persistent):\n    pass\n"
        "class Part:\n"
        "    def __init__(self, **attributes): self.__dict__.update(attributes)\n"
        "class Sequence(list): pass\n"
        "class Table(dict): pass\n"
        "class Number(int): pass\n"
        "class Pointed:\n"
        "    def __new__(cls, *, x):\n"
        "        self = super().__new__(cls)\n"
        "        self.x = x\n"
        "        return self\n"
        "    def __getnewargs_ex__(self): return (), {'x': self.x}\n"
        "class Called:\n"
        "    def __init__(self, a, b): self.a, self.b = a, b\n"
        "    def __reduce__(self): return Called, (self.a, self.b)\n"
        "class Keyed(Persistent):\n"
        "    __slots__ = ('_p_key', '__dict__')\n"
        "    def __new__(cls, key):\n"
        "        self = super().__new__(cls)\n"
        "        self._p_key = key\n"
        "        return self\n"
        "    def __getnewargs__(self): return (self._p_key,)\n",
        namespace,
    )
    for value in namespace.values():
        if isinstance(value, type) and value is not Persistent:
            value.__module__ = GONE
    return module


@pytest.fixture
def gone() -> Iterator[ModuleType]:
    """A module that is there; `del sys.modules[GONE]` makes it go."""
    module = make_module()
    sys.modules[GONE] = module
    yield module
    sys.modules.pop(GONE, None)


class Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return find_class(module, name)


def load(data: bytes) -> Any:
    return Reader(BytesIO(data)).load()


def dump(value: object) -> bytes:
    file = BytesIO()
    BrokenPickler(file, 3).dump(value)
    return file.getvalue()


def test_what_can_be_imported_is_found() -> None:
    assert find_class("collections", "OrderedDict") is __import__("collections").OrderedDict


def test_a_module_is_imported_when_it_was_not_yet() -> None:
    sys.modules.pop("this", None)
    sys.modules.pop("colorsys", None)
    assert find_class("colorsys", "rgb_to_hsv").__module__ == "colorsys"


@pytest.mark.parametrize(
    ("module", "name", "found"),
    [
        ("__builtin__", "set", set),
        ("copy_reg", "_reduce_ex", __import__("copyreg")._reduce_ex),
        ("__builtin__", "unicode", str),
        ("UserDict", "UserDict", __import__("collections").UserDict),
    ],
)
def test_names_of_python_2_are_found_where_they_are_now(module: str, name: str, found: object) -> None:
    assert find_class(module, name) is found


def test_what_is_missing_gets_a_placeholder_of_its_name() -> None:
    cls = find_class("no.such.module", "Name")
    assert issubclass(cls, Broken)
    assert (cls.__module__, cls.__name__) == ("no.such.module", "Name")
    assert find_class("no.such.module", "Name") is cls
    assert repr(cls()) == "<broken no.such.module.Name instance>"
    assert issubclass(find_class("collections", "NoSuchName"), Broken)


@pytest.mark.parametrize("protocol", range(4))
@pytest.mark.parametrize("name", ["Sequence", "Table", "Number", "Pointed", "Part"])
def test_an_object_of_a_lost_class_of_any_kind_heals(gone: ModuleType, name: str, protocol: int) -> None:
    value = getattr(gone, name)(**{"Pointed": {"x": 1}, "Part": {"x": 1}}.get(name, {}))
    value.note = [1, {"two": value}]  # in a circle
    data = pickle.dumps(value, protocol)
    del sys.modules[GONE]
    broken = load(data)
    assert isinstance(broken, Broken)
    again = load(dump(broken))
    assert isinstance(again, Broken)
    written = dump(again)
    sys.modules[GONE] = gone
    healed = load(written)
    assert type(healed) is getattr(gone, name)
    assert healed == value or name in ("Part", "Pointed")
    assert healed.note[1]["two"] is healed
    assert getattr(healed, "x", None) == getattr(value, "x", None)


def test_a_record_of_python_2_is_written_back_unharmed(gone: ModuleType) -> None:
    """Protocol 1, as ZODB wrote it for twenty years: the contents of a list are an argument of copy_reg's function."""
    data = (
        b"ccopy_reg\n_reconstructor\nq\x01(czeod_tests_gone_module\nSequence\nq\x02c__builtin__\nlist\nq\x03"
        b"]q\x04(K\x01U\x03abcetRq\x05}q\x06U\x04noteq\x07K\x02sb."
    )
    del sys.modules[GONE]
    written = dump(load(data))
    sys.modules[GONE] = gone
    healed = load(written)
    assert (type(healed), list(healed), healed.note) == (gone.Sequence, [1, "abc"], 2)


def test_what_is_not_lost_is_made_as_ever(gone: ModuleType) -> None:
    for protocol in range(4):
        made = load(pickle.dumps([gone.Sequence([1]), gone.Pointed(x=2)], protocol))
        assert type(made[0]) is gone.Sequence
        assert (list(made[0]), made[1].x) == ([1], 2)


def test_a_class_that_comes_back_is_found(gone: ModuleType) -> None:
    del sys.modules[GONE]
    assert issubclass(find_class(GONE, "Part"), Broken)
    sys.modules[GONE] = gone
    assert find_class(GONE, "Part") is gone.Part


@pytest.mark.parametrize("protocol", range(4))
def test_what_is_broken_is_written_back_so_that_it_can_heal(gone: ModuleType, protocol: int) -> None:
    sequence, table = gone.Sequence([1, [2]]), gone.Table(a=1, b=gone.Called(3, 4))
    sequence.note = "attribute"
    values = [gone.Part(x=1, y=gone.Part()), sequence, table, gone.Called(1, "b"), gone.Part]
    data = pickle.dumps(values, protocol)
    del sys.modules[GONE]
    broken = load(data)
    assert all(isinstance(each, Broken) for each in broken[:-1])
    written = dump(broken)
    assert load(written)[0].broken_state["x"] == 1
    sys.modules[GONE] = gone
    part, sequence, table, called, cls = load(written)
    assert (part.x, type(part.y)) == (1, gone.Part)
    assert (sequence, sequence.note) == ([1, [2]], "attribute")
    assert (table["a"], table["b"].b, called.b, cls) == (1, 4, "b", gone.Part)


def test_the_bytes_are_the_same_again(gone: ModuleType) -> None:
    data = pickle.dumps([gone.Part(x=1, y=(gone.Part(), gone.Part))], 3)
    del sys.modules[GONE]
    assert dump(load(data)) == data


def test_a_placeholder_keeps_what_it_was_made_of() -> None:
    cls = find_class("no.such.module", "Name")
    assert (cls.__new__(cls, 1).broken_args, cls.__new__(cls, 1).broken_init_args) == ((1,), None)
    assert cls(1, 2).broken_init_args == (1, 2)
    instance = cls()
    instance.__setstate__({"a": 1})
    assert instance.broken_state == {"a": 1}


def test_a_placeholder_cannot_be_changed() -> None:
    instance = find_class("no.such.module", "Name")()
    with pytest.raises(TypeError, match=r"cannot change 'x' of <broken no.such.module.Name instance>"):
        instance.x = 1
    with pytest.raises(TypeError, match="cannot be imported"):
        del instance.x


def test_what_zodb_wrote_for_a_broken_object_is_read(gone: ModuleType) -> None:
    """ZODB writes a call of its own function; it is ours where ZODB is not installed."""
    assert type(rebuild(GONE, "Part")) is gone.Part
    assert rebuild("no.such.module", "Name", 1).broken_args == (1,)


def test_a_name_that_would_break_the_pickle_is_refused() -> None:
    cls = find_class("no.such.module", "a\nb")
    with pytest.raises(pickle.PicklingError):
        dump(cls)


def test_persistent_placeholders() -> None:
    plain = find_class("no.such.module", "Name")
    cls = persistent_broken(plain)
    assert issubclass(cls, PersistentBroken)
    assert issubclass(cls, plain)
    assert persistent_broken(plain) is persistent_broken(cls) is cls
    instance = cls(1)
    instance.__setstate__({"a": 1})
    assert instance.__getstate__() == {"a": 1}
    with pytest.raises(TypeError, match="cannot change"):
        instance.a = 2
    with pytest.raises(TypeError, match="cannot change"):
        del instance.a
    instance._p_oid = b"12345678"
    del instance._p_oid
    assert instance._p_oid is None


@pytest.fixture
def broken_conn(gone: ModuleType, db: DB) -> Connection:
    """A connection to a database whose objects' classes are gone."""
    with db.transaction() as conn:
        root = conn.root()
        root["thing"] = thing = gone.Thing()
        thing.x = 1
        thing.other = gone.Thing()
        thing.other.x = 2
        root["keyed"] = gone.Keyed("key")
        root["keyed"].x = 3
        root["part"] = gone.Part(x=4, thing=thing)
    conn.cacheMinimize()
    del sys.modules[GONE]
    return DB(db.storage).open()


def test_broken_objects_of_a_database_keep_their_state_as_ghosts_too(broken_conn: Connection) -> None:
    thing = broken_conn.root()["thing"]
    assert isinstance(thing, PersistentBroken)
    assert thing.broken_state["x"] == 1
    assert thing.broken_state["other"].broken_state == {"x": 2}
    keyed = broken_conn.root()["keyed"]
    assert keyed.broken_state == {"x": 3}
    keyed._p_deactivate()
    assert keyed.__getnewargs__() == ("key",)
    assert keyed.broken_state == {"x": 3}


def test_tools_look_into_broken_objects_by_zodbs_names(broken_conn: Connection) -> None:
    root = broken_conn.root()
    for broken in (root["thing"], root["keyed"], root["part"]):
        assert IBroken.providedBy(broken)
        verifyObject(IBroken, broken)
    root["keyed"]._p_deactivate()
    assert root["keyed"].__Broken_newargs__ == ("key",)
    assert root["keyed"].__Broken_state__ == {"x": 3}
    assert root["part"].__Broken_newargs__ == ()
    assert root["part"].__Broken_initargs__ is None
    called = find_class("no.such.module", "Name")(1, 2)
    assert (called.__Broken_newargs__, called.__Broken_initargs__, called.__Broken_state__) == ((1, 2), (1, 2), None)


def test_broken_objects_go_into_the_database_unharmed(broken_conn: Connection, gone: ModuleType) -> None:
    root = broken_conn.root()
    before = {oid: broken_conn._snapshot.load(oid)[0] for oid in (root["keyed"]._p_oid, root["thing"]._p_oid)}
    root["also"] = [root["part"], root["thing"]]  # makes the root, with the broken part in it, change
    root["keyed"]._p_changed = True
    root["thing"]._p_changed = True
    broken_conn.transaction_manager.commit()
    again = DB(broken_conn.db().storage).open()
    assert again._snapshot.load(root["keyed"]._p_oid)[0] == before[root["keyed"]._p_oid]
    assert again.root()["part"].broken_state["x"] == 4
    sys.modules[GONE] = gone
    healed = DB(broken_conn.db().storage).open().root()
    assert (healed["part"].x, healed["part"].thing, healed["also"][1].x) == (4, healed["thing"], 1)
    assert (healed["keyed"].x, healed["keyed"].__getnewargs__()) == (3, ("key",))
    assert healed["thing"].other.x == 2
