"""Conflicts between records with messages: what each side refers to stays what it refers to."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import protobuf_schemas as schemas
from tests.records import node
from zeo_core.errors import ConflictError
from zeo_core.ids import pack_id
from zeo_core.protobuf_merge import MergeConflict
from zeo_core.protobuf_record import ClassMetadata, ObjectRecord, Reference, decode, encode
from zeo_core.protobuf_resolve import MergeRule, merge_records, merge_rule
from zeo_core.resolve import PersistentReference, UnresolvedError, resolve

Contact: Any = schemas.message_class(schemas.contacts, "Contact")
OLDER = schemas.proto2_file("older.proto", "older", schemas.message("Contact", "required uint64 create_time = 1"))
Older: Any = schemas.message_class(OLDER, "Contact")
SETS = MergeRule(Contact, frozenset({"guardians"}))
PLAIN = MergeRule(Contact)
PCONTACT = ClassMetadata("app.contacts", "PContact")

ALICE, BOB, CAROL, DAVE = 101, 102, 103, 104


def record(guardians: list[int], spouse: int = 0, first: int = 1, **fields: Any) -> bytes:
    """Return a contact's record; its refids are given out from `first` on, in the order of the targets."""
    targets = [*guardians, *([spouse] if spouse else [])]
    numbers = {zoid: refid for refid, zoid in enumerate(dict.fromkeys(targets), first)}
    message = Contact(create_time=1, guardians=[{"_p_refid": numbers[zoid]} for zoid in guardians], **fields)
    if spouse:
        message.spouse._p_refid = numbers[spouse]
    references = tuple(Reference(refid, zoid, PCONTACT) for zoid, refid in numbers.items())
    return encode(ObjectRecord(PCONTACT, message.SerializeToString(), references))


def shown(data: bytes) -> dict[str, Any]:
    """Return what a record says, its refids replaced by the oids that they stand for."""
    found = decode(data)
    targets = {reference.refid: reference.zoid for reference in found.references}
    message = Contact.FromString(found.state)
    used = {ref._p_refid for ref in message.guardians} | {message.spouse._p_refid} - {0}
    assert used == targets.keys()
    guardians = [targets[ref._p_refid] for ref in message.guardians]
    return {"guardians": guardians, "spouse": targets.get(message.spouse._p_refid, 0), "name": message.name}


def test_both_sides_number_their_new_references_alike() -> None:
    """Each gives the next refid to what it adds, so that one number stands for two objects."""
    old, committed, new = record([ALICE]), record([ALICE, BOB]), record([ALICE, CAROL])
    merged = merge_records(old, committed, new, SETS)
    assert shown(merged)["guardians"] == [ALICE, BOB, CAROL]
    assert decode(merged).references[:2] == decode(committed).references
    with pytest.raises(MergeConflict, match="both sides have changed guardians"):
        merge_records(old, committed, new, PLAIN)


def test_one_object_has_other_refids_on_each_side() -> None:
    old, committed, new = record([ALICE, BOB]), record([ALICE, BOB], first=7), record([ALICE, BOB], first=2, name="B")
    assert shown(merge_records(old, committed, new, PLAIN)) == {"guardians": [ALICE, BOB], "spouse": 0, "name": "B"}


def test_what_is_not_referred_to_any_more_is_not_listed() -> None:
    old, committed, new = record([ALICE, BOB]), record([BOB]), record([ALICE, BOB], spouse=CAROL)
    merged = merge_records(old, committed, new, SETS)
    assert shown(merged) == {"guardians": [BOB], "spouse": CAROL, "name": ""}
    with pytest.raises(MergeConflict, match="spouse"):
        merge_records(old, record([], spouse=DAVE), new, SETS)


people = st.lists(st.sampled_from([ALICE, BOB, CAROL, DAVE]), unique=True, max_size=4)
states = st.tuples(people, st.sampled_from([0, ALICE, DAVE]), st.integers(1, 4))


@given(states, states, states)
def test_sets_and_single_references_are_merged_as_the_objects_they_lead_to(old: Any, committed: Any, new: Any) -> None:
    rows = [set(each[0]) for each in (old, committed, new)]
    spouses = [each[1] for each in (old, committed, new)]
    given = record(*old), record(*committed), record(*new), SETS
    if len(set(spouses)) == 3:
        with pytest.raises(MergeConflict, match="spouse"):
            merge_records(*given)
        return
    merged = shown(merge_records(*given))
    assert set(merged["guardians"]) == (rows[1] - (rows[0] - rows[2])) | (rows[2] - rows[0])
    assert merged["spouse"] == (spouses[2] if spouses[2] != spouses[0] else spouses[1])


