"""The errors: the tree, texts, pickles, and what they become on the wire, with ZEO's client as the oracle."""

import copy
import inspect
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import pytest
import ZEO.asyncio.client
import ZEO.asyncio.marshal
import ZODB.POSException
from hypothesis import example, given
from hypothesis import strategies as st
from transaction.interfaces import TransientError

from zeo_core import errors
from zeo_core.ids import ZERO_TID, pack_id, tid_from_time

OID = pack_id(0x2A)
OLD, NEW = tid_from_time(0), tid_from_time(60)

EXAMPLES: list[tuple[Exception, str]] = [
    (errors.ZeodError("text"), "text"),
    (errors.StorageError("text"), "text"),
    (errors.POSKeyError(OID), "no object with oid 0x2a"),
    (errors.ReadOnlyError("text"), "text"),
    (errors.StorageTransactionError("text"), "text"),
    (errors.StorageClosedError("text"), "text"),
    (errors.FileFormatError("Data.fs", 4, "no length"), "Data.fs: damaged at byte 4: no length"),
    (errors.UndoError("packed"), "cannot undo: packed"),
    (errors.UndoError("changed since", OID), "cannot undo: changed since (oid 0x2a)"),
    (
        errors.MultipleUndoErrors([(OID, "changed since"), (ZERO_TID, "gone")]),
        "cannot undo: changed since (oid 0x2a), gone (oid 0x00)",
    ),
    (errors.RecordFormatError("text"), "text"),
    (errors.FileLockedError("Data.fs"), "Data.fs: in use by another process"),
    (errors.FileLockedError("Data.fs", "pid 7"), "Data.fs: in use by another process (pid 7)"),
    (errors.StorageFullError("Data.fs", "no space"), "Data.fs: no space"),
    (errors.ConflictError(), "database conflict error"),
    (errors.ConflictError("text"), "text"),
    (
        errors.ConflictError(oid=OID, serials=(NEW, OLD), class_name="shop.Cart"),
        "database conflict error (oid 0x2a, class shop.Cart, serial this txn started with 0x023c2b0000000000 "
        "1970-01-01 00:00:00.000000, serial currently committed 0x023c2b0100000000 1970-01-01 00:01:00.000000)",
    ),
    (errors.ReadConflictError(oid=OID), "database read conflict error (oid 0x2a)"),
    (errors.ClientDisconnected(), "disconnected from the server"),
    (errors.ClientDisconnected("db:9672", "timed out"), "disconnected from db:9672: timed out"),
    (
        errors.CommitInDoubtError("db:9672", "reset"),
        "commit in doubt: the connection to db:9672 was lost before it was confirmed: reset",
    ),
    (errors.ServerError("shop.Error", ("text", 1)), "the server reported shop.Error: ('text', 1)"),
    (errors.InvalidObjectReference("text"), "text"),
    (errors.ConnectionStateError("text"), "text"),
    (
        errors.StateLoadError("shop.Cart", OID, "no items"),
        "cannot load the state of shop.Cart with oid 0x2a: no items",
    ),
    (
        errors.UnpicklableError("shop.Cart", OID, ".items['x']", "no pickle"),
        "cannot store shop.Cart with oid 0x2a, at .items['x']: no pickle",
    ),
    (errors.UnpicklableError("shop.Cart", None, "", "no pickle"), "cannot store shop.Cart with oid None: no pickle"),
    (errors.ConfigurationError("text"), "text"),
    (errors.ProtocolError("text"), "text"),
    (errors.LocalProtocolError("text"), "text"),
    (errors.RemoteProtocolError("text"), "text"),
]
CLASSES = {
    name: cls
    for name, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, Exception) and cls.__module__ == errors.__name__
}


def class_of(error: Exception) -> type[Exception]:
    """Return the class that the test names, where the error is of one made of that and ZODB's."""
    return next((cls for cls in type(error).__mro__ if cls in CLASSES.values()), type(error))


ERRORS = pytest.mark.parametrize("error", [error for error, _ in EXAMPLES], ids=repr)

TREE_LINE = re.compile(r"^ {4}((?:[| ] {2})*)(?:\+- )?(\w+)(?: \((\w+)\))?(?: {2,}(.*))?$", re.MULTILINE)


