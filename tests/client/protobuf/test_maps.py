"""Maps to numbers and to messages."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.client.objects import state_of
from tests.client.protobuf.classes import Person
from tests.client.protobuf.schemas import PersonPB, Phone

Change = Callable[[Any], Any]

CHANGES: list[tuple[Change, bool]] = [
    (lambda scores: scores.__setitem__("a", 1), False),
    (lambda scores: scores.__setitem__("a", 2), True),
    (lambda scores: scores.__setitem__("c", 0), True),
    (lambda scores: scores.__delitem__("a"), True),
    (lambda scores: scores.pop("a"), True),
    (lambda scores: scores.pop("x", None), False),
    (lambda scores: scores.update({"a": 1}), False),
    (lambda scores: scores.update(z=3), True),
    (lambda scores: scores.setdefault("a", 5), False),
    (lambda scores: scores.setdefault("z", 5), True),
    (lambda scores: scores.get("x", 7), False),
    (lambda scores: ("a" in scores, len(scores), sorted(scores), sorted(scores.items())), False),
    (lambda scores: scores.clear(), True),
]


@pytest.mark.parametrize(("change", "changed"), CHANGES)
def test_numbers_change_as_in_a_dictionary_and_are_told(bob: Person, change: Change, changed: bool) -> None:
    bob.scores = scores = {"a": 1, "b": 2}
    bob._p_changed = False
    assert change(bob.scores) == change(scores)
    assert bob.scores == scores
    assert dict(bob.protobuf.scores) == scores
    assert state_of(bob) == ("changed" if changed else "clean")


def test_to_read_a_missing_key_makes_an_entry_as_in_messages(bob: Person) -> None:
    message = PersonPB()
    assert bob.scores["x"] == message.scores["x"] == 0
    assert bob.protobuf.scores == message.scores
    assert state_of(bob) == "changed"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda scores: scores.__setitem__("a", "x"), TypeError),
        (lambda scores: scores.__setitem__(1, 1), TypeError),
        (lambda scores: scores.__delitem__("x"), KeyError),
        (lambda scores: scores.pop("x"), KeyError),
    ],
)
def test_what_cannot_be_done_is_no_change(bob: Person, change: Change, error: type[Exception]) -> None:
    bob.scores["a"] = 1
    bob._p_changed = False
    with pytest.raises(error):
        change(bob.scores)
    assert (dict(bob.scores), state_of(bob)) == ({"a": 1}, "clean")


def test_messages_are_set_and_changed_in_place(bob: Person) -> None:
    book = bob.phone_book
    book["a"] = {"number": "1"}
    book["b"] = Phone(number="2")
    book["c"] = book["a"]
    book["d"].number = "4"
    book.get_or_create("e")
    assert {key: each.number for key, each in book.items()} == {"a": "1", "b": "2", "c": "1", "d": "4", "e": ""}
    bob._p_changed = False
    book["c"].number = "1"
    assert book.get("x") is None
    assert state_of(bob) == "clean"
    book["c"].tags.append("x")
    assert state_of(bob) == "changed"
    assert book["a"].tags == []


def test_messages_are_removed_and_merged(bob: Person) -> None:
    bob.phone_book = {"a": {"number": "1"}, "b": {"number": "2"}}
    assert bob.phone_book.pop("a").number == "1"
    bob.phone_book.MergeFrom({"c": {"number": "3"}})
    assert sorted(bob.phone_book) == ["b", "c"]
    assert bob.phone_book == {"b": Phone(number="2"), "c": Phone(number="3")}
    assert bob.phone_book != 1
    assert repr(bob.scores) == "{}"


def test_a_value_of_a_wrong_type_is_refused(bob: Person) -> None:
    with pytest.raises(TypeError, match="Phone wants a message of its type or a dictionary"):
        bob.phone_book["a"] = 1
    assert (len(bob.phone_book), state_of(bob)) == (0, "clean")
