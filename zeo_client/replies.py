"""What the server may answer to each call: checked in the reader's thread, as a reply arrives.

Each function fits `channel.OnReply` and returns the answer in the form that the storage contract has for it.
RemoteProtocolError for an answer of another shape; raised in the reader, it ends the connection: after it, nothing
that this server says can be relied on.
"""

from typing import Any, Final, NamedTuple, NoReturn

from zeo_client.transport.channel import Call
from zeo_core.errors import RemoteProtocolError
from zeo_core.ids import ZERO_TID, Oid, Tid, is_id
from zeo_core.transaction import HistoryEntry, RecordedObject, Revision, TransactionMetadata, extension_bytes
from zeo_core.wire.compression import decompressed

__all__ = [
    "COMPRESSED_ARGUMENT",
    "Brought",
    "RecordedHead",
    "ToResolve",
    "Votes",
    "changes",
    "clients",
    "data",
    "fresh_oids",
    "history",
    "info",
    "info_fault",
    "last_tid",
    "many",
    "number",
    "outcome",
    "record_from",
    "recorded",
    "recorded_head",
    "revision",
    "status",
    "tid",
    "undo_lines",
    "votes",
]


def tid(call: Call, answer: Any) -> Tid:
    """Take a transaction id."""
    if not is_id(answer):
        _refuse(call, "no tid of 8 bytes")
    return bytes(answer)


def outcome(call: Call, answer: Any) -> Tid | None:
    """Take the tid of a transaction that was committed, or None."""
    return None if answer is None else tid(call, answer)


def last_tid(call: Call, answer: Any) -> Tid:
    """Take the last transaction's tid, as `register` replies it; None stands for an empty storage."""
    return ZERO_TID if answer is None else tid(call, answer)


def revision(call: Call, answer: Any) -> Revision | None:
    """Take the revision before the tid that was asked for, or None."""
    return None if answer is None else _revision(call, answer)


def _revision(call: Call, answer: Any) -> Revision:
    if type(answer) is not tuple or len(answer) != 3 or type(answer[0]) is not bytes or not is_id(answer[1]):
        _refuse(call, "no (data, tid, end tid)")
    _, start, end = answer
    asked = call.args[1]
    # The end may be before what was asked for, if that is in the future: a commit can overtake the reply (lesson B2).
    if start >= asked or (end is not None and not (is_id(end) and end > start)):
        _refuse(call, "not the revision that was asked for")
    return Revision(*answer)


COMPRESSED_ARGUMENT: Final = 5
"""Where load_many's arguments say that the answer may be compressed."""


class Brought(NamedTuple):
    """What a load_many brought: objects, and the oids of those that were left out for want of room."""

    found: list[tuple[Oid, Revision]]
    left: tuple[Oid, ...]


def many(call: Call, answer: Any) -> Brought:
    """Take many objects, each as of the tid that was asked for; compressed only if that was asked for."""
    if len(call.args) > COMPRESSED_ARGUMENT and type(answer) is tuple and answer and type(answer[0]) is bytes:
        answer = (decompressed(answer[0]), *answer[1:])
    if type(answer) is not tuple or len(answer) != 2 or not all(type(part) is tuple for part in answer):
        _refuse(call, "no objects and oids")
    found, left = answer
    if not all(map(is_id, left)):
        _refuse(call, "a list of oids that are none")
    if not all(type(entry) is tuple and entry and is_id(entry[0]) for entry in found):
        _refuse(call, "a list of objects without an oid")
    return Brought([(entry[0], _revision(call, entry[1:])) for entry in found], left)


def data(call: Call, answer: Any) -> bytes:
    """Take a record's data."""
    if type(answer) is not bytes:
        _refuse(call, "no bytes")
    return bytes(answer)


class RecordedHead(NamedTuple):
    """A transaction of a log without its objects."""

    tid: Tid
    status: bytes
    metadata: TransactionMetadata


def number(call: Call, answer: Any) -> int:
    """Take the number of an iterator."""
    if type(answer) is not int:
        _refuse(call, "no number")
    return int(answer)


def recorded_head(call: Call, answer: Any) -> RecordedHead | None:
    """Take a transaction of a log, or None at its end."""
    if answer is None:
        return None
    if type(answer) is not tuple or len(answer) != 5 or not is_id(answer[0]):
        _refuse(call, "no transaction")
    tid, *texts, extension = answer
    status, user, description = (_text(call, text) for text in texts)
    try:
        encoded = extension if type(extension) is bytes else extension_bytes(extension)
    except TypeError as error:
        _refuse(call, f"a transaction with an extension that cannot be read: {error}")
    return RecordedHead(tid, status, TransactionMetadata(user, description, encoded))


def recorded(call: Call, answer: Any) -> RecordedObject | None:
    """Take an object of a transaction of a log, or None at its end."""
    if answer is None:
        return None
    if type(answer) is not tuple or len(answer) != 4:
        _refuse(call, "no record")
    oid, tid, record, data_tid = answer
    if not (is_id(oid) and is_id(tid)) or type(record) not in (bytes, type(None)):
        _refuse(call, "no record")
    if data_tid is not None and not is_id(data_tid):
        _refuse(call, "a record that repeats what is no transaction")
    return RecordedObject(oid, tid, record, data_tid)