def drawn_tree() -> dict[str, tuple[list[str], str]]:
    """Read the module's docstring: class name -> (names of its bases, what stands behind it)."""
    path: list[str] = []
    tree = {}
    for indent, name, other_base, text in TREE_LINE.findall(inspect.getdoc(errors) or ""):
        depth = len(indent) // 3 + (name != "ZeodError")
        path[depth:] = [name]
        bases = path[depth - 1 : depth] if depth else ["Exception"]
        tree[name] = ([*bases, *([other_base] if other_base else [])], text)
    return tree


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    drawn = {name: bases for name, (bases, _) in drawn_tree().items()}
    assert drawn == {name: [base.__name__ for base in cls.__bases__] for name, cls in CLASSES.items()}
    assert sorted(drawn) == sorted(name for name in errors.__all__ if name not in ("from_wire", "to_wire"))


def test_the_wire_names_in_the_docstring_are_the_real_ones() -> None:
    drawn = {
        name: match[1].replace("...", "ZODB.POSException.")
        for name, (_, text) in drawn_tree().items()
        if (match := re.search(r"wire: ([\w.]+)", text))
    }
    # the base's own name is for its children, which ZEO's clients do not know
    own = {name: vars(cls)["wire_name"] for name, cls in CLASSES.items() if "wire_name" in vars(cls)}
    assert own.pop("StorageError") == "ZODB.POSException.StorageError"
    assert drawn == own


def test_there_is_an_example_of_every_class() -> None:
    assert {class_of(error) for error, _ in EXAMPLES} == set(CLASSES.values())


@pytest.mark.parametrize(("error", "text"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_the_text_of_an_error(error: Exception, text: str) -> None:
    assert str(error) == text


@ERRORS
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_error_keeps_its_fields(error: Exception, protocol: int) -> None:
    for copied in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error), copy.deepcopy(error)):
        assert type(copied) is type(error)
        assert vars(copied) == vars(error)
        assert copied.args == error.args
        assert str(copied) == str(error)


def test_what_the_retry_loops_of_transaction_retry() -> None:
    retried = {name for name, cls in CLASSES.items() if issubclass(cls, TransientError)}
    assert retried == {"ConflictError", "ReadConflictError", "ClientDisconnected"}


def test_what_mappings_and_callers_of_the_time_before_expect() -> None:
    assert issubclass(errors.POSKeyError, KeyError)


# -- to the wire ------------------------------------------------------------------------------------------------------


def over_the_wire(error: BaseException) -> tuple[str, Any]:
    """Return what a peer gets of `error`; whatever it is, msgpack must carry it."""
    name, arguments = msgpack.unpackb(msgpack.packb(errors.to_wire(error)), use_list=False)
    assert isinstance(name, str)
    return name, arguments


def at_a_zeo_client(error: BaseException) -> Exception:
    """Return the exception that ZEO's client raises for what we send."""
    name, arguments = over_the_wire(error)
    factory = ZEO.asyncio.client.exc_factories.get(name)
    made = factory(name, arguments) if factory else ZEO.asyncio.client.ServerException(name, arguments)
    assert isinstance(made, Exception)
    str(made)
    return made


ZEO_KNOWS: Mapping[type[Exception], type[Exception]] = {
    errors.POSKeyError: ZODB.POSException.POSKeyError,
    errors.ReadOnlyError: ZODB.POSException.ReadOnlyError,
    errors.StorageTransactionError: ZODB.POSException.StorageTransactionError,
    errors.MultipleUndoErrors: ZODB.POSException.MultipleUndoErrors,
    errors.ConflictError: ZODB.POSException.ConflictError,
    errors.ReadConflictError: ZODB.POSException.ReadConflictError,
}


@ERRORS
def test_what_a_zeo_client_makes_of_our_errors(error: Exception) -> None:
    assert type(at_a_zeo_client(error)) is ZEO_KNOWS.get(class_of(error), ZEO.asyncio.client.ServerException)


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), errors.POSKeyError(OID), errors.ReadOnlyError()])
def test_a_zeo_client_gets_the_arguments(error: Exception) -> None:
    assert at_a_zeo_client(error).args == error.args


@pytest.mark.parametrize("cls", [errors.ConflictError, errors.ReadConflictError])
def test_a_zeo_client_gets_the_fields_of_a_conflict(cls: type[errors.ConflictError]) -> None:
    at_client: Any = at_a_zeo_client(cls("text", OID, (NEW, OLD), "shop.Cart"))
    assert at_client.message == "text"
    assert at_client.oid == OID
    assert at_client.get_serials() == (NEW, OLD)
    assert at_client.class_name == "shop.Cart"


def test_a_zeo_client_gets_a_conflict_that_has_no_fields() -> None:
    at_client: Any = at_a_zeo_client(errors.ConflictError("text"))
    assert (at_client.message, at_client.oid, at_client.serials, at_client.class_name) == ("text", None, None, None)


