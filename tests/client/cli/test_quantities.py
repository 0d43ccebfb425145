import pytest

from zeo_client.cli.quantities import age, seconds, short, size


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (1234, "1.2k"), (9960, "10k"), (34_567_000, "35M"), (10**18, "1000P")],
)
def test_counts(number: float, text: str) -> None:
    assert short(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (1536, "1.5 KB"), (20 * 1024**2, "20 MB"), (3 * 1024**4, "3.0 TB")],
)
def test_sizes(number: float, text: str) -> None:
    assert size(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0.0 us"), (0.000025, "25 us"), (0.00123, "1.2 ms"), (0.9996, "1.0 s"), (12.3, "12 s")]
)
def test_times(number: float, text: str) -> None:
    assert seconds(number) == text


@pytest.mark.parametrize(("number", "text"), [(-1, "0s"), (59, "59s"), (60, "1m"), (7199, "1h"), (86400 * 2.5, "2d")])
def test_ages(number: float, text: str) -> None:
    assert age(number) == text
