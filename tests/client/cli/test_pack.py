import os
import re
import select
import subprocess
import sys
import threading
from collections.abc import Generator
from datetime import datetime

import click
import pytest

import zeo_client
from tests.client.cli.commands import zeo
from tests.fixtures_zeod import StartZeod
from tests.server.in_process import in_process
from zeo_client.cli.pack import until
from zeo_client.transport.address import parse_address
from zeo_core.storage import Progress
from zeo_server.storages.mapping import MappingStorage


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


class Slow(MappingStorage):
    """Its pack is half done until the test lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()

    def pack_steps(self, until_s: float, *, gc: bool | None = None) -> Generator[Progress, None, None]:
        yield Progress("half", 1, 2)
        assert self.goes_on.wait(30)
        yield Progress("half", 2, 2)


def test_on_a_terminal_it_shows_how_far_the_server_is() -> None:
    storage = Slow()
    with in_process({"1": storage}) as server:
        terminal, its_end = os.openpty()
        command = [sys.executable, "-m", "zeo_client.cli.main", "pack", str(parse_address(server.address))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=its_end, text=True) as process:
            os.close(its_end)
            shown = ""
            while not re.search(r"half.* 50%", shown):
                assert select.select([terminal], [], [], 30)[0], shown
                shown += os.read(terminal, 10_000).decode()
            storage.goes_on.set()
            assert process.stdout is not None
            assert "packed, " in process.stdout.read()
        os.close(terminal)
    assert process.returncode == 0


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
