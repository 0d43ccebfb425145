"""The judge of histories: what it lets pass, and what it must not."""

import pytest

from tests.crash.lab.history import Committed, Transaction, judge

LOG = [
    Committed(10, {"a": "a0", "b": "b0"}),
    Committed(20, {"a": "a1", "b": "b1"}),
    Committed(30, {"a": "a2"}),
]


def test_a_good_history_passes() -> None:
    told = [
        Transaction(1, {"a": "a0", "b": "b0"}, {"a": "a1", "b": "b1"}, "committed", 20),
        Transaction(2, {"a": "a0", "b": "b0"}, {"a": "lost"}, "refused"),
        Transaction(2, {"a": "a1", "b": "b1"}, {"a": "a2"}, "unknown"),
        Transaction(2, {"a": "a2", "b": "b1"}),
        Transaction(1, {"a": "a1", "b": "b1"}),  # behind, but not behind itself
        Transaction(3, {"a": "a0"}, {"a": "never"}, "unknown"),
    ]
    assert judge(LOG, told) == []


@pytest.mark.parametrize(
    ("told", "word"),
    [
        ([Transaction(1, {"a": "a0", "b": "b1"})], "at one time"),
        ([Transaction(1, {"a": "a1", "b": "b0"})], "at one time"),
        ([Transaction(1, {"a": "never"})], "never committed"),
        ([Transaction(1, {"a": "a2"}), Transaction(1, {"a": "a1"})], "older"),
        (
            [Transaction(1, {"a": "a0", "b": "b0"}, dict(LOG[1].writes), "committed", 20), Transaction(1, {"a": "a0"})],
            "own",
        ),
        ([Transaction(1, {"a": "a0"}, {"a": "x"}, "committed", 25)], "confirmed"),
        ([Transaction(1, {"a": "a0", "b": "b0"}, {"a": "a1", "b": "other"}, "committed", 20)], "confirmed"),
        ([Transaction(1, {"a": "a1"}, {"a": "a2"}, "refused")], "refused"),
        ([Transaction(1, {"a": "a1", "b": "b1"}, {"a": "a2", "b": "b2"}, "unknown")], "a part"),
        ([Transaction(1, {"a": "a0"}, {"a": "a2"}, "committed", 30)], "between"),
    ],
)
def test_a_bad_one_does_not(told: list[Transaction], word: str) -> None:
    wrong = judge(LOG, told)
    assert wrong
    assert word in wrong[0]
