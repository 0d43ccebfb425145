"""Lines of a storage's log as commands print them: of the history of an object, or of what may be undone."""

import json
import time
from collections.abc import Iterable

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from zeo_client.cli.quantities import size
from zeo_core.ids import tid_to_time
from zeo_core.transaction import HistoryEntry, UndoEntry

__all__ = ["print_lines"]


def print_lines(lines: Iterable[HistoryEntry | UndoEntry], *, as_json: bool) -> None:
    """Print a line for each transaction, or a list of maps as JSON."""
    if as_json:
        click.echo(json.dumps([_as_map(line) for line in lines], indent=2))
        return
    table = Table("tid", "when", "size", "who", "what", box=None, padding=(0, 1, 0, 0))
    table.columns[2].justify = "right"
    for line in lines:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(tid_to_time(line.tid)))
        user, description = (_text(part) for part in (line.metadata.user, line.metadata.description))
        table.add_row(line.tid.hex(), when, size(line.size), Text(user), Text(description))
    Console(highlight=False, soft_wrap=True).print(table)


def _as_map(line: HistoryEntry | UndoEntry) -> dict[str, object]:
    metadata = line.metadata
    return {
        "tid": line.tid.hex(),
        "time": tid_to_time(line.tid),
        "user": metadata.user.decode("utf-8", "replace"),
        "description": metadata.description.decode("utf-8", "replace"),
        "size": line.size,
    }


def _text(value: bytes) -> str:
    """Return what a program wrote, in one line that cannot command the terminal."""
    text = " ".join(value.decode("utf-8", "replace").split())
    return "".join(char if char.isprintable() else "?" for char in text)
