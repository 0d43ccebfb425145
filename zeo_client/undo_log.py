"""The undo log of a storage on a server.

The server picks the lines that are asked for, if it can be told which: a filter, or a value that is no plain one, such
as Zope's prefixes, stays here, and the log is fetched page by page (lesson B42).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from zeo_client import replies
from zeo_client.transport.channel import Channel
from zeo_core.errors import UndoError
from zeo_core.ids import MAX_TID
from zeo_core.transaction import TransactionMetadata, UndoEntry, extension_bytes
from zeo_core.zodb_records import specified, tid_from_undo_id, undo_lines

__all__ = ["PAGE_LINES", "RemoteUndoLog"]

PAGE_LINES = 100
"""Lines that are fetched at once where they are picked here."""

_Line = dict[str, Any]
_OWN = ("id", "time", "user_name", "description", "size")
_PLAIN = (str, bytes, int, float, bool, type(None))


class RemoteUndoLog:
    """The log; `channel` gives the connection to ask on."""

    def __init__(self, channel: Callable[[], Channel]) -> None:
        self._channel = channel

    def entries(self) -> Iterator[UndoEntry]:
        """Walk the transactions that may be undone, newest first. What is committed meanwhile is left out."""
        first, before = 0, MAX_TID
        while True:
            lines: list[_Line] = self._channel().call("undoLog", (first, -PAGE_LINES), replies.undo_lines)
            for line in lines:
                entry = _entry(line)
                if entry.tid < before:  # others' commits move lines to the next page
                    before = entry.tid
                    yield entry
            if len(lines) < PAGE_LINES:
                return
            first += PAGE_LINES

    def lines(self, first: int, last: int, wanted: Callable[[_Line], object] | None) -> list[_Line]:
        """Return lines number `first` to `last`, a negative one counts, of those that are `wanted`."""
        if wanted is not None:
            return undo_lines(self.entries(), first, last, wanted)
        found: list[_Line] = self._channel().call("undoLog", (first, last), replies.undo_lines)
        return found

    def fitting(self, first: int, last: int, specification: Mapping[str, Any] | None) -> list[_Line]:
        """Return lines number `first` to `last`, of those that have the keys and values of `specification`."""
        if specification and not all(type(value) in _PLAIN for value in (*specification, *specification.values())):
            return undo_lines(self.entries(), first, last, specified(specification))
        asked = dict(specification) if specification else None
        found: list[_Line] = self._channel().call("undoInfo", (first, last, asked), replies.undo_lines)
        return found


def _entry(line: _Line) -> UndoEntry:
    try:
        extension = extension_bytes({key: value for key, value in line.items() if key not in _OWN})
        user, description = (_bytes(line[key]) for key in ("user_name", "description"))
        return UndoEntry(tid_from_undo_id(line["id"]), TransactionMetadata(user, description, extension), line["size"])
    except (TypeError, KeyError) as error:
        raise UndoError(f"a line of the undo log that cannot be read: {error}") from error


def _bytes(text: str | bytes) -> bytes:
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
