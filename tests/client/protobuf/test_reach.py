"""Finding the references in a message."""

from google.protobuf import timestamp_pb2

from tests.client.protobuf.schemas import AddressPB, ContactPB, PersonPB, Phone, Ref, Relation
from zeo_client.protobuf.reach import is_pure_reference, is_reference, refids_in


def test_a_type_with_the_field_is_one_of_references() -> None:
    assert is_reference(Ref.DESCRIPTOR)
    assert is_reference(Relation.DESCRIPTOR)
    assert not is_reference(Phone.DESCRIPTOR)
    assert not is_reference(timestamp_pb2.Timestamp.DESCRIPTOR)


def test_a_target_can_stand_for_a_reference_that_says_nothing_else() -> None:
    assert is_pure_reference(Ref.DESCRIPTOR)
    assert not is_pure_reference(Relation.DESCRIPTOR)


def test_references_are_found_at_any_depth_in_the_order_of_the_fields() -> None:
    person = PersonPB()
    person.phone.owner._p_refid = 1
    person.phone.forwarded_to.forwarded_to.owner._p_refid = 2
    person.phones.add().owner._p_refid = 3
    person.phone_book["x"].owner._p_refid = 4
    person.spouse._p_refid = 5
    person.friends.add()._p_refid = 7
    person.friends.add()._p_refid = 6
    person.relatives["x"]._p_refid = 8
    person.relations.add(kind="x")._p_refid = 9
    person.assistant._p_refid = 10
    assert list(refids_in(person)) == [1, 2, 3, 4, 5, 7, 6, 8, 9, 10]


def test_a_number_is_given_once_and_zero_is_none() -> None:
    person = PersonPB()
    for refid in (5, 0, 5):
        person.friends.add()._p_refid = refid
    assert list(refids_in(person)) == [5]


def test_nothing_is_set_by_looking() -> None:
    person = PersonPB()
    assert list(refids_in(person)) == []
    assert not person.ListFields()


def test_types_without_references_are_not_walked_through() -> None:
    assert list(refids_in(AddressPB(line1="x", city="y"))) == []
    assert list(refids_in(ContactPB())) == []


def test_a_message_may_be_a_reference_itself() -> None:
    assert list(refids_in(Relation(_p_refid=3))) == [3]
