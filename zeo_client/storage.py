"""ClientStorage: the storage contract over the wire, with a cache.

What arrives is applied in the order of the stream by whichever thread reads it (`transport.channel`); so all changes of
the cache and all invalidations happen in one order, and last_tid moves last (lessons B1, B4, B15).
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ssl import SSLContext
from typing import Any, Self, cast

from zeo_client import replies
from zeo_client.cache.opening import CACHE_BYTES, cache_path, open_cache
from zeo_client.iteration import RemoteLog
from zeo_client.open_transactions import OpenTransactions
from zeo_client.prefetch import prefetch, prefetch_many
from zeo_client.read_ahead import ReadAhead
from zeo_client.resolver import Resolver
from zeo_client.staging import Staging
from zeo_client.transport.address import AddressLike, parse_addresses
from zeo_client.transport.channel import Call, Channel, OnReply
from zeo_client.transport.supervisor import Supervisor
from zeo_client.transport.tls import securing
from zeo_client.undo_log import RemoteUndoLog
from zeo_client.upstream import UpstreamLink
from zeo_client.verification import ServerChanges
from zeo_core.errors import ReadOnlyError, RemoteProtocolError, StorageError
from zeo_core.ids import Oid, Tid, is_id, tid_repr
from zeo_core.storage import InvalidationSink
from zeo_core.transaction import HistoryEntry, RecordedTransaction, Revision, UndoEntry
from zeo_core.wire.codec import encode_one_way
from zeo_core.wire.methods import BULK_LOADING
from zeo_core.zodb import ZODBLog

__all__ = ["OIDS_AT_ONCE", "ClientStorage"]

OIDS_AT_ONCE = 100


class ClientStorage(ZODBLog):
    """A storage on a server, at `addr`: ("host", port), a port, "host:port", a Unix socket's path, or a list of these.

    `storage` names one of the server's storages. The constructor waits up to `wait_timeout` seconds for the server
    (ClientDisconnected; ValueError if it has no such storage), unless `wait` is false. A call that comes while the
    server is away waits up to `reconnect_timeout` seconds, counted from when it was lost, then raises
    ClientDisconnected; a call that is under way when the connection breaks raises it at once.

    `cache_size` is the size of the cache in bytes. With `cache`, a path, or with `client`, a name for a cache in the
    directory `var`, it is the size of a disk cache that all processes of this host share which name the same one; over
    it is a cache in memory of `memory_cache_size` bytes (docs/topics/caching.md).

    With `server_sync`, every transaction that is begun makes a round trip first, so that it sees all that any client
    had committed by then; without, what this client has heard of, which is at most a moment behind.

    `blob_dir` is a directory in which blobs are cached; `blob_cache_size`, in bytes, is what it is brought down to from
    time to time, whenever `blob_cache_size_check` percent of that have come in. With `shared_blob_dir` it is the very
    directory of the server, and nothing is cached. Without `blob_dir` there are no blobs.

    With `ssl`, connections are under TLS; if it checks names, for `ssl_server_hostname`, or else the address's host.

    Any number of threads may use it; their calls are under way together, and so are their transactions.
    """

    def __new__(cls, *_arguments: object, blob_dir: object = None, **_options: object) -> Self:
        """Make a BlobClientStorage if there is a directory for blobs: only such a one has their methods."""
        if blob_dir is not None and cls is ClientStorage:
            # Here, since that one's base is this class.
            from zeo_client.blob_storage import BlobClientStorage

            return cast(Self, super().__new__(BlobClientStorage))
        return super().__new__(cls)

    def __init__(
        self,
        addr: AddressLike | list[AddressLike],
        storage: str = "1",
        *,
        cache_size: int = CACHE_BYTES,
        memory_cache_size: int | None = None,
        cache: str | os.PathLike[str] | None = None,
        client: str | None = None,
        var: str | os.PathLike[str] | None = None,
        name: str = "",
        wait: bool = True,
        wait_timeout: float = 30.0,
        reconnect_timeout: float = 5.0,
        read_only: bool = False,
        client_label: str = "",
        server_sync: bool = False,
        blob_dir: str | os.PathLike[str] | None = None,
        shared_blob_dir: bool = False,
        blob_cache_size: int | None = None,
        blob_cache_size_check: int = 10,
        ssl: SSLContext | None = None,
        ssl_server_hostname: str | None = None,
    ) -> None:
        addresses = parse_addresses(addr)
        self._storage = storage
        self._name = name or f"{addresses[0]}/{storage}"
        self._read_only = read_only
        self._client_label = client_label
        self._server_sync = server_sync
        self._sink: InvalidationSink | None = None
        self._info: dict[str, Any] = {}
        self._verifying: list[tuple[Tid, Sequence[Oid]]] | None = None
        self._lock = threading.Lock()  # over the oids in stock
        self._oids: list[Oid] = []
        self._oids_generation: Channel | None = None
        secure = securing(ssl, ssl_server_hostname)
        identity = "/".join(map(str, [*addresses, storage]))
        self._cache = open_cache(cache_path(cache, client, var, storage), identity, cache_size, memory_cache_size)
        self._supervisor = Supervisor(addresses, self._verify, self._pushed, reconnect_timeout, secure=secure)
        self._channel = self._supervisor.channel
        self._read_ahead = ReadAhead(self._supervisor.current, self._brought, self._is_cached, self._cache.max_bytes)
        self._log = RemoteLog(self._channel, self._has)
        self._undo_log = RemoteUndoLog(self._channel)
        self._resolver = Resolver(self._name, self._remembered)
        self._transactions = OpenTransactions(self._channel, self._cache.last_tid, self._has, self._resolver, self)
        self._supervisor.start()
        if wait:
            try:
                self._supervisor.wait_ready(wait_timeout)
            except BaseException:
                self._supervisor.close()
                self._cache.close()
                raise

    # -- reading --------------------------------------------------------------------------------------------------

    def name(self) -> str:
        """Return the server's address and the storage's name, or the name given."""
        return self._name

    def read_only(self) -> bool:
        """Tell whether this client only reads; a read-only storage takes no other clients."""
        return self._read_only

    def last_tid(self) -> Tid:
        """Return the last transaction that this client knows of; what has arrived from the server is taken in first."""
        channel = self._supervisor.current()
        if channel is not None:
            channel.drain()
        return self._cache.last_tid()

    def load_before(self, oid: Oid, tid: Tid) -> Revision | None:
        """Return the newest revision before `tid`, from the cache or the server."""
        ahead = self._read_ahead
        revision = self._cache.load_before(oid, tid)
        if revision is not None:
            if oid in ahead.marks:
                ahead.reached(oid, tid)
            return revision
        if self._has(BULK_LOADING) and ahead.bring(oid, tid):
            revision = self._cache.load_before(oid, tid)
            if revision is not None:
                ahead.reached(oid, tid)
                return revision
        answer: Revision | None = self._channel().call("loadBefore", (oid, tid), self._loaded)
        if answer is not None:
            ahead.loaded(oid, answer.data)
        return answer

    def prefetch(self, oids: Iterable[Oid], tid: Tid, depth: int = 0, max_bytes: int | None = None) -> None:
        """Load the states before `tid` of those objects that the cache lacks, together, and wait for them.

        With a `depth`, what they refer to as well, in so many steps, up to about `max_bytes` of it; ZEO's servers do
        not know what that is.
        """
        if not self._has(BULK_LOADING):
            prefetch(self._channel(), self._missing(oids, tid), tid, self._loaded)
        elif depth:
            prefetch_many(self._channel(), filter(is_id, oids), tid, self._brought, depth, max_bytes)
        else:
            prefetch_many(self._channel(), self._missing(oids, tid), tid, self._brought)

    def _missing(self, oids: Iterable[Oid], tid: Tid) -> Iterator[Oid]:
        return (oid for oid in oids if is_id(oid) and not self._is_cached(oid, tid))

    def _is_cached(self, oid: Oid, tid: Tid) -> bool:
        return self._cache.load_before(oid, tid) is not None

    def load_serial(self, oid: Oid, tid: Tid) -> bytes:
        """Return the data that transaction `tid` wrote for `oid`; the server knows whether they are packed away."""
        data: bytes = self._channel().call("loadSerial", (oid, tid), replies.data)
        return data

    def _remembered(self, oid: Oid, tid: Tid) -> bytes:
        """Return the same, packed or not, out of the cache if they are there."""
        revision = self._cache.load_serial(oid, tid)
        return self.load_serial(oid, tid) if revision is None else revision.data

    def revisions(self, oid: Oid, size: int) -> list[HistoryEntry]:
        """Return up to `size` revisions, newest first."""
        entries: list[HistoryEntry] = self._channel().call("history", (oid, size), replies.history)
        return entries

    def transactions(self, start: Tid | None = None, stop: Tid | None = None) -> Iterator[RecordedTransaction]:
        """Walk the transactions with start <= tid <= stop; ends with ClientDisconnected when the connection does."""
        return self._log.transactions(start, stop)

    def record_iternext(self, next: Oid | None = None) -> tuple[Oid, Tid, bytes, Oid | None]:  # noqa: A002 - ZODB's
        """Return (oid, serial, data, following oid or None) of the first object from oid `next` on.

        ValueError if there is none.
        """
        found: tuple[Oid, Tid, bytes, Oid | None] = self._channel().call(
            "record_iternext", (next,), replies.record_from
        )
        return found

    def supportsUndo(self) -> bool:  # noqa: N802 - this and the following are ZODB's names
        """Tell whether the server's storage can take back transactions."""
        return bool(self._info.get("supportsUndo"))

    def undo_log(self) -> Iterator[UndoEntry]:
        """Walk the transactions that may be undone, newest first."""
        return self._undo_log.entries()

    def undoLog(  # noqa: N802
        self,
        first: int = 0,
        last: int = -20,
        filter: Callable[[dict[str, Any]], object] | None = None,  # noqa: A002 - ZODB's name
    ) -> list[dict[str, Any]]:
        """Return what may be undone, newest first, as dictionaries: id, time, user_name, description, size, extension.

        Those from number `first` up to number `last`; a negative `last` is how many. Only what `filter` wants counts.
        """
        return self._undo_log.lines(first, last, filter)

    def undoInfo(  # noqa: N802
        self, first: int = 0, last: int = -20, specification: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Return what may be undone, of what has the keys and values of `specification`; see undoLog."""
        return self._undo_log.fitting(first, last, specification)

    def object_count(self) -> int:
        """Return the number of objects that the server last told."""
        return int(self._info.get("length", 0))

    def byte_size(self) -> int:
        """Return the size in bytes that the server last told."""
        return int(self._info.get("size", 0))

    def cache_stats(self) -> dict[str, int]:
        """Return the cache's hits, misses, bytes, max_bytes, revisions; of a disk cache disk_hits and so on, too."""
        return self._cache.stats()

    def is_connected(self) -> bool:
        """Tell whether the server is there now."""
        channel = self._supervisor.current()
        return channel is not None and channel.lost is None

    def pack(self, time_s: float, referencesf: object = None, *, wait: bool = True) -> None:
        """Have the server drop what was replaced by `time_s` (seconds since 1970); StorageError if it cannot.

        `referencesf` is ZODB's way to find references, which the server knows by itself.
        """
        self._channel().call("pack", (time_s, wait))

    def server_status(self) -> dict[str, Any]:
        """Return what the server says of itself."""
        status: dict[str, Any] = self._channel().call("server_status", (), replies.status)
        return status

    def ping(self) -> None:
        """Make a round trip: everything committed before it is known to this client after it."""
        self._channel().call("ping")

    def sync(self, force: bool = True) -> None:
        """Hear of everything that was committed before, if `server_sync` was asked for; a DB calls this."""
        if force and self._server_sync:
            self.ping()

    def register_sink(self, sink: InvalidationSink) -> None:
        """Name the DB that hears of other clients' commits."""
        self._resolver.use(sink)
        self._sink = sink

    def upstream(self) -> UpstreamLink:
        """Return the way to the server, for a server that serves this storage on (zeo_core.upstream)."""
        return UpstreamLink(self._supervisor, self._cache)

    def close(self) -> None:
        """Disconnect for good."""
        self._supervisor.close()
        self._cache.close()

    # -- two-phase commit -----------------------------------------------------------------------------------------

    def new_oid(self) -> Oid:
        """Return a fresh oid; they are fetched a hundred at a time and dropped when the connection changes (B25)."""
        channel = self._channel()
        with self._lock:
            if self._oids and self._oids_generation is channel:
                return self._oids.pop()
        # Without the lock: a server that is slow to answer must not hold up who wants to begin or to abort.
        fresh: list[Oid] = channel.call("new_oids", (OIDS_AT_ONCE,), replies.fresh_oids)
        fresh.reverse()
        with self._lock:
            oid = fresh.pop()
            self._oids = fresh + self._oids if self._oids_generation is channel else fresh
            self._oids_generation = channel
            return oid

    def tpc_begin(self, transaction: Any, tid: Tid | None = None, status: str | bytes = b" ") -> None:
        """Begin; transactions of several threads may be in progress at once."""
        self._check_writable()
        self._transactions.begin(transaction, self._channel(), tid, status)

    def store(self, oid: Oid, serial: Tid, data: bytes, version: str, transaction: Any) -> None:
        """Add an object; conflicts are reported by tpc_vote."""
        if version:
            raise StorageError(f"version {version!r}: versions are not supported")
        self._staging(transaction).store(oid, serial, data)

    def deleteObject(self, oid: Oid, serial: Tid, transaction: Any) -> None:  # noqa: N802 - ZODB's name
        """Add an object's deletion; POSKeyError and conflicts are reported by tpc_vote."""
        self._staging(transaction).delete(oid, serial)

    def undo(self, transaction_id: bytes, transaction: Any) -> tuple[None, list[Oid]]:
        """Take back a transaction, named as the undo log names it; tpc_vote tells which objects that changes.

        So the pair that is returned, which ZODB's storages fill, has neither tid nor oids. It is tpc_vote that raises
        UndoError if it cannot be undone.
        """
        self._staging(transaction).undo(transaction_id)
        return None, []

    def restore(
        self, oid: Oid, serial: Tid, data: bytes | None, version: str, prev_txn: Tid | None, transaction: Any
    ) -> None:
        """Add an object of another storage's transaction; see ZODBLog."""
        self._staging(transaction).restore(oid, serial, data, prev_txn)

    def check_current(self, oid: Oid, serial: Tid, transaction: Any) -> None:
        """Ask that `serial` is still current at commit."""
        self._staging(transaction).check(oid, serial)

    def tpc_vote(self, transaction: Any) -> Sequence[Oid]:
        """Send everything in one burst and wait for the server's word; ConflictError, ReadConflictError."""
        return self._transactions.vote(transaction)

    def send_staged(self, channel: Channel, staging: Staging) -> bytes:
        """Return what is to be sent right before the vote; a subclass may have sent it already."""
        return staging.burst()

    def while_voting(self, staging: Staging) -> None:
        """Do what there is to do while the server votes."""

    def tpc_finish(self, transaction: Any, announce: Callable[[Tid], None] | None = None) -> Tid:
        """Commit. If the connection breaks before the server's word, it is asked over the next one.

        NotCommittedError then says that nothing was committed, CommitInDoubtError that it could not be found out.
        """

        def finished(staging: Staging) -> OnReply:
            return lambda call, tid: self._finished(staging, replies.tid(call, tid), announce)

        return self._transactions.finish(transaction, finished, announce)

    def tpc_abort(self, transaction: Any) -> None:
        """Forget the transaction, here and on the server."""
        self._transactions.abort(transaction)

    def _staging(self, transaction: Any) -> Staging:
        self._check_writable()
        return self._transactions.staging(transaction)

    def _check_writable(self) -> None:
        if self._read_only:
            raise ReadOnlyError(f"{self._name} is read-only for this client")

    def _has(self, extension: str) -> bool:
        """Tell whether the server announced an extension of the protocol."""
        return extension in self._info.get("extensions", ())

    # -- what arrives; in the reader's thread, in the order of the stream --------------------------------------------

    def _loaded(self, call: Call, answer: Any) -> Revision | None:
        revision = replies.revision(call, answer)
        return None if revision is None else self._take_in(call, call.args[0], revision)

    def _brought(self, call: Call, answer: Any) -> replies.Brought:
        brought = replies.many(call, answer)
        for oid, revision in brought.found:
            self._take_in(call, oid, revision)
        return brought

    def _take_in(self, call: Call, oid: Oid, revision: Revision) -> Revision:
        if revision.end_tid is None and call.superseded:
            # Belt and braces (B2): an invalidation that passed this load ends what the reply calls current.
            later = [tid for tid, oids in call.superseded if tid > revision.tid and oid in oids]
            revision = revision._replace(end_tid=min(later, default=None))
        if revision.tid <= self._cache.last_tid():
            self._cache.store(oid, revision)
        return revision

    def _finished(self, staging: Staging, tid: Tid, announce: Callable[[Tid], None] | None) -> Tid:
        self._check_next(tid)
        changed = staging.changed()
        self._supersede(staging.generation, tid, changed)
        self._cache.invalidate(tid, changed)
        for oid, write in staging.writes.items():
            if write.data is not None and oid not in staging.resolved:
                self._cache.store(oid, Revision(write.data, tid, None))
        if announce is not None:
            announce(tid)
        self._cache.advance(tid)
        return tid

    def _pushed(self, channel: Channel, method: str, args: tuple[Any, ...]) -> None:
        if method == "info":
            self._update_info(args[0] or {})
        elif method != "invalidateTransaction":
            raise RemoteProtocolError(f"the server sent {method} to a client that keeps no blobs")
        elif self._verifying is not None:
            self._verifying.append((args[0], args[1]))
        else:
            self._invalidated(channel, *args)

    def _update_info(self, changes: Any) -> None:
        fault = replies.info_fault(changes)
        if fault is not None:
            raise RemoteProtocolError(f"the server pushed info that is {fault}")
        self._info.update(changes)

    def _invalidated(self, channel: Channel, tid: Tid, oids: Sequence[Oid]) -> None:
        self._check_next(tid)
        self._supersede(channel, tid, oids)
        self._cache.invalidate(tid, oids)
        if self._sink is not None:
            self._sink.invalidate(tid, oids)
        self._cache.advance(tid)

    def _check_next(self, tid: Tid) -> None:
        if tid <= self._cache.last_tid():
            known = tid_repr(self._cache.last_tid())
            raise RemoteProtocolError(f"transaction {tid_repr(tid)} was announced after {known}")

    def _supersede(self, channel: Channel, tid: Tid, oids: Any) -> None:
        """Mark the loads under way of objects that `tid` changed; a load_many may bring any object."""
        for call in channel.pending_calls():
            if call.method == "load_many" or (call.method == "loadBefore" and call.args[0] in oids):
                call.superseded += ((tid, oids),)

    # -- a new connection -------------------------------------------------------------------------------------------

    def _verify(self, channel: Channel) -> None:
        """Register, and bring the cache and the DB up to the server's last transaction; in the background thread.

        What is pushed meanwhile waits, and is applied if it is later than what the verification covers (B9, B10).
        """
        self._verifying = []
        server_tid: Tid = channel.call("register", (self._storage, self._read_only), replies.last_tid)
        self._info = channel.call("get_info", (), replies.info)
        if self._client_label:
            channel.send(encode_one_way("set_client_label", (self._client_label,)))
        server_tid = self._cache.catch_up(server_tid, ServerChanges(channel, server_tid, self._name))
        if self._sink is not None:
            self._sink.invalidateCache()
        self._cache.advance(server_tid)
        waiting, self._verifying = self._verifying, None
        for tid, oids in waiting:
            if tid > server_tid:
                self._invalidated(channel, tid, oids)
