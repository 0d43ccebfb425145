"""What each call of a client does: one plain function a method, run in the server's loop, none of which waits.

A handler gets the caller and the arguments, which the session has checked against the table of methods, and returns
what the reply holds. An exception becomes the error reply. The calls that are answered later (vote, tpc_finish,
sendBlob, pack) get a callback for the answer as well, and so do those that are slow and done in a thread.
"""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from zeo_core.errors import MetadataError, POSKeyError, StorageError
from zeo_core.ids import MAX_TID, ZERO_TID, Oid, Tid, successor
from zeo_core.storage import ServedStorage, Undoes
from zeo_core.transaction import Revision
from zeo_core.wire.methods import (
    BULK_LOADING,
    CLIENT_LIST,
    CLIENT_RESOLUTION,
    COMMIT_OUTCOME,
    COMPRESSED_LOADING,
    CONCURRENT_TRANSACTIONS,
    EXTENSION_BYTES,
    RESTORES_BLOBS,
)
from zeo_core.zodb_records import history_line
from zeo_server.bulk import ANSWER_MAX_BYTES, Wanted
from zeo_server.commit.coordinator import Coordinator
from zeo_server.commit.outcomes import keeps_markers, tell_outcome
from zeo_server.commit.transaction import Answer, metadata_from_wire
from zeo_server.commit.uploads import Sender
from zeo_server.counters import ClientCounters
from zeo_server.interfaces import interfaces_of
from zeo_server.invalidation import changes_since
from zeo_server.iterators import Iterators
from zeo_server.limits import Limits
from zeo_server.service import Connection, Service
from zeo_server.storages.relayed import RelayedStorage

__all__ = ["HANDLERS", "LABEL_MAX", "NEW_OIDS_MAX", "Caller", "Handler"]

NEW_OIDS_MAX = 100
"""Oids given out at once, as in ZEO."""

LABEL_MAX = 100
"""Characters of a client's label that log lines show."""


class Caller(Connection, Sender, Protocol):
    """The connection that a call came on. `coordinator` and `storage` are there once it is registered."""

    service: Service
    counters: ClientCounters
    limits: Limits
    coordinator: Coordinator
    storage: ServedStorage
    iterators: Iterators

    def in_thread(self, function: Callable[[], object], answer: Answer) -> None:
        """Run a slow function in a thread, after those asked for before; `answer` gets what it returns or raises."""

    def register(self, storage: str, read_only: bool) -> Tid:
        """Choose the storage and return its last tid."""

    def rename(self, label: str) -> None:
        """Show `label` in log lines about this client."""

    def load_many(self, wanted: Wanted, answer: Answer) -> None:
        """Find many objects, then answer."""

    def send_blob(self, oid: Oid, serial: Tid, answer: Answer) -> None:
        """Send a blob, then the answer."""


class Handler(NamedTuple):
    """A method's function; `later` if it takes the callback for its answer."""

    call: Callable[..., object]
    later: bool


def _register(caller: Caller, storage: str | bytes, read_only: int | None = None) -> Tid:
    return caller.register(_text(storage), bool(read_only))


def _get_info(caller: Caller) -> Mapping[str, object]:
    return {
        **caller.coordinator.info(),
        "name": caller.storage.name(),
        "supportsUndo": isinstance(caller.storage, Undoes),
        "supports_record_iternext": hasattr(caller.storage, "record_iternext"),
        "interfaces": interfaces_of(caller.storage),
        "extensions": (
            *(BULK_LOADING, CLIENT_LIST, CLIENT_RESOLUTION, CONCURRENT_TRANSACTIONS, EXTENSION_BYTES),
            *(COMPRESSED_LOADING, RESTORES_BLOBS),
            *((COMMIT_OUTCOME,) if keeps_markers(caller.storage) else ()),
        ),
    }


def _last_transaction(caller: Caller) -> Tid:
    return caller.storage.last_tid()


def _get_tid(caller: Caller, answer: Answer, oid: Oid) -> None:
    storage = caller.storage

    def tid() -> Tid:
        revision = storage.load_before(oid, MAX_TID)
        if revision is None:
            raise POSKeyError(oid)
        return revision.tid

    caller.in_thread(tid, answer)  # a deletion has a tid, too: only the record tells


