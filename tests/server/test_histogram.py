import timeit

import pytest

from zeo_server.histogram import GROUP_SIZES, SECONDS, Distribution, Histogram


def spread(*values: float, bounds: tuple[float, ...] = (1, 2, 4)) -> Distribution:
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    frozen = histogram.frozen()
    histogram.observe(1)  # a snapshot does not move
    return frozen


def test_values_fall_into_the_first_bucket_whose_bound_is_not_below() -> None:
    assert spread(0, 1, 1.5, 2, 4, 5) == Distribution((1, 2, 4), (2, 2, 1, 1), 13.5)
    assert spread(0, 1, 1.5, 2, 4, 5).cumulative() == [2, 4, 5, 6]
    assert spread(3, 3).total == 2


def test_quantiles_are_between_the_bounds() -> None:
    assert spread().quantile(0.5) is None
    assert spread(1.5, 1.5, 1.5, 1.5).quantile(0.5) == 1.5
    assert spread(0.5, 3, 3, 3).quantile(0.25) == 1
    assert spread(100).quantile(0.99) == 4


def test_as_monitors_are_told() -> None:
    assert spread(2).as_map() == {"count": 1, "sum": 2.0, "median": 1.5, "p99": 1.99}
    assert spread().as_map() == {"count": 0, "sum": 0.0, "median": None, "p99": None}


@pytest.mark.parametrize("bounds", [SECONDS, GROUP_SIZES])
def test_bounds_grow(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))


def test_to_take_note_of_a_value_costs_well_under_a_microsecond() -> None:
    histogram = Histogram(SECONDS)
    # the best of many: others use the processor too
    assert min(timeit.repeat(lambda: histogram.observe(0.0003), number=1000, repeat=50)) / 1000 < 1e-6
