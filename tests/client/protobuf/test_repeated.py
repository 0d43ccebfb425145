"""Repeated fields of numbers and of messages."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.client.objects import state_of
from tests.client.protobuf.classes import Person
from tests.client.protobuf.schemas import PersonPB, Phone
from zeo_client.protobuf.repeated import put_all

Change = Callable[[Any], Any]


def _add(numbers: Any) -> None:
    numbers += [5]


CHANGES: list[tuple[Change, bool]] = [
    (lambda numbers: numbers.append(4), True),
    (lambda numbers: numbers.extend([]), False),
    (lambda numbers: numbers.extend(iter([7, 8])), True),
    (lambda numbers: numbers.insert(1, 9), True),
    (lambda numbers: numbers.pop(), True),
    (lambda numbers: numbers.pop(0), True),
    (lambda numbers: numbers.remove(2), True),
    (lambda numbers: numbers.reverse(), True),
    (lambda numbers: numbers.sort(), True),
    (lambda numbers: numbers.sort(key=lambda each: (each * 2) % 3), True),
    (lambda numbers: numbers.clear(), True),
    (lambda numbers: numbers.__setitem__(0, 3), False),
    (lambda numbers: numbers.__setitem__(0, 4), True),
    (lambda numbers: numbers.__setitem__(slice(1, 3), iter([1, 2])), False),
    (lambda numbers: numbers.__setitem__(slice(1, 1), [6]), True),
    (lambda numbers: numbers.__delitem__(-1), True),
    (lambda numbers: numbers.__delitem__(slice(0, 0)), False),
    (lambda numbers: numbers.__delitem__(slice(0, None, 2)), True),
    (lambda numbers: numbers.__delitem__(slice(None, None, -1)), True),
    (lambda numbers: [numbers.clear(), numbers.__delitem__(slice(None, None, 2))], True),
    (lambda numbers: [*numbers, 1 in numbers, numbers.index(2), numbers.count(1), numbers[-1], numbers[:2]], False),
    (lambda numbers: numbers == [3, 1, 2], False),
    (_add, True),
]


@pytest.mark.parametrize(("change", "changed"), CHANGES)
def test_numbers_change_as_a_list_and_are_told(bob: Person, change: Change, changed: bool) -> None:
    bob.numbers = numbers = [3, 1, 2]
    bob._p_changed = False
    assert change(bob.numbers) == change(numbers)
    assert bob.numbers == numbers
    assert list(bob.protobuf.numbers) == numbers
    assert state_of(bob) == ("changed" if changed else "clean")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda numbers: numbers.append("x"), TypeError),
        (lambda numbers: numbers.append(1 << 40), ValueError),
        (lambda numbers: numbers.remove(9), ValueError),
        (lambda numbers: numbers[7], IndexError),
        (lambda numbers: numbers.pop(7), IndexError),
        (lambda numbers: numbers.__setitem__(slice(0, 1), ["x"]), TypeError),
    ],
)
def test_what_cannot_be_done_is_no_change(bob: Person, change: Change, error: type[Exception]) -> None:
    bob.numbers = [3, 1, 2]
    bob._p_changed = False
    with pytest.raises(error):
        change(bob.numbers)
    assert (list(bob.numbers), state_of(bob)) == ([3, 1, 2], "clean")


def test_an_addition_in_place_keeps_the_parts(bob: Person) -> None:
    bob.phones = [{"number": "1"}]
    first = bob.phones[0]
    bob.phones += [{"number": "2"}]
    first.number = "3"
    assert [each.number for each in bob.phones] == ["3", "2"]


def numbers_of(bob: Person) -> list[str]:
    return [each.number for each in bob.phones]


def test_messages_are_appended_as_messages_views_and_dictionaries(bob: Person) -> None:
    bob.phones.append(Phone(number="1"))
    bob.phones.append({"number": "2", "forwarded_to": {"number": "9"}})
    bob.phones.append(bob.phones[1].forwarded_to)
    bob.phones.insert(0, {"number": "0"})
    bob.phones.extend([{"number": "3"}, Phone(number="4")])
    added = bob.phones.add(number="5")
    added.tags.append("new")
    assert numbers_of(bob) == ["0", "1", "2", "9", "3", "4", "5"]
    assert bob.phones[-1].tags == ["new"]
    bob.phones.MergeFrom(bob.phones[:1])
    assert numbers_of(bob)[-1] == "0"


def test_messages_are_replaced_removed_and_sorted(bob: Person) -> None:
    bob.phones = [{"number": each} for each in "cab"]
    bob.phones.sort(key=lambda each: each.number)
    assert numbers_of(bob) == ["a", "b", "c"]
    bob.phones.reverse()
    bob.phones[0] = {"number": "x"}
    bob.phones[1:2] = [Phone(number="y"), {"number": "z"}]
    assert numbers_of(bob) == ["x", "y", "z", "a"]
    assert bob.phones.pop(0) == Phone(number="x")
    bob.phones.remove(Phone(number="z"))
    bob.phones.remove(bob.phones[0])
    assert bob.phones == [Phone(number="a")]
    assert Phone(number="a") in bob.phones
    del bob.phones[:]
    assert not bob.phones


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (lambda phones: phones.__setitem__(0, {"number": "1"}), False),
        (lambda phones: phones.__setitem__(slice(0, 1), [{"number": "1"}]), False),
        (lambda phones: phones.__setitem__(0, {}), True),
        (lambda phones: phones.sort(key=lambda each: each.number), False),
        (lambda phones: phones.add(), True),
        (lambda phones: [each.number for each in phones], False),
        (lambda phones: setattr(phones[1], "number", "3"), True),
        (lambda phones: phones[0].tags.append("x"), True),
    ],
)
def test_a_change_of_messages_is_told(bob: Person, change: Change, changed: bool) -> None:
    bob.phones = [{"number": "1"}, {"number": "2"}]
    bob._p_changed = False
    change(bob.phones)
    assert state_of(bob) == ("changed" if changed else "clean")


@pytest.mark.parametrize("wrong", ["x", 1, PersonPB(), None, [1]])
def test_an_element_of_a_wrong_type_is_refused(bob: Person, wrong: object) -> None:
    for change in (
        bob.phones.append,
        lambda value: bob.phones.insert(0, value),
        lambda value: bob.phones.extend([value]),
    ):
        with pytest.raises(TypeError, match="Phone wants a message of its type or a dictionary"):
            change(wrong)
    assert state_of(bob) == "clean"


def test_to_clear_a_list_of_an_unset_message_is_what_it_is_in_messages(bob: Person) -> None:
    message = PersonPB(name="Bob")
    changes: list[Change] = [
        lambda each: each.phone.tags.clear(),
        lambda each: each.phone.tags.__delitem__(slice(None)),
    ]
    for change in changes:
        bob._p_changed = False
        had = message.HasField("phone")
        change(message)
        change(bob)
        assert bob.protobuf == message
        assert bob.protobuf.HasField("phone") == message.HasField("phone")
        assert state_of(bob) == ("clean" if message.HasField("phone") == had else "changed")


def test_put_all_replaces_what_is_there() -> None:
    message = PersonPB(numbers=[1, 2])
    put_all(message, "numbers", PersonPB(numbers=[3]))
    assert list(message.numbers) == [3]


def test_lists_show_what_they_hold(bob: Person) -> None:
    bob.numbers = [1, 2]
    assert repr(bob.numbers) == "[1, 2]"
    assert bob.numbers != 7
    assert bob.nicknames != ""