def test_an_error_without_a_class_at_the_peer_says_what_it_is() -> None:
    assert over_the_wire(errors.FileFormatError("Data.fs", 4, "no length")) == (
        "ZODB.POSException.StorageError",
        ("Data.fs: damaged at byte 4: no length",),
    )
    assert over_the_wire(errors.ConfigurationError("text")) == ("zeo_core.errors.ConfigurationError", ("text",))
    assert over_the_wire(ZeroDivisionError("text")) == ("builtins.ZeroDivisionError", ("text",))


@pytest.mark.parametrize(
    ("argument", "carried"),
    [
        (2**64, "18446744073709551616"),
        (-(2**63) - 1, "-9223372036854775809"),
        (2**64 - 1, 2**64 - 1),
        ("Data\udc80.fs", "Data\\udc80.fs"),
        (1.5, 1.5),
        (True, True),
        ([1], "[1]"),
        (ValueError("x"), "x"),
        (b"\xff", b"\xff"),
    ],
)
def test_arguments_that_msgpack_could_not_carry_become_text(argument: object, carried: object) -> None:
    assert over_the_wire(KeyError(argument)) == ("builtins.KeyError", (carried,))
    assert over_the_wire(errors.ConflictError(argument))[1]["message"] == carried  # type: ignore[arg-type]


@given(st.lists(st.one_of(st.integers(), st.text(st.characters(codec=None)), st.binary(), st.floats(), st.none())))
def test_any_error_can_be_sent(arguments: list[Any]) -> None:
    for error in (OSError(*arguments), errors.StorageError(*arguments), errors.ConflictError(*arguments[:1])):
        over_the_wire(error)


# -- from the wire ----------------------------------------------------------------------------------------------------

BUILTINS = (KeyError, TypeError, ValueError)


@ERRORS
def test_what_we_make_of_our_own_errors(error: Exception) -> None:
    made = errors.from_wire(*over_the_wire(error))
    if class_of(error) in ZEO_KNOWS or class_of(error) in (errors.StorageError, errors.UndoError):
        assert class_of(made) is class_of(error)
        assert vars(made) == vars(error)
        assert str(made) == str(error)
    elif isinstance(error, errors.StorageError):
        assert class_of(made) is errors.StorageError
    else:
        assert class_of(made) is errors.ServerError
        assert str(error).split(":")[0][:20] in str(made) or error.args[0] in str(made)


@pytest.mark.parametrize("error", [cls("text") for cls in BUILTINS], ids=repr)
def test_builtins_arrive_as_they_are(error: Exception) -> None:
    made = errors.from_wire(*over_the_wire(error))
    assert (class_of(made), made.args) == (class_of(error), error.args)


# an UndoError of ZODB's holds others of its kind, which msgpack cannot carry: ZEO's server cannot send one
ZEO_SENDS = [cls for cls in ZEO_KNOWS if cls is not errors.MultipleUndoErrors]


@pytest.mark.parametrize("ours", ZEO_SENDS, ids=lambda cls: cls.__name__)
def test_what_we_make_of_zeos_errors(ours: type[Exception]) -> None:
    theirs: Any = ZEO_KNOWS[ours]
    error = theirs(oid=OID, serials=(NEW, OLD)) if issubclass(ours, errors.ConflictError) else theirs(OID)
    reduced = ZEO.asyncio.marshal.reduce_exception(error)
    made = errors.from_wire(*msgpack.unpackb(msgpack.packb(reduced), use_list=False))
    assert class_of(made) is ours
    if isinstance(made, errors.ConflictError):
        assert (made.oid, made.serials) == (OID, (NEW, OLD))
        assert made.message == error.message
    elif isinstance(made, errors.POSKeyError):
        assert made.oid == OID


CLASSES_ON_THE_WIRE = [*BUILTINS, *(cls for cls in CLASSES.values() if hasattr(cls, "wire_name")), errors.ServerError]
MAY_BE_MADE = [cls for cls in CLASSES_ON_THE_WIRE if cls is not errors.ServerError]
KNOWN_NAMES = [f"builtins.{cls.__name__}" for cls in BUILTINS] + sorted(
    {cls.wire_name for cls in CLASSES.values() if hasattr(cls, "wire_name")}
)


def deep(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = (value,)
    return value


packable = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.just(OID)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(st.sampled_from(["message", "oid", "serials", "class_name", "x"]), inner, max_size=5),
    ),
    max_leaves=10,
)
names = st.one_of(st.sampled_from(KNOWN_NAMES), st.text(), packable)