def record_from(call: Call, answer: Any) -> tuple[Oid, Tid, bytes, Oid | None]:
    """Take an object and the oid of the following one."""
    if type(answer) is not tuple or len(answer) != 4 or not all(map(is_id, answer[:2])) or type(answer[2]) is not bytes:
        _refuse(call, "no record")
    if answer[3] is not None and not is_id(answer[3]):
        _refuse(call, "a record that is followed by no oid")
    return answer[0], answer[1], answer[2], answer[3]


def history(call: Call, answer: Any) -> list[HistoryEntry]:
    """Take an object's revisions, newest first."""
    if type(answer) is not tuple:
        _refuse(call, "no list")
    return [_history_entry(call, entry) for entry in answer]


def _history_entry(call: Call, entry: Any) -> HistoryEntry:
    if type(entry) is not dict or not is_id(entry.get("tid")) or type(entry.get("size")) is not int:
        _refuse(call, "no list of revisions")
    user, description = (_text(call, entry.get(key)) for key in ("user_name", "description"))
    return HistoryEntry(entry["tid"], TransactionMetadata(user, description), entry["size"])


def _text(call: Call, text: Any) -> bytes:
    if not isinstance(text, str | bytes):
        _refuse(call, "what has no text for a user or a description")
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text


def fresh_oids(call: Call, answer: Any) -> list[Oid]:
    """Take new oids, at least one."""
    if type(answer) is not tuple or not answer or not all(map(is_id, answer)):
        _refuse(call, "no list of oids")
    return list(answer)


def changes(call: Call, answer: Any) -> tuple[Tid, tuple[Oid, ...]] | None:
    """Take what changed since a tid, and up to which; None if the server cannot tell."""
    if answer is None:
        return None
    if type(answer) is not tuple or len(answer) != 2 or type(answer[1]) is not tuple or not all(map(is_id, answer[1])):
        _refuse(call, "no (tid, oids)")
    return None if answer[0] is None else (tid(call, answer[0]), answer[1])


class ToResolve(NamedTuple):
    """A conflict that the client is to resolve: the serials committed and read, and the committed data if told."""

    oid: Oid
    committed: Tid
    read: Tid
    committed_data: bytes | None


class Votes(NamedTuple):
    """What a vote came to: the oids that the server changed, and the conflicts that stand against it."""

    changed: frozenset[Oid]
    conflicts: tuple[ToResolve, ...]


def votes(call: Call, answer: Any) -> Votes:
    """Take the answer to a vote."""
    if answer is not None and type(answer) is not tuple:
        _refuse(call, "no list")
    changed = frozenset(each for each in answer or () if is_id(each))
    return Votes(changed, tuple(_conflict(call, each) for each in answer or () if not is_id(each)))


def _conflict(call: Call, told: Any) -> ToResolve:
    if type(told) is not dict or not is_id(told.get("oid")):
        _refuse(call, "no list of oids and conflicts")
    serials, committed_data = told.get("serials"), told.get("committed")
    if type(serials) is not tuple or len(serials) != 2 or not all(map(is_id, serials)):
        _refuse(call, "a conflict without two serials")
    if type(committed_data) not in (bytes, type(None)):
        _refuse(call, "a conflict whose data are no bytes")
    return ToResolve(told["oid"], *serials, committed_data)


def undo_lines(call: Call, answer: Any) -> list[dict[str, Any]]:
    """Take lines of an undo log."""
    if type(answer) is not tuple or not all(type(line) is dict and type(line.get("id")) is bytes for line in answer):
        _refuse(call, "no list of undo log lines")
    return list(answer)


def info(call: Call, answer: Any) -> dict[str, Any]:
    """Take what the storage is and offers."""
    fault = info_fault(answer)
    if fault is not None:
        _refuse(call, fault)
    return dict(answer)


def info_fault(told: Any) -> str | None:
    """Return what is wrong with get_info's map, or with the changes of it that the server pushes; None if it fits."""
    if type(told) is not dict:
        return "no map"
    if type(told.get("length", 0)) is not int or type(told.get("size", 0)) is not int:
        return "a map whose length or size is no number"
    if type(told.get("extensions", ())) is not tuple:
        return "a map whose extensions are no list"
    return None


def status(call: Call, answer: Any) -> dict[str, Any]:
    """Take what the server says of itself."""
    if type(answer) is not dict:
        _refuse(call, "no map")
    return dict(answer)


_CLIENT = {
    **dict.fromkeys(("storage", "label", "address"), str),
    **dict.fromkeys(("read_only", "holds_locks"), bool),
    **dict.fromkeys(("loads", "stores", "commits", "bytes_in", "bytes_out"), int),
    **dict.fromkeys(("backlog_bytes", "in_flight", "transactions"), int),
    "since": float,
}


def clients(call: Call, answer: Any) -> list[dict[str, Any]]:
    """Take who is connected: for each client a map with the keys above, and perhaps others."""
    if type(answer) is not tuple or not all(type(client) is dict for client in answer):
        _refuse(call, "no list of maps")
    for client in answer:
        for key, kind in _CLIENT.items():
            if type(client.get(key)) is not kind:
                _refuse(call, f"a client whose {key} is no {kind.__name__}")
    return list(answer)


def _refuse(call: Call, what: str) -> NoReturn:
    raise RemoteProtocolError(f"the reply to {call.method} is {what}")
