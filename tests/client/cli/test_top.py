from io import StringIO
from typing import Any

from rich.console import Console

from tests.client.cli.commands import zeo
from tests.fixtures_zeod import StartZeod
from zeo_client.cli.top import table
from zeo_client.monitoring import Figures


def figures(**changes: int) -> Figures:
    names = ("loads", "stores", "commits", "conflicts", "conflicts_resolved", "aborts", "connections", "active_txns")
    return {**dict.fromkeys(names, 0), "waiting": 0, "last-transaction": "0" * 16, **changes}


def shown(before: dict[str, Figures], now: dict[str, Figures], elapsed_s: float, width: int = 80) -> list[list[str]]:
    console = Console(file=StringIO(), width=width)
    console.print(table("db:1", before, now, elapsed_s, wide=width > 80))
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


def spread(count: int, total: float) -> Any:
    return {"count": count, "sum": total, "median": 1.0, "p99": 0.004}


def test_a_wide_terminal_has_room_for_what_the_writing_costs() -> None:
    before = {**figures(), "bytes_in": 0, "bytes_out": 0, "backlog_bytes": 0}
    earlier = {**before, "group_sizes": spread(1, 1), "write_seconds": spread(1, 9.0)}
    later = {**before, "group_sizes": spread(3, 8), "write_seconds": spread(3, 9.004), "bytes_in": 2048}
    lines = shown({"1": earlier}, {"1": later}, 2.0, 120)
    assert " ".join(lines[1]).endswith("waits group write 99 % unread in out last")
    assert " ".join(lines[2]).endswith(" 0 3.5 2.0 ms 4.0 ms 0 B 1.0 KB 0 B never")
    restarted = " ".join(shown({"1": later}, {"1": earlier}, 2.0, 120)[2])
    assert restarted.endswith(" 0 1.0 9.0 s 4.0 ms 0 B 0 B 0 B never")
    assert " ".join(shown({}, {"1": figures()}, 1.0, 120)[2]).endswith(" 0 - - - - - - never")  # ZEO's


def test_of_a_server(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "Data.fs")
    status, out, _ = zeo("top", "-n", 2, "-i", 0.05, server.url)
    assert status == 0
    assert "per second" in out
