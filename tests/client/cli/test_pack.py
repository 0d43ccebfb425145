from datetime import datetime

import click
import pytest

import zeo_client
from tests.client.cli.commands import zeo
from tests.fixtures_zeod import StartZeod
from zeo_client.cli.pack import until


def test_a_server_packs(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    with zeo_client.open(server.url) as db:
        for number in range(20):
            with db.transaction() as conn:
                conn.root()["number"] = number
        before = db.storage.byte_size()
        status, out, _ = zeo("pack", server.url)
        assert status == 0
        assert f"packed, {before:,} bytes before, " in out
        assert db.storage.byte_size() < before
        status, out, _ = zeo("pack", "--no-wait", server.url)
        assert status == 0
        assert "is being packed" in out
        with db.transaction() as conn:
            assert conn.root()["number"] == 19


def test_a_server_that_cannot(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    status, out, error = zeo("pack", f"{server.url}/other")
    assert (status, out) == (2, "")
    assert "unknown storage: other" in error


@pytest.mark.parametrize(
    ("days", "clock", "expected"),
    [
        (0, None, datetime(2026, 3, 10, 15, 30, 45)),
        (1.5, None, datetime(2026, 3, 9, 3, 30, 45)),
        (1, "3", datetime(2026, 3, 9, 3)),
        (1, "03:15", datetime(2026, 3, 9, 3, 15)),
        (0, "23:59:59", datetime(2026, 3, 10, 23, 59, 59)),
    ],
)
def test_the_time_to_pack_to(days: float, clock: str | None, expected: datetime) -> None:
    assert until(datetime(2026, 3, 10, 15, 30, 45), days, clock) == expected.timestamp()


def test_a_clock_that_is_none() -> None:
    with pytest.raises(click.BadParameter, match="'25:00' is no time of the day"):
        until(datetime(2026, 3, 10), 0, "25:00")
