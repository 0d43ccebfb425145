import pytest

from zeo_client.transport.pauses import BACKOFF, Pauses, shortened
from zeo_core.errors import ConfigurationError


def test_they_double_up_to_the_longest() -> None:
    pauses = Pauses(0.5, 3.0)
    assert [pauses.longer(each) for each in (0.5, 1.0, 2.0, 3.0)] == [1.0, 2.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("least", "most", "found"),
    [
        (None, None, (0.05, 1.0)),
        (5, 300, (5, 300)),
        (5, None, (5, 5)),
        (None, 300, (0.05, 300)),
        (None, 0.01, (0.01, 0.01)),
        (0, 0, (0, 0)),
    ],
)
def test_bounds(least: float | None, most: float | None, found: tuple[float, float]) -> None:
    assert BACKOFF.within(least, most) == found


@pytest.mark.parametrize(("least", "most"), [(-1, None), (None, -1), (5, 4)])
def test_bounds_that_are_none(least: float | None, most: float | None) -> None:
    with pytest.raises(ConfigurationError, match="disconnect poll"):
        BACKOFF.within(least, most)


def test_clients_that_were_cut_off_together_do_not_come_back_together() -> None:
    drawn = {shortened(1.0) for _ in range(100)}
    assert len(drawn) > 90
    assert 0.5 <= min(drawn) < 0.6
    assert 0.9 < max(drawn) <= 1.0
