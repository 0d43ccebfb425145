"""Three-way merges: what is merged, what is a conflict, and that no change is lost or made up."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from tests import protobuf_schemas as schemas
from zeo_core.protobuf_merge import MergeConflict, merge

Contact: Any = schemas.message_class(schemas.contacts, "Contact")
Address: Any = schemas.message_class(schemas.contacts, "Address")
OLDER = schemas.proto2_file("older.proto", "older", schemas.message("Contact", "required uint64 create_time = 1"))
Older: Any = schemas.message_class(OLDER, "Contact")


def contact(**fields: Any) -> Any:
    return Contact(create_time=1, **fields)


def merged(old: Any, committed: Any, new: Any, *sets: str) -> Any:
    """Merge, and see that the other way round comes to the same, and that nothing given was changed."""
    before = [each.SerializeToString(deterministic=True) for each in (old, committed, new)]
    result = merge(old, committed, new, sets)
    assert [each.SerializeToString(deterministic=True) for each in (old, committed, new)] == before
    other = merge(old, new, committed, sets)
    if not sets:
        assert other.SerializeToString(deterministic=True) == result.SerializeToString(deterministic=True)
    return result


def refuses(told: str, old: Any, committed: Any, new: Any, *sets: str) -> None:
    for pair in ((committed, new), (new, committed)):
        with pytest.raises(MergeConflict) as caught:
            merge(old, *pair, sets)
        assert str(caught.value) == f"both sides have changed {told}"


def test_changes_to_different_fields() -> None:
    old = contact(name="Bob", height=1.8, numbers=[1])
    committed = contact(name="Robert", height=1.8, numbers=[1])
    assert merged(old, committed, contact(name="Bob", numbers=[1, 2])) == contact(name="Robert", numbers=[1, 2])
    assert merged(old, committed, committed) == committed
    refuses("name", old, committed, contact(name="Rob"))
    refuses("name", old, committed, contact())
    refuses("numbers", old, contact(numbers=[1, 2]), contact(numbers=[1, 3]))


def test_the_fields_of_a_sub_message() -> None:
    old = contact(address={"line1": "1 Road", "city": "X"})
    committed = contact(address={"line1": "2 Road", "city": "X"})
    new = contact(address={"line1": "1 Road", "city": "Y"})
    assert merged(old, committed, new) == contact(address={"line1": "2 Road", "city": "Y"})
    refuses("address.line1", old, committed, contact(address={"line1": "3 Road"}))
    refuses("address", old, committed, contact())
    refuses("address.lines", old, contact(address={"lines": ["a"]}), contact(address={"lines": ["b"]}))
    both = merged(contact(), contact(address={"line1": "1"}), contact(address={"city": "X"}))
    assert both == contact(address={"line1": "1", "city": "X"})


def test_a_sub_message_that_is_there_but_empty_is_not_one_that_is_absent() -> None:
    result = merged(contact(address={"city": "X"}), contact(address={"city": "X"}, name="Bob"), contact(address={}))
    assert result.HasField("address")
    assert result == contact(address={}, name="Bob")


def test_keys_of_maps() -> None:
    old = contact(counts={"a": 1, "b": 2, "c": 3})
    committed = contact(counts={"a": 10, "b": 2, "d": 4})
    new = contact(counts={"a": 1, "c": 3, "e": 5})
    assert merged(old, committed, new) == contact(counts={"a": 10, "d": 4, "e": 5})
    refuses("counts['a']", old, committed, contact(counts={"a": 11, "b": 2, "c": 3}))
    refuses("counts['a']", old, committed, contact(counts={"b": 2, "c": 3}))
    old, committed = contact(addresses={"home": {"city": "X"}}), contact(addresses={"home": {"city": "Y"}, "work": {}})
    new = contact(addresses={"home": {"city": "X", "line1": "1"}, "beach": {"city": "Z"}})
    assert merged(old, committed, new) == contact(
        addresses={"home": {"city": "Y", "line1": "1"}, "work": {}, "beach": {"city": "Z"}}
    )
    refuses("addresses.city", old, committed, contact(addresses={"home": {"city": "Z"}}))


def test_a_oneof_is_one_field() -> None:
    old = contact(mail="a@b")
    assert merged(old, contact(visit={"city": "X"}), contact(mail="a@b", name="B")) == contact(
        visit={"city": "X"}, name="B"
    )
    refuses("reach", old, contact(visit={"city": "X"}), contact(mail="b@c"))
    refuses("reach", old, contact(), contact(mail="b@c"))
    refuses("mail", old, contact(mail="d@e"), contact(mail="b@c"))
    both = merged(contact(visit={}), contact(visit={"city": "X"}), contact(visit={"line1": "1"}))
    assert both == contact(visit={"city": "X", "line1": "1"})


def test_repeated_fields_that_are_sets() -> None:
    old, committed, new = contact(numbers=[1, 2, 3]), contact(numbers=[3, 2, 4]), contact(numbers=[1, 5, 3, 4])
    assert merged(old, committed, new, "numbers") == contact(numbers=[3, 4, 5])
    tags = [contact(address={"lines": lines}) for lines in (["a"], ["a", "b"], ["c", "a"])]
    assert merged(*tags, "address.lines") == contact(address={"lines": ["a", "b", "c"]})
    refs = [contact(guardians=[{"_p_refid": number} for number in row]) for row in ((1,), (1, 2), (1, 3))]
    assert [ref._p_refid for ref in merged(*refs, "guardians").guardians] == [1, 2, 3]
    refuses("guardians", *refs, "numbers")


def test_no_number_is_a_value_as_others_are() -> None:
    nothing = contact(height=math.nan)
    result = merged(nothing, contact(height=math.nan, name="Bob"), contact(height=math.nan, numbers=[1]))
    assert (result.name, list(result.numbers), math.isnan(result.height)) == ("Bob", [1], True)
    assert math.copysign(1, merged(contact(height=0.0), contact(height=0.0), contact(height=-0.0)).height) == -1


def test_a_time_is_one_value() -> None:
    """The seconds of one side and the fractions of the other would be a time that nobody has set."""
    old, committed, new = Timestamp(seconds=1), Timestamp(seconds=2), Timestamp(seconds=1, nanos=5)
    holder = schemas.proto2_file(
        "timed.proto", "timed", schemas.message("Timed", "optional .google.protobuf.Timestamp when = 1")
    )
    holder.dependency.append("google/protobuf/timestamp.proto")
    timed: Any = schemas.message_class(holder, "Timed", Timestamp.DESCRIPTOR.file)
    refuses("when", *(timed(when={"seconds": each.seconds, "nanos": each.nanos}) for each in (old, committed, new)))


def test_fields_that_the_schema_lacks_come_from_either_side_as_one() -> None:
    def older(message: Any) -> Any:
        return Older.FromString(message.SerializeToString())

    old, committed, new = contact(name="Bob"), contact(name="Robert", numbers=[1]), contact(name="Bob")
    new.create_time = 2
    expected = contact(name="Robert", numbers=[1])
    expected.create_time = 2
    assert merged(*map(older, (old, committed, new))) == older(expected)
    refuses("(fields that the schema lacks)", *map(older, (old, committed, contact(name="Rob"))))


texts = st.text(max_size=3)
small = st.integers(0, 3)
addresses = st.fixed_dictionaries({}, optional={"line1": texts, "city": texts, "lines": st.lists(texts, max_size=2)})
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "create_time": small,
    "name": texts,
    "address": addresses,
    "guardians": st.lists(st.fixed_dictionaries({"_p_refid": small}), max_size=3),
    "height": st.floats(width=16),
    "counts": st.dictionaries(texts, small, max_size=3),
    "addresses": st.dictionaries(texts, addresses, max_size=2),
    "numbers": st.lists(small, max_size=3),
}
required = {"create_time": FIELDS["create_time"]}
optional = {name: strategy for name, strategy in FIELDS.items() if name not in required}
contacts = st.fixed_dictionaries(required, optional=optional).map(lambda fields: Contact(**fields))


def encoded(message: Any) -> bytes:
    data: bytes = message.SerializeToString(deterministic=True)
    return data


@given(contacts, contacts)
def test_what_one_side_alone_has_changed_is_taken(old: Any, changed: Any) -> None:
    for result in (merge(old, changed, old), merge(old, old, changed), merge(old, changed, changed)):
        assert encoded(result) == encoded(changed)


@given(st.fixed_dictionaries(FIELDS), st.fixed_dictionaries(FIELDS), st.sets(st.sampled_from(sorted(FIELDS))))
def test_disjoint_changes_are_all_there(old: dict[str, Any], changed: dict[str, Any], ours: set[str]) -> None:
    committed = {**old, **{name: changed[name] for name in ours}}
    new = {**changed, **{name: old[name] for name in ours}}
    assert encoded(merge(Contact(**old), Contact(**committed), Contact(**new))) == encoded(Contact(**changed))


@given(contacts, contacts, contacts)
def test_any_three_are_merged_alike_from_both_sides_or_not_at_all(old: Any, committed: Any, new: Any) -> None:
    def outcome(merging: Callable[[], Any]) -> bytes | None:
        try:
            return encoded(merging())
        except MergeConflict:
            return None

    assert outcome(lambda: merge(old, committed, new)) == outcome(lambda: merge(old, new, committed))
