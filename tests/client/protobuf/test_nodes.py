"""The places of messages: who is told of a change, and what becomes of a part that is kept."""

from typing import Any

import pytest

from tests.client.objects import Session, state_of
from tests.client.protobuf.classes import Person
from tests.client.protobuf.schemas import PersonPB
from zeo_client.protobuf.errors import StaleMessageError
from zeo_client.protobuf.nodes import ChildNode, ElementNode, EntryNode, RootNode, is_watched
from zeo_client.protobuf.state import Held, hold


def test_only_an_unchanged_object_of_a_connection_is_watched(bob: Person) -> None:
    assert is_watched(bob)
    bob.name = "x"
    assert not is_watched(bob)
    assert not is_watched(Person())
    assert not is_watched(object())


def test_an_edit_tells_of_a_change_before_it_is_made(bob: Person) -> None:
    seen = []

    def change(message: Any) -> None:
        message.name = "x"
        seen.append(state_of(bob))

    RootNode(bob, live=False).edit(change)
    assert seen == ["clean", "changed"]  # first on a copy


def test_an_edit_that_changes_nothing_is_not_told(bob: Person) -> None:
    RootNode(bob, live=False).edit(lambda message: setattr(message, "name", "Bob"))
    assert state_of(bob) == "clean"


def test_an_edit_that_fails_tells_what_it_has_changed_all_the_same(bob: Person) -> None:
    def fail(message: Any) -> None:
        message.name = "x"
        raise LookupError

    with pytest.raises(LookupError):
        RootNode(bob, live=False).edit(fail)
    assert (bob.name, state_of(bob)) == ("x", "changed")


def test_to_touch_an_unset_message_sets_it(bob: Person) -> None:
    bob.phone.forwarded_to.tags.extend([])
    assert state_of(bob) == "changed"
    assert bob.protobuf.phone.HasField("forwarded_to")


def test_the_object_is_registered_once(session: Session, bob: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[Any] = []
    monkeypatch.setattr(session.conn._commit, "register", registered.append)
    bob.phone.number = "1"
    bob.phone.tags.append("home")
    bob.name = "x"
    assert registered == [bob]


@pytest.mark.parametrize("take_out", ["phone", "phones", "phone_book"])
def test_a_part_that_was_taken_out_lives_alone(bob: Person, session: Session, take_out: str) -> None:
    bob.phone = bob.phone_book["x"] = {"number": "1"}
    bob.phones.add(number="1")
    session.commit()
    view = {"phone": lambda: bob.phone, "phones": lambda: bob.phones[0], "phone_book": lambda: bob.phone_book["x"]}[
        take_out
    ]()
    bob.protobuf.ClearField(take_out)
    bob._p_changed = False
    view.number = "2"
    assert (view.number, state_of(bob)) == ("2", "clean")
    assert not list(getattr(bob, take_out)) if take_out != "phone" else bob.phone.number == ""


def _ghost_and_back(bob: Person) -> None:
    bob._p_deactivate()
    assert bob.name == "Bob"


def test_a_part_is_found_again_after_its_object_was_a_ghost(bob: Person, session: Session) -> None:
    bob.phone.number = "1"
    bob.phones.add(number="2")
    bob.phone_book["x"].number = "3"
    views = [bob.phone, bob.phones[0], bob.phone_book["x"], bob.phones, bob.protobuf]
    session.commit()
    _ghost_and_back(bob)
    views[0].number, views[1].number, views[2].number = "4", "5", "6"
    assert state_of(bob) == "changed"
    session.commit()
    _ghost_and_back(bob)
    assert [bob.phone.number, bob.phones[0].number, bob.phone_book["x"].number] == ["4", "5", "6"]
    assert views[4].phone.number == "4"


def test_an_element_that_is_another_meanwhile_is_not_taken_for_the_same(bob: Person, session: Session) -> None:
    bob.phones.add(number="1")
    session.commit()
    view = bob.phones[0]
    other = Session(bob._p_jar.db())
    other.root["bob"].phones.insert(0, {"number": "0"})
    other.commit()
    session.manager.begin()
    with pytest.raises(StaleMessageError, match=r"phones\[0\] of .* is another"):
        view.number = "x"
    assert state_of(bob) == "clean"
    assert [each.number for each in bob.phones] == ["0", "1"]


def test_an_element_that_moved_is_a_part_still(bob: Person) -> None:
    bob.phones.add(number="1")
    view = bob.phones[0]
    bob.phones.insert(0, {"number": "0"})
    bob._p_changed = False
    view.number = "2"
    assert state_of(bob) == "changed"
    assert [each.number for each in bob.phones] == ["0", "2"]


def test_nodes_know_whether_their_messages_are_set() -> None:
    person = Person()
    root = RootNode(person, live=False)
    child = ChildNode(root, "phone")
    below = ChildNode(child, "forwarded_to")
    assert (root.is_set(), child.is_set(), below.is_set()) == (True, False, False)
    below.message.number = "1"
    assert (child.is_set(), below.is_set()) == (True, True)
    assert below.is_in_place()
    child.message.ClearField("forwarded_to")
    assert not below.is_in_place()


def test_nodes_follow_a_new_state() -> None:
    person = Person(phones=[{"number": "1"}], phone_book={"x": {"number": "1"}})
    root = RootNode(person, live=False)
    element = ElementNode(root, "phones", 0, root.message.phones[0])
    entry = EntryNode(root, "phone_book", "x", root.message.phone_book["x"])
    message = PersonPB(phones=[{"number": "1"}], phone_book={"x": {"number": "2"}})
    hold(person, Held(message, {}))
    assert root.message is message
    assert element.message is message.phones[0]
    assert entry.message.number == "2"
    hold(person, Held(PersonPB(), {}))
    with pytest.raises(StaleMessageError):
        element.message  # noqa: B018
    with pytest.raises(StaleMessageError):
        entry.message  # noqa: B018