def test_references_that_the_schema_does_not_show_cannot_be_merged() -> None:
    with pytest.raises(ValueError, match=r"refids stand in fields that the schema lacks: \[1\]"):
        merge_records(record([ALICE]), record([ALICE]), record([ALICE, BOB]), MergeRule(Older))
    state = Contact(create_time=1, spouse={"_p_refid": 9}).SerializeToString()
    bad = encode(ObjectRecord(PCONTACT, state))
    with pytest.raises(ValueError, match="refers to an object as 9, which is none of the references"):
        merge_records(bad, bad, bad, PLAIN)


def test_references_into_other_databases_and_weak_ones_are_objects_of_their_own() -> None:
    def made(reference: Reference, **fields: Any) -> bytes:
        state = Contact(create_time=1, guardians=[{"_p_refid": reference.refid}], **fields).SerializeToString()
        return encode(ObjectRecord(PCONTACT, state, (reference,)))

    strong, weak = Reference(1, ALICE), Reference(1, ALICE, weak=True)
    there = Reference(1, ALICE, PCONTACT, "there")
    with pytest.raises(MergeConflict, match="guardians"):
        merge_records(made(strong), made(weak), made(there), PLAIN)
    merged = decode(merge_records(made(strong), made(there), made(strong._replace(refid=3), name="A"), PLAIN))
    assert merged.references == (there,)


def test_a_class_that_changed_on_one_side_is_a_conflict() -> None:
    other = encode(decode(record([]))._replace(class_meta=ClassMetadata("app", "Other")))
    with pytest.raises(MergeConflict, match="the object's class"):
        merge_records(record([]), other, record([]), PLAIN)
    assert decode(merge_records(record([]), other, other, PLAIN)).class_meta.class_name == "Other"


class PContact:
    """What a class says of itself."""

    protobuf_type = Contact
    protobuf_sets = ("guardians",)


class Simple:
    """Has no sets."""

    protobuf_type = Contact


class Resolving:
    """Does it itself: takes the longer list of the two."""

    protobuf_type = Contact

    def _p_resolveConflict(self, *states: Any) -> Any:  # noqa: N802 - its name
        for _, targets in states:
            assert all(type(target) is PersistentReference for target in targets.values())
        return max(states[1:], key=lambda state: len(state[1]))


class Stubborn:
    """Is not to be merged."""

    protobuf_type = Contact

    def _p_resolveConflict(self, *states: Any) -> Any:  # noqa: N802 - its name
        raise ConflictError("on principle")


def test_the_rule_of_a_class() -> None:
    assert merge_rule(PContact) == SETS
    assert merge_rule(Simple) == PLAIN
    assert merge_rule(object) is None


def loads(cls: type) -> Any:
    def load(module: str, name: str) -> type:
        assert (module, name) == PCONTACT
        return cls

    return load


def no_class(module: str, name: str) -> type:
    raise ImportError(name)


OLD, COMMITTED, NEW = record([ALICE]), record([ALICE, BOB]), record([ALICE, CAROL, DAVE], name="B")


def test_resolving_with_the_class_or_with_a_rule() -> None:
    merged = shown(resolve(OLD, COMMITTED, NEW, loads(PContact)))
    assert merged == {"guardians": [ALICE, BOB, CAROL, DAVE], "spouse": 0, "name": "B"}
    assert shown(resolve(OLD, COMMITTED, NEW, no_class, lambda *_: SETS)) == merged


def test_a_class_with_a_method_of_its_own_is_asked() -> None:
    assert resolve(OLD, COMMITTED, NEW, loads(Resolving)) == NEW


@pytest.mark.parametrize(
    ("load", "expected", "reason"),
    [
        (loads(Simple), True, "both sides have changed guardians"),
        (loads(Stubborn), True, "on principle"),
        (loads(object), True, "neither a protobuf_type nor"),
        (no_class, True, "no class app.contacts.PContact here"),
        (loads(type("Old", (), {"protobuf_type": Older})), False, "fields that the schema lacks"),
    ],
)
def test_what_is_not_resolved(load: Any, expected: bool, reason: str) -> None:
    with pytest.raises(UnresolvedError, match=reason) as caught:
        resolve(OLD, COMMITTED, NEW, load)
    assert caught.value.expected is expected


def test_records_of_two_formats_or_damaged_ones_are_not_resolved() -> None:
    with pytest.raises(UnresolvedError, match="'pickle' and 'protobuf'"):
        resolve(node(pack_id(1)), COMMITTED, NEW, loads(PContact))
    with pytest.raises(UnresolvedError, match="no protobuf object record"):
        resolve(OLD[:-1], COMMITTED, NEW, loads(PContact))
