"""The way to the value that has no pickle."""

from typing import Any

import pytest

from tests.client.objects import Plain
from zeo_client.unpicklable import unpicklable_path


class Bad:
    """Cannot be pickled, by the tests' definition."""


def can_be_pickled(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(can_be_pickled, value.values()))
    if isinstance(value, list | tuple):
        return all(map(can_be_pickled, value))
    if isinstance(value, Plain):
        return can_be_pickled(vars(value))
    return not isinstance(value, Bad)


@pytest.mark.parametrize(
    ("state", "path"),
    [
        ({"good": 1, "bad": Bad()}, ".bad"),
        ({"items": [1, {"x": (2, Bad())}]}, ".items[1]['x'][1]"),
        ({"plain": Plain(a=1, lock=Bad())}, ".plain.lock"),
        ((None, {"slot": [Bad()]}), "[1]['slot'][0]"),
        (Bad(), ""),
        ({}, ""),
    ],
)
def test_path(state: object, path: str) -> None:
    assert unpicklable_path(state, can_be_pickled) == path


def test_the_search_ends_in_a_state_that_contains_itself() -> None:
    state: dict[str, Any] = {}
    state["again"] = state
    assert unpicklable_path(state, lambda _value: False).startswith(".again['again']")


def test_the_search_ends_in_a_huge_state() -> None:
    trials = 0

    def count(_value: object) -> bool:
        nonlocal trials
        trials += 1
        return True

    assert unpicklable_path({"many": 1, "more": list(range(10))} | {str(n): n for n in range(10_000)}, count) == ""
    assert trials <= 2_000