def _get_size(caller: Caller) -> int:
    return caller.storage.byte_size()


def _get_invalidations(caller: Caller, answer: Answer, tid: Tid) -> None:
    log = caller.coordinator.invalidations
    known = log.since(tid)
    storage = caller.storage
    if known is None and isinstance(storage, RelayedStorage):

        def told(outcome: object) -> None:
            # The other server may be ahead of what is shown here: what it did since then is still to be pushed.
            answer((min(outcome[0], storage.last_tid()), outcome[1]) if isinstance(outcome, tuple) else outcome)

        caller.in_thread(partial(storage.changes_since, tid), told)
    elif known is not None or log.age_s is None:
        answer(known)
    else:
        # What is committed meanwhile is pushed to the client, which applies it after this answer (lesson B10).
        caller.in_thread(partial(changes_since, caller.storage, tid, time.time() - log.age_s), answer)


def _load_before(caller: Caller, oid: Oid, tid: Tid) -> Revision | None:
    caller.counters.loads += 1
    caller.coordinator.counters.loads += 1
    return caller.coordinator.load(oid, tid)


def _load_many(
    caller: Caller,
    answer: Answer,
    oids: Sequence[Oid],
    tid: Tid,
    depth: int = 0,
    max_bytes: int = ANSWER_MAX_BYTES,
    through: str | bytes = "",
    compressed: bool = False,
) -> None:
    def count(objects: int) -> None:
        caller.counters.loads += objects

    caller.load_many(Wanted(oids, tid, depth, max_bytes, _text(through), bool(compressed), count), answer)


def _load_serial(caller: Caller, answer: Answer, oid: Oid, tid: Tid) -> None:
    caller.counters.loads += 1
    caller.coordinator.counters.loads += 1
    try:
        # What `tid` wrote is the newest revision right after it, and that can be had without waiting for the disk.
        revision = caller.coordinator.load(oid, successor(tid)) if tid < MAX_TID else None
    except BlockingIOError:
        caller.in_thread(partial(caller.storage.load_serial, oid, tid), answer)
        return
    if revision is None or revision.tid != tid:
        raise POSKeyError(oid)
    answer(revision.data)


def _new_oids(caller: Caller, answer: Answer, count: int = NEW_OIDS_MAX) -> None:
    fresh = partial(caller.storage.new_oids, min(max(count, 1), NEW_OIDS_MAX))
    if isinstance(caller.storage, RelayedStorage):
        caller.in_thread(fresh, answer)
    else:
        answer(fresh())


def _tpc_begin(
    caller: Caller,
    txn_id: Hashable,
    user: str | bytes,
    description: str | bytes,
    extension: Mapping[str, Any] | bytes | None,
    tid: Tid | None = None,
    status: str | bytes = " ",
    marker: bytes = b"",
) -> None:
    transaction = caller.coordinator.begin(caller, txn_id)
    # nobody waits for a reply to this call: the vote will say what is wrong with it
    try:
        transaction.metadata = metadata_from_wire(user, description, extension, marker)
        transaction.restore_as(tid, _text(status))
    except TypeError as error:
        transaction.doom(MetadataError(str(error)))  # the client's fault: no bug to be logged with its traceback
    except StorageError as error:
        transaction.doom(error)


def _storea(caller: Caller, oid: Oid, serial: Tid | str | None, data: bytes, txn_id: Hashable) -> None:
    caller.counters.stores += 1
    caller.coordinator.store(caller, txn_id, oid, _base_of(serial), data)


def _store_blob_start(caller: Caller) -> None:
    caller.coordinator.uploads.start(caller)


def _store_blob_chunk(caller: Caller, chunk: bytes) -> None:
    caller.coordinator.uploads.add(caller, chunk)


def _store_blob_end(caller: Caller, oid: Oid, serial: Tid | str | None, data: bytes, txn_id: Hashable) -> None:
    caller.counters.stores += 1
    upload = caller.coordinator.uploads.end(caller)
    caller.coordinator.stage_blob(caller, txn_id, oid, upload, lambda txn: txn.store(oid, _base_of(serial), data))


