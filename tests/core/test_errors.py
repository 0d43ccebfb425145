"""The errors: the tree, texts, pickles, and what they become on the wire, with ZEO's client as the oracle."""

import copy
import inspect
import pickle
import re
import subprocess
import sys
from typing import Any

import pytest
import ZEO.Exceptions  # noqa: F401 - these three have the twins, which are only looked for where they are imported
import ZODB.interfaces
import ZODB.POSException  # noqa: F401
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
    (errors.AccessDeniedError("text"), "text"),
    (errors.StorageTransactionError("text"), "text"),
    (errors.StorageClosedError("text"), "text"),
    (errors.FileFormatError("Data.fs", 4, "no length"), "Data.fs: damaged at byte 4: no length"),
    (errors.UndoError("packed"), "cannot undo: packed"),
    (errors.UndoError("changed since", OID), "cannot undo: changed since (oid 0x2a)"),
    (
        errors.MultipleUndoErrors([(OID, "changed since"), (ZERO_TID, "gone")]),
        "cannot undo: changed since (oid 0x2a), gone (oid 0x00)",
    ),
    (errors.MetadataError("text"), "text"),
    (errors.UnknownIteratorError(3), "no iterator 3 is open"),
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
        errors.ClientDisconnected("db:9672", "reset", "2026-11-22 13:27:06"),
        "disconnected from db:9672: reset (at 2026-11-22 13:27:06)",
    ),
    (
        errors.NotCommittedError("db:9672", "reset"),
        "not committed: the connection to db:9672 was lost before the server wrote it: reset",
    ),
    (
        errors.CommitInDoubtError("db:9672", "reset"),
        "commit in doubt: the connection to db:9672 was lost before it was confirmed: reset",
    ),
    (errors.ServerError("shop.Error", ("text", 1)), "the server reported shop.Error: ('text', 1)"),
    (errors.InvalidObjectReference("text"), "text"),
    (errors.ReadOnlyHistoryError("text"), "text"),
    (errors.ConnectionStateError("text"), "text"),
    (errors.BlobError("text"), "text"),
    (errors.OpenedBlobError("text"), "text"),
    (errors.Unsupported("text"), "text"),
    (errors.ExportError("x.zexp", "cut off"), "x.zexp: cannot be imported: cut off"),
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
    assert sorted(drawn) == sorted(name for name in errors.__all__ if not name.islower())


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
    assert retried == {"ConflictError", "ReadConflictError", "ClientDisconnected", "NotCommittedError"}


def test_what_mappings_and_callers_of_the_time_before_expect() -> None:
    assert issubclass(errors.POSKeyError, KeyError)


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
