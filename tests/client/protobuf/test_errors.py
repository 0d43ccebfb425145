"""Errors of objects with a message for a state."""

import pickle

from zeo_client.protobuf.errors import BrokenReferenceError, StaleMessageError
from zeo_core.errors import InvalidObjectReference, ZeodError


def test_a_broken_reference_says_what_it_was_told_and_keeps_the_numbers() -> None:
    error = BrokenReferenceError("of Bob", (1, 2))
    assert (str(error), error.refids) == ("of Bob", (1, 2))
    assert isinstance(error, InvalidObjectReference)
    assert isinstance(error, KeyError)


def test_a_broken_reference_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(BrokenReferenceError("of Bob", (1, 2))))
    assert (str(error), error.refids) == ("of Bob", (1, 2))


def test_a_stale_message_is_an_error_of_ours() -> None:
    assert isinstance(StaleMessageError("x"), ZeodError)