def _restore_blob_end(caller: Caller, oid: Oid, data: bytes, prev_txn: Tid | None, txn_id: Hashable) -> None:
    caller.counters.stores += 1
    upload = caller.coordinator.uploads.end(caller)
    caller.coordinator.stage_blob(caller, txn_id, oid, upload, lambda txn: txn.restore(oid, data, prev_txn))


def _store_blob_shared(
    caller: Caller, oid: Oid, serial: Tid | str | None, data: bytes, filename: str | bytes, txn_id: Hashable
) -> None:
    caller.counters.stores += 1
    source = caller.coordinator.uploads.shared(oid, _text(filename))
    caller.coordinator.stage_blob(caller, txn_id, oid, source, lambda txn: txn.store(oid, _base_of(serial), data))


def _send_blob(caller: Caller, answer: Answer, oid: Oid, serial: Tid) -> None:
    caller.counters.loads += 1
    caller.coordinator.counters.loads += 1
    caller.send_blob(oid, serial, answer)


def _delete_object(caller: Caller, oid: Oid, serial: Tid, txn_id: Hashable) -> None:
    caller.counters.stores += 1
    caller.coordinator.delete(caller, txn_id, oid, serial)


def _restorea(
    caller: Caller, oid: Oid, _serial: Tid, data: bytes | None, prev_txn: Tid | None, txn_id: Hashable
) -> None:
    caller.counters.stores += 1
    caller.coordinator.restore(caller, txn_id, oid, data, prev_txn)


def _check_current(caller: Caller, oid: Oid, serial: Tid, txn_id: Hashable) -> None:
    caller.coordinator.check(caller, txn_id, oid, serial)


def _undoa(caller: Caller, transaction_id: bytes, txn_id: Hashable) -> None:
    caller.coordinator.undo(caller, txn_id, transaction_id)


def _vote(caller: Caller, answer: Answer, txn_id: Hashable, resolves: int | None = False) -> None:
    caller.coordinator.vote(caller, txn_id, answer, resolves=bool(resolves))


def _tpc_finish(caller: Caller, answer: Answer, txn_id: Hashable) -> None:
    def finished(outcome: object) -> None:
        if not isinstance(outcome, Exception):
            caller.counters.commits += 1
        answer(outcome)

    caller.coordinator.finish(caller, txn_id, finished)


def _transaction_outcome(caller: Caller, answer: Answer, marker: bytes, since: Tid) -> None:
    tell_outcome(caller.coordinator, caller.in_thread, marker, since, answer)


def _tpc_abort(caller: Caller, txn_id: Hashable) -> None:
    caller.coordinator.abort(caller, txn_id)


def _pack(caller: Caller, answer: Answer, time_s: float, wait: int | None = True) -> None:
    if wait:
        caller.coordinator.packing.start(time_s, answer)
    else:
        caller.coordinator.packing.start(time_s, lambda _outcome: None)
        answer(None)


def _history(caller: Caller, answer: Answer, oid: Oid, size: int = 1) -> None:
    storage, most = caller.storage, caller.limits.history_max
    caller.in_thread(lambda: [history_line(entry) for entry in storage.revisions(oid, min(size, most))], answer)


def _undo_log(caller: Caller, answer: Answer, first: int = 0, last: int = -20) -> None:
    caller.in_thread(partial(caller.coordinator.undo_lines.read, first, last), answer)


def _undo_info(
    caller: Caller, answer: Answer, first: int = 0, last: int = -20, specification: Mapping[str, Any] | None = None
) -> None:
    caller.in_thread(partial(caller.coordinator.undo_lines.read, first, last, specification), answer)


def _record_iternext(caller: Caller, answer: Answer, next_oid: Oid | None = None) -> None:
    walk = getattr(caller.storage, "record_iternext", None)
    if walk is None:
        raise StorageError(f"the objects of storage {caller.coordinator.name} cannot be walked")
    caller.in_thread(partial(walk, next_oid), answer)


