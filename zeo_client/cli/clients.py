"""`zeo clients`: who is connected to a server."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from zeo_client import replies
from zeo_client.cli.place import Place, figures_at, with_server
from zeo_client.cli.quantities import age, short, size
from zeo_client.cli.status import chosen
from zeo_client.monitoring import Figures
from zeo_client.storage import ClientStorage
from zeo_core.errors import StorageError
from zeo_core.wire.methods import CLIENT_LIST

__all__ = ["clients", "table"]


@click.command
@with_server
@click.option("--json", "as_json", is_flag=True, help="Print what the server says, as JSON.")
@click.option("--timeout", default=10.0, show_default=True, metavar="SECONDS", help="Wait so long for an answer.")
def clients(where: Place, as_json: bool, timeout: float) -> None:
    """Print who is connected to the server at WHERE, and what each client does; this command is one of them.

    \b
    Examples:
        zeo clients 127.0.0.1:9672
        zeo clients --json zeo://db.example.org/main
    """
    names = chosen(figures_at(where, timeout), where)
    told = {name: _connected(where._replace(storage=name), timeout) for name in names}
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    console = Console(highlight=False)
    for name, connected in told.items():
        console.print(table(name, connected, time.time()))


def table(storage: str, connected: Sequence[Figures], now_s: float) -> Table:
    """Return the table of a storage's clients, a row for each, within the 80 columns of the smallest terminal."""
    title = f"storage {storage}: {len(connected)} client{'' if len(connected) == 1 else 's'}"
    made = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    made.add_column("client")  # the one that gives way where there is no room
    for heading in ("may", "for", "loads", "commits", "sent", "got", "unread", "calls", "txns"):
        made.add_column(heading, justify="right", no_wrap=True)
    for client in connected:
        made.add_row(*_row(client, now_s))
    return made


def _row(client: Figures, now_s: float) -> tuple[str | Text, ...]:
    transactions: int = client["transactions"]
    return (
        Text(" ".join(filter(None, (client["label"], client["address"]))), no_wrap=True, overflow="ellipsis"),
        "r" if client["read_only"] else "rw",
        age(now_s - client["since"]),
        short(client["loads"]),
        short(client["commits"]),
        size(client["bytes_in"]),
        size(client["bytes_out"]),
        size(client["backlog_bytes"]),
        short(client["in_flight"]),
        f"{transactions}{'*' if client['holds_locks'] else ''}",
    )


class _Watcher(ClientStorage):
    """A client that asks who the others are."""

    def clients(self) -> list[Mapping[str, Any]]:
        """Return the server's clients, in the order of their labels and addresses; StorageError if it does not tell."""
        if not self._has(CLIENT_LIST):
            raise StorageError(f"{self.name()}: this server does not tell who its clients are")
        told: list[Mapping[str, Any]] = self._channel().call("clients", (), replies.clients)
        return sorted(told, key=lambda client: (client["label"], client["address"], client["since"]))


def _connected(where: Place, timeout_s: float) -> list[Mapping[str, Any]]:
    watcher = _Watcher(
        where.address,
        where.storage,
        read_only=True,
        wait_timeout=timeout_s,
        client_label="zeo clients",
        ssl=where.tls,
        ssl_server_hostname=where.server_name,
    )
    try:
        return watcher.clients()
    finally:
        watcher.close()
