from io import StringIO

from rich.console import Console

from tests.client.cli.commands import zeo
from tests.fixtures_zeod import StartZeod
from zeo_client.cli.top import table
from zeo_client.monitoring import Figures


def figures(**changes: int) -> Figures:
    names = ("loads", "stores", "commits", "conflicts", "conflicts_resolved", "aborts", "connections", "active_txns")
    return {**dict.fromkeys(names, 0), "waiting": 0, "last-transaction": "0" * 16, **changes}


def shown(before: dict[str, Figures], now: dict[str, Figures], elapsed_s: float) -> list[list[str]]:
    console = Console(file=StringIO(), width=80)
    console.print(table("db:1", before, now, elapsed_s))
    output = console.file
    assert isinstance(output, StringIO)
    return [line.split() for line in output.getvalue().splitlines()]


def test_what_happened_a_second() -> None:
    lines = shown({"1": figures(loads=100)}, {"1": figures(loads=4100, commits=3, connections=7)}, 2.0)
    assert lines[0] == ["db:1,", "per", "second"]
    assert lines[1][:4] == ["storage", "loads", "stores", "commits"]
    assert lines[2] == ["1", "2,000", "0", "1.5", "0", "0", "0", "7", "0", "0", "never"]


def test_a_server_that_was_restarted_has_no_rates_below_zero() -> None:
    lines = shown({"1": figures(loads=100)}, {"1": figures(loads=1), "new": figures(loads=20)}, 1.0)
    assert [line[:2] for line in lines[2:]] == [["1", "0"], ["new", "20"]]


def test_of_a_server(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    status, out, _ = zeo("top", "-n", 2, "-i", 0.05, server.url)
    assert status == 0
    assert "per second" in out