def _iterator_start(
    caller: Caller, answer: Answer, start: Tid | None = None, stop: Tid | None = None, exact: int | None = False
) -> None:
    caller.in_thread(partial(caller.iterators.start, start, stop, exact=bool(exact)), answer)


def _iterator_next(caller: Caller, answer: Answer, number: int) -> None:
    caller.in_thread(partial(caller.iterators.next, number), answer)


def _iterator_record_start(caller: Caller, answer: Answer, number: int, tid: Tid) -> None:
    caller.in_thread(partial(caller.iterators.record_start, number, tid), answer)


def _iterator_record_next(caller: Caller, answer: Answer, number: int) -> None:
    caller.in_thread(partial(caller.iterators.record_next, number), answer)


def _iterator_gc(caller: Caller, answer: Answer, numbers: Sequence[int]) -> None:
    caller.in_thread(partial(caller.iterators.forget, numbers), answer)


def _server_status(caller: Caller) -> dict[str, object]:
    return caller.service.status().storages[caller.coordinator.name].as_map()


def _clients(caller: Caller) -> list[dict[str, object]]:
    # Those of its own storage: who may read one need not know who uses the others.
    name = caller.coordinator.name
    return [client.as_map() for client in caller.service.status().clients if client.storage == name]


def _set_client_label(caller: Caller, label: str | bytes) -> None:
    # What a client says goes into log lines only as printable text: a newline could forge a line of its own.
    text = _text(label)[:LABEL_MAX]
    caller.rename("".join(char if char.isprintable() else "?" for char in text))


def _ping(_caller: Caller) -> None:
    return


def _base_of(serial: Tid | str | None) -> Tid:
    return serial if isinstance(serial, bytes) else ZERO_TID


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


_FUNCTIONS: dict[str, Callable[..., object]] = {
    "register": _register,
    "get_info": _get_info,
    "lastTransaction": _last_transaction,
    "getTid": _get_tid,
    "getSize": _get_size,
    "getInvalidations": _get_invalidations,
    "loadBefore": _load_before,
    "load_many": _load_many,
    "loadSerial": _load_serial,
    "new_oids": _new_oids,
    "tpc_begin": _tpc_begin,
    "storea": _storea,
    "storeBlobStart": _store_blob_start,
    "storeBlobChunk": _store_blob_chunk,
    "storeBlobEnd": _store_blob_end,
    "restoreBlobEnd": _restore_blob_end,
    "storeBlobShared": _store_blob_shared,
    "deleteObject": _delete_object,
    "restorea": _restorea,
    "checkCurrentSerialInTransaction": _check_current,
    "undoa": _undoa,
    "vote": _vote,
    "tpc_finish": _tpc_finish,
    "transaction_outcome": _transaction_outcome,
    "tpc_abort": _tpc_abort,
    "history": _history,
    "sendBlob": _send_blob,
    "undoLog": _undo_log,
    "undoInfo": _undo_info,
    "record_iternext": _record_iternext,
    "iterator_start": _iterator_start,
    "iterator_next": _iterator_next,
    "iterator_record_start": _iterator_record_start,
    "iterator_record_next": _iterator_record_next,
    "iterator_gc": _iterator_gc,
    "pack": _pack,
    "server_status": _server_status,
    "clients": _clients,
    "set_client_label": _set_client_label,
    "ping": _ping,
}

_LATER = frozenset(
    {
        *(
            "getTid",
            "getInvalidations",
            "load_many",
            "loadSerial",
            "new_oids",
            "transaction_outcome",
            "vote",
            "tpc_finish",
            "pack",
            "history",
            "sendBlob",
            "undoLog",
            "undoInfo",
            "record_iternext",
        ),
        *("iterator_gc",),
        *("iterator_start", "iterator_next", "iterator_record_start", "iterator_record_next"),
    }
)

HANDLERS: Mapping[str, Handler] = MappingProxyType(
    {name: Handler(call, name in _LATER) for name, call in _FUNCTIONS.items()}
)
"""A handler for each method of `zeo_core.wire.methods.CLIENT_CALLS`."""
