"""Conflict resolution: what is resolved, what is not and why, and ZODB's own resolver as the oracle."""

import pickle as standard_pickle
import zlib
from collections.abc import Iterable
from importlib import import_module
from io import BytesIO
from typing import Any

import pytest
import ZODB.ConflictResolution
from BTrees.Length import Length
from BTrees.OOBTree import OOBucket
from persistent import Persistent
from zodbpickle import pickle

from zeo_core.errors import ConflictError
from zeo_core.ids import pack_id
from zeo_core.resolve import ClassLoader, PersistentReference, UnresolvedError, resolve

OID = pack_id(7)


class Counter(Persistent):
    """Adds up the changes."""

    def _p_resolveConflict(self, old: Any, saved: Any, new: Any) -> Any:  # noqa: N802 - its name
        return {**new, "n": saved["n"] + new["n"] - old["n"]}


class Stubborn(Persistent):
    """Resolves nothing."""

    def _p_resolveConflict(self, *_states: Any) -> Any:  # noqa: N802 - its name
        raise ConflictError("on principle")


class Faulty(Persistent):
    """Has a fault."""

    def _p_resolveConflict(self, *_states: Any) -> Any:  # noqa: N802 - its name
        raise ZeroDivisionError("a fault")


class Made(Counter):
    """Is made with arguments."""

    def __new__(cls, *arguments: Any) -> Any:
        made = super().__new__(cls)
        assert arguments == ("argument",)
        return made


class Plain(Persistent):
    """Has no way to resolve conflicts."""


class Reference:
    """Written as a persistent reference."""

    def __init__(self, data: Any) -> None:
        self.data = data


def load_class(module: str, name: str) -> Any:
    """Import anything."""
    return getattr(import_module(module), name)


def record(metadata: Any, state: Any) -> bytes:
    file = BytesIO()
    pickler = pickle.Pickler(file, 3)
    pickler.persistent_id = lambda obj: obj.data if isinstance(obj, Reference) else None
    pickler.dump(metadata)
    pickler.dump(state)
    return file.getvalue()


def resolved_of(records: Iterable[bytes], loader: ClassLoader = load_class) -> bytes:
    old, committed, new = records
    return resolve(old, committed, new, loader)


def state_of(data: bytes) -> Any:
    unpickler = pickle.Unpickler(BytesIO(data))
    unpickler.persistent_load = lambda reference: ("reference", reference)
    unpickler.load()
    return unpickler.load()


def counters(metadata: Any, **more: Any) -> list[bytes]:
    return [record(metadata, {"n": n, **more}) for n in (1, 5, 3)]


@pytest.mark.parametrize(
    "metadata",
    [Counter, (Counter, None), (Counter, ()), ((Counter.__module__, "Counter"), None), (Made, ("argument",))],
    ids=repr,
)
def test_a_class_that_can_adds_both_changes(metadata: Any) -> None:
    resolved = resolved_of(counters(metadata))
    assert state_of(resolved) == {"n": 7}
    assert resolved == record(metadata, {"n": 7})


def test_compressed_records_are_resolved() -> None:
    compressed = [b".z" + zlib.compress(each) for each in counters(Counter)]
    assert resolved_of(compressed) == record(Counter, {"n": 7})


def test_lengths_and_buckets_are_resolved() -> None:
    assert state_of(resolved_of(record(Length, n) for n in (10, 11, 13))) == 14
    states = [OOBucket(dict.fromkeys(keys, 1)).__getstate__() for keys in ("ab", "abc", "abd")]
    merged = state_of(resolved_of(record(OOBucket, state) for state in states))
    assert merged[0] == tuple(x for key in "abcd" for x in (key, 1))


