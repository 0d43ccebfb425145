import json
from io import StringIO
from pathlib import Path

from rich.console import Console

import zeo_client
from tests.client.cli.commands import zeo
from tests.client.test_replies import CLIENT
from tests.fixtures_runzeo import StartRunZEO
from tests.fixtures_zeod import StartZeod
from zeo_client.cli.clients import table
from zeo_client.monitoring import Figures


def shown(*connected: Figures) -> list[str]:
    console = Console(file=StringIO(), width=80)
    console.print(table("main", connected, 7201.5))
    output = console.file
    assert isinstance(output, StringIO)
    lines = output.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    return [line.rstrip() for line in lines]


def test_a_row_for_each_client() -> None:
    busy = {
        **CLIENT,
        "label": "web",
        "loads": 123_456,
        "commits": 5,
        "bytes_in": 2000,
        "bytes_out": 3 * 1024**2,
        "backlog_bytes": 0,
        "in_flight": 2,
        "transactions": 1,
        "holds_locks": True,
    }
    title, heading, row = shown(busy)
    assert title.strip() == "storage main: 1 client"
    assert heading.split() == ["client", "may", "for", "loads", "commits", "sent", "got", "unread", "calls", "txns"]
    assert row.split() == ["web", "h:1", "rw", "2h", "123k", "5", "2.0", "KB", "3.0", "MB", "0", "B", "2", "1*"]


def test_a_long_name_is_cut_and_the_figures_are_not() -> None:
    most = {
        **CLIENT,
        "label": "x" * 100,
        "read_only": True,
        "holds_locks": False,
        "since": 0.0,
        **dict.fromkeys(("loads", "commits", "bytes_in", "bytes_out"), 999 * 10**12),
        **dict.fromkeys(("backlog_bytes", "in_flight", "transactions"), 999),
    }
    row = shown(most)[-1]
    assert "…" in row
    assert row.endswith(" r  2h  999T    999T 909 TB 909 TB  999 B   999  999")


def test_who_is_connected(start_zeod: StartZeod) -> None:
    server = start_zeod("-f", "One.fs", "-f", "Two.fs")
    storage = zeo_client.ClientStorage(server.url.removeprefix("zeo://"), client_label="web 7")
    with zeo_client.DB(storage) as db:
        with db.transaction() as conn:
            conn.root()["key"] = 1
        status, out, _ = zeo("clients", server.url)
        assert status == 0
        lines = [line.split() for line in out.splitlines()]
        assert lines[0] == ["storage", "1:", "2", "clients"]
        assert [line[:2] for line in lines[2:4]] == [["web", "7"], ["zeo", "clients"]]
        assert lines[4] == ["storage", "2:", "1", "client"]
        status, out, _ = zeo("clients", "--json", f"{server.url}/1")
        told = json.loads(out)
    assert list(told) == ["1"]
    web, own = told["1"]
    assert (web["label"], web["commits"], web["read_only"]) == ("web 7", 2, False)
    assert (own["label"], own["read_only"]) == ("zeo clients", True)


def test_zeos_server_does_not_tell(start_runzeo: StartRunZEO, tmp_path: Path) -> None:
    host, port = start_runzeo(tmp_path / "Data.fs").address
    status, out, error = zeo("clients", f"{host}:{port}")
    assert (status, out) == (2, "")
    assert error.endswith("this server does not tell who its clients are\n")