@given(names, packable)
@example("ZODB.POSException.ConflictError", {"message": 5})
@example("ZODB.POSException.ConflictError", {"serials": (OID,)})
@example("ZODB.POSException.ConflictError", {"serials": "ab"})
@example("ZODB.POSException.ConflictError", {"class_name": 1, "oid": OID})
@example("ZODB.POSException.ConflictError", (None, None, (1, 2)))
@example("ZODB.POSException.ConflictError", (1, 2, 3, 4, 5))
@example("ZODB.POSException.POSKeyError", ())
@example("builtins.KeyError", "text")
@example("x" * 10_000, "x" * 100_000)
@example("os.system", ("true",))
@example("zeo_core.errors.ClientDisconnected", ("", ""))
@example("ZODB.POSException.MultipleUndoErrors", {"_errs": ((OID, "x"),)})
def test_no_answer_of_a_peer_raises(name: object, arguments: object) -> None:
    check_harmless(name, arguments)


# msgpack decodes about 1,020 levels, more than repr can take; so can hypothesis, so that these have a test of their own
@pytest.mark.parametrize("name", [*KNOWN_NAMES, "shop.Error"])
@pytest.mark.parametrize("wrap", [tuple, lambda value: (value[0],), lambda value: {"message": value[0], "oid": value}])
def test_no_deep_answer_of_a_peer_raises(name: str, wrap: Callable[[Any], object]) -> None:
    check_harmless(name, wrap(deep(1020)))
    check_harmless(deep(1020), ())


def check_harmless(name: object, arguments: object) -> None:
    made = errors.from_wire(name, arguments)
    assert class_of(made) in CLASSES_ON_THE_WIRE
    str(made)
    if isinstance(made, errors.ServerError):
        assert len(str(made)) < 10_000
    if class_of(made) in MAY_BE_MADE:
        assert name in KNOWN_NAMES


def test_a_conflict_that_makes_no_sense_is_shown_as_it_came() -> None:
    made = errors.from_wire("ZODB.POSException.ConflictError", {"oid": 5, "serials": (ZERO_TID,)})
    assert isinstance(made, errors.ServerError)
    assert "ZODB.POSException.ConflictError" in str(made)
    assert "'oid': 5" in str(made)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("UndoError", (1, OID)),
        ("UndoError", ("text", b"short")),
        ("UndoError", ("text", OID, "more")),
        ("MultipleUndoErrors", ()),
        ("MultipleUndoErrors", {"_errs": []}),
        ("MultipleUndoErrors", {"_errs": [(OID, "text"), (OID,)]}),
        ("MultipleUndoErrors", {"_errs": [(b"short", "text")]}),
        ("MultipleUndoErrors", {"_errs": [(OID, 1)]}),
    ],
)
def test_an_undo_error_that_makes_no_sense_is_shown_as_it_came(name: str, arguments: object) -> None:
    made = errors.from_wire(f"ZODB.POSException.{name}", arguments)
    assert isinstance(made, errors.ServerError)
    assert made.arguments == arguments


# -- twins ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [error for error, _ in EXAMPLES if hasattr(error, "twin_name")], ids=repr)
def test_who_catches_the_error_of_zodb_or_zeo_catches_ours(error: Exception) -> None:
    module, _, name = error.twin_name.rpartition(".")  # type: ignore[attr-defined]
    twin = getattr(sys.modules[module], name)
    assert isinstance(error, twin)
    assert isinstance(error, class_of(error))
    assert type(error).__qualname__ == class_of(error).__qualname__
    assert type(error).__module__ == errors.__name__
    made = type(error)(*error.args)
    assert type(made) is type(error)


def test_zodbs_attributes_of_a_conflict_are_there() -> None:
    error: Any = errors.ConflictError(oid=OID, serials=(NEW, OLD), class_name="shop.Cart")
    assert (error.get_oid(), error.get_class_name()) == (OID, "shop.Cart")
    assert (error.get_old_serial(), error.get_new_serial()) == (OLD, NEW)


def test_without_zodb_an_error_is_of_its_own_class_alone() -> None:
    code = (
        "import sys; from zeo_core import errors; error = errors.POSKeyError(bytes(8));"
        "assert type(error) is errors.POSKeyError, type(error).__mro__;"
        "assert not [name for name in sys.modules if name.startswith(('ZODB', 'ZEO'))];"
        "import ZODB.POSException;"
        "assert isinstance(errors.POSKeyError(bytes(8)), ZODB.POSException.POSKeyError)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
