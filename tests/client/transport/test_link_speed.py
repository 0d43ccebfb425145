"""What is measured of a link."""

import pytest

from zeo_client.transport.link_speed import SAMPLE_BYTES, LinkSpeed


class Line:
    """A clock, and messages that arrive at a given speed."""

    def __init__(self) -> None:
        self.now = 0.0
        self.speed = LinkSpeed(lambda: self.now)

    def bring(self, size: int, bytes_s: float, piece: int = 10_000) -> None:
        for missing in range(size, 0, -piece):
            self.speed.note(missing)
            self.now += piece / bytes_s


def test_nothing_is_known_at_first_and_of_small_messages() -> None:
    line = Line()
    for _ in range(3):
        line.bring(20_000, 1e6)
        assert line.speed.bytes_s == 0


def test_a_large_message_is_measured() -> None:
    line = Line()
    line.bring(2 * SAMPLE_BYTES, 1e6)
    assert line.speed.bytes_s == pytest.approx(1e6)


def test_several_messages_make_a_measurement_and_the_time_between_them_does_not_count() -> None:
    line = Line()
    for _ in range(5):
        line.bring(50_000, 1e6)
        line.now += 100
    assert line.speed.bytes_s == pytest.approx(1e6, rel=0.3)


def test_a_link_that_has_become_faster_is_believed_soon() -> None:
    line = Line()
    line.bring(2 * SAMPLE_BYTES, 1e6)
    line.bring(10 * SAMPLE_BYTES, 100e6)
    assert line.speed.bytes_s > 80e6