@pytest.mark.parametrize(
    "reference",
    [
        OID,
        (OID, Counter),
        ["w", (OID,)],
        ["w", (OID, "other")],
        ["n", ("other", OID)],
        ["m", ("other", OID, Counter)],
        [OID],
    ],
    ids=repr,
)
def test_references_go_through(reference: Any) -> None:
    resolved = resolved_of(counters(Counter, other=Reference(reference)))
    assert state_of(resolved) == {"n": 7, "other": ("reference", reference)}


@pytest.mark.parametrize("form", [lambda cls: (OID, cls), lambda cls: ["m", ("other", OID, cls)]], ids=["oid", "m"])
def test_a_reference_to_an_object_of_an_absent_class_keeps_its_name(form: Any) -> None:
    def without_plain(module: str, name: str) -> Any:
        if name == "Plain":
            raise AttributeError(name)
        return load_class(module, name)

    resolved = resolved_of(counters(Counter, other=Reference(form(Plain))), without_plain)
    assert state_of(resolved)["other"] == ("reference", form((Plain.__module__, "Plain")))


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        (counters(Plain), "no _p_resolveConflict"),
        (counters(Stubborn), "on principle"),
        (counters((("no.such.module", "Class"), None)), "no class no.such.module.Class"),
        (counters(Reference(OID)), "an object of the database"),
        ([b"{other}1", b"{other}2", b"{other}3"], "format 'other'"),
    ],
)
def test_what_is_not_resolved_for_a_known_reason(records: list[bytes], reason: str) -> None:
    with pytest.raises(UnresolvedError, match=reason) as caught:
        resolved_of(records)
    assert caught.value.expected


@pytest.mark.parametrize("records", [counters(Faulty), [b"", b"", b""], [*counters(Counter)[:2], record(Counter, [])]])
def test_whatever_else_goes_wrong_is_unresolved_too(records: list[bytes]) -> None:
    with pytest.raises(UnresolvedError) as caught:
        resolved_of(records)
    assert not caught.value.expected


def test_buckets_with_the_same_object_for_a_key_are_resolved_and_with_others_not() -> None:
    def buckets(*oids: int) -> list[bytes]:
        made = []
        for number, oid in enumerate(oids):
            state = ("a", Reference((pack_id(oid), Plain)), f"k{number}", 1)
            made.append(record(OOBucket, (state if number else state[:2],)))
        return made

    merged = state_of(resolved_of(buckets(1, 1, 1)))
    assert merged[0][0::2] == ("a", "k1", "k2")
    with pytest.raises(UnresolvedError):
        resolved_of(buckets(1, 2, 1))


def test_references_to_one_object_are_equal_and_no_others_can_be_compared() -> None:
    one, same = PersistentReference(OID), PersistentReference((OID, Plain))
    assert one == same
    assert one <= same
    assert one >= same
    assert not one < same
    assert not one > same
    for other in (pack_id(8), ["w", (OID,)], ["n", ("other", OID)], [OID]):
        with pytest.raises(ValueError, match="reliably"):
            assert one == PersistentReference(other)
    weak = PersistentReference(["w", (OID,)])
    assert weak == weak  # the very same: all that can be told of a weak one
    with pytest.raises(TypeError):
        hash(one)
    with pytest.raises(pickle.PicklingError):
        standard_pickle.dumps(one)


def test_python_2s_text_oids_are_read() -> None:
    assert PersistentReference("\0" * 7 + "\7").oid == OID
    with pytest.raises(UnresolvedError, match="unknown kind"):
        PersistentReference(["z", ()])


def test_zodb_resolves_to_the_same_bytes() -> None:
    class Theirs(ZODB.ConflictResolution.ConflictResolvingStorage):
        def __init__(self, records: dict[bytes, bytes]) -> None:
            self.loadSerial = lambda _oid, serial: records[serial]

    for records in (counters(Counter, other=Reference((OID, Plain))), [record(Length, n) for n in (1, 2, 3)]):
        old, committed, new = records
        theirs = Theirs({b"old": old, b"committed": committed}).tryToResolveConflict(OID, b"committed", b"old", new)
        assert resolved_of(records) == theirs
