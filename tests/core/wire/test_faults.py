"""What errors become on the wire, and what is made of answers, with ZEO's client as the oracle."""

from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import pytest
import ZEO.asyncio.client
import ZEO.asyncio.marshal
import ZODB.POSException
from hypothesis import example, given
from hypothesis import strategies as st

from tests.core.test_errors import CLASSES, ERRORS, NEW, OID, OLD, class_of
from zeo_core import errors
from zeo_core.ids import ZERO_TID
from zeo_core.wire.faults import from_wire, to_wire

# -- to the wire ------------------------------------------------------------------------------------------------------


def over_the_wire(error: BaseException) -> tuple[str, Any]:
    """Return what a peer gets of `error`; whatever it is, msgpack must carry it."""
    name, arguments = msgpack.unpackb(msgpack.packb(to_wire(error)), use_list=False)
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


AS_BUILTINS: Mapping[type[Exception], type[Exception]] = {
    errors.MetadataError: TypeError,
    errors.UnknownIteratorError: KeyError,
}
"""What arrives as a builtin error: ZEO's server lets its own out there."""


@ERRORS
def test_what_a_zeo_client_makes_of_our_errors(error: Exception) -> None:
    known = {**ZEO_KNOWS, **AS_BUILTINS}
    assert type(at_a_zeo_client(error)) is known.get(class_of(error), ZEO.asyncio.client.ServerException)


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
    made = from_wire(*over_the_wire(error))
    own = (
        *(errors.AccessDeniedError, errors.StorageError, errors.StorageClosedError, errors.StorageFullError),
        *(errors.UndoError,),
        # of a server that is without the one whose storage it serves on, or is about to go away itself
        *(errors.ClientDisconnected, errors.NotCommittedError, errors.CommitInDoubtError),
    )
    if class_of(error) in ZEO_KNOWS or class_of(error) in own:
        assert class_of(made) is class_of(error)
        assert vars(made) == vars(error)
        assert str(made) == str(error)
    elif class_of(error) in AS_BUILTINS:
        assert class_of(made) is AS_BUILTINS[class_of(error)]
    elif isinstance(error, errors.StorageError):
        assert class_of(made) is errors.StorageError
    else:
        assert class_of(made) is errors.ServerError
        assert str(error).split(":")[0][:20] in str(made) or error.args[0] in str(made)


@pytest.mark.parametrize("error", [cls("text") for cls in BUILTINS], ids=repr)
def test_builtins_arrive_as_they_are(error: Exception) -> None:
    made = from_wire(*over_the_wire(error))
    assert (class_of(made), made.args) == (class_of(error), error.args)


# an UndoError of ZODB's holds others of its kind, which msgpack cannot carry: ZEO's server cannot send one
ZEO_SENDS = [cls for cls in ZEO_KNOWS if cls is not errors.MultipleUndoErrors]


@pytest.mark.parametrize("ours", ZEO_SENDS, ids=lambda cls: cls.__name__)
def test_what_we_make_of_zeos_errors(ours: type[Exception]) -> None:
    theirs: Any = ZEO_KNOWS[ours]
    error = theirs(oid=OID, serials=(NEW, OLD)) if issubclass(ours, errors.ConflictError) else theirs(OID)
    reduced = ZEO.asyncio.marshal.reduce_exception(error)
    made = from_wire(*msgpack.unpackb(msgpack.packb(reduced), use_list=False))
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
    made = from_wire(name, arguments)
    assert class_of(made) in CLASSES_ON_THE_WIRE
    str(made)
    if isinstance(made, errors.ServerError):
        assert len(str(made)) < 10_000
    if class_of(made) in MAY_BE_MADE:
        assert name in KNOWN_NAMES


def test_a_conflict_that_makes_no_sense_is_shown_as_it_came() -> None:
    made = from_wire("ZODB.POSException.ConflictError", {"oid": 5, "serials": (ZERO_TID,)})
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
    made = from_wire(f"ZODB.POSException.{name}", arguments)
    assert isinstance(made, errors.ServerError)
    assert made.arguments == arguments


def test_a_missing_blob_of_zodbs_storages_is_known_by_its_oid() -> None:
    made = from_wire("ZODB.POSException.POSKeyError", ("No blob file at /x", OID, ZERO_TID))
    assert isinstance(made, errors.POSKeyError)
    assert made.oid == OID
