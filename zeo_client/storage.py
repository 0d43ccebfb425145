"""ClientStorage: the storage contract over the wire, with a cache.

What arrives is applied in the order of the stream by whichever thread reads it: `transport.channel`, `zeo_client.feed`.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from ssl import SSLContext
from typing import Any, Self, cast

from zeo_client import replies
from zeo_client.cache.opening import CACHE_BYTES, cache_path, open_cache
from zeo_client.client_options import note_obsolete
from zeo_client.compression import Compression
from zeo_client.feed import Feed
from zeo_client.iteration import RemoteLog
from zeo_client.oid_stock import OidStock
from zeo_client.open_transactions import OpenTransactions
from zeo_client.prefetch import load_one, prefetch, prefetch_many
from zeo_client.read_ahead import ReadAhead
from zeo_client.resolver import Resolver
from zeo_client.staging import MEMORY_BYTES, Staging
from zeo_client.transport.address import AddressLike, parse_addresses
from zeo_client.transport.channel import Channel, OnReply
from zeo_client.transport.pauses import BACKOFF, SEEKING
from zeo_client.transport.supervisor import SecondBest, Supervisor
from zeo_client.transport.tls import securing
from zeo_client.undo_log import RemoteUndoLog
from zeo_client.upstream import UpstreamLink
from zeo_client.verification import ServerChanges, register
from zeo_core.errors import (
    ConfigurationError,
    ReadOnlyError,
    RemoteProtocolError,
    StorageError,
    StorageTransactionError,
)
from zeo_core.ids import ZERO_TID, Oid, Tid, is_id
from zeo_core.storage import InvalidationSink
from zeo_core.transaction import HistoryEntry, RecordedTransaction, Revision, UndoEntry
from zeo_core.wire.codec import encode_one_way
from zeo_core.wire.methods import BULK_LOADING, COMPRESSED_LOADING
from zeo_core.zodb import ZODBLog

__all__ = ["WAIT_TIMEOUT_S", "ClientStorage"]

WAIT_TIMEOUT_S = 30.0
"""ZEO's default."""


class ClientStorage(ZODBLog):
    """A storage on a server, at `addr`: ("host", port), a port, "host:port", a Unix socket's path, or a list of these.

    `storage` names one of the server's storages. The constructor waits up to `wait_timeout` seconds for the server
    (ClientDisconnected; ValueError if it has no such storage), unless `wait` is false. A call that comes while the
    server is away waits up to `reconnect_timeout` seconds, counted from when it was lost, then raises
    ClientDisconnected; a call that is under way when the connection breaks raises it at once. Between attempts there
    are `min_disconnect_poll` up to `max_disconnect_poll` seconds.

    Of several servers, the first that serves is used. With `read_only_fallback` one that takes no writes will do until
    another one does, which is looked for all the time (docs/howto/failover.md); with `read_only`, any.

    `cache_size` is the size of the cache in bytes. With `cache`, a path, or with `client`, a name for a cache in the
    directory `var`, it is the size of a disk cache that all processes of this host share which name the same one; over
    it is a cache in memory of `memory_cache_size` bytes (docs/topics/caching.md).

    A transaction has up to `staging_memory_size` bytes in memory until its vote, the rest in a temporary file.

    With `server_sync`, every transaction that is begun makes a round trip first, so that it sees all that any client
    had committed by then; without, what this client has heard of, which is at most a moment behind.

    With `compression` a zeod compresses what is loaded; by default over slow links, and never within one machine.

    `blob_dir` is a directory in which blobs are cached; `blob_cache_size`, in bytes, is what it is brought down to from
    time to time, whenever `blob_cache_size_check` percent of that have come in. With `shared_blob_dir` it is the very
    directory of the server, and nothing is cached. Without `blob_dir` there are no blobs.

    With `ssl`, connections are under TLS; if it checks names, for `ssl_server_hostname`, or else the address's host.

    Any number of threads may use it; their calls are under way together, and so are their transactions.

    The arguments from `disconnect_poll` on are ZEO's, and have no effect, nor do they have one there.
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
        staging_memory_size: int = MEMORY_BYTES,
        cache: str | os.PathLike[str] | None = None,
        client: str | None = None,
        var: str | os.PathLike[str] | None = None,
        name: str = "",
        wait: bool = True,
        wait_timeout: float | None = None,
        reconnect_timeout: float = 5.0,
        min_disconnect_poll: float | None = None,
        max_disconnect_poll: float | None = None,
        read_only: bool = False,
        read_only_fallback: bool = False,
        client_label: str | None = None,
        server_sync: bool = False,
        compression: bool | None = None,
        blob_dir: str | os.PathLike[str] | None = None,
        shared_blob_dir: bool = False,
        blob_cache_size: int | None = None,
        blob_cache_size_check: int = 10,
        ssl: SSLContext | None = None,
        ssl_server_hostname: str | None = None,
        disconnect_poll: object = None,
        drop_cache_rather_verify: object = None,
        credentials: object = None,
        username: object = None,
        password: object = None,
        realm: object = None,
    ) -> None:
        if read_only and read_only_fallback:
            raise ConfigurationError("read_only and read_only_fallback: the one wants no writes, the other does")
        addresses = parse_addresses(addr)
        self._storage = storage
        self._name = name or f"{addresses[0]}/{storage}"
        self._read_only = read_only
        self._client_label = client_label or ""
        self._server_sync = server_sync
        self._compression = Compression(compression)
        self._info: dict[str, Any] = {}
        self._verifying: list[tuple[Tid, Sequence[Oid]]] | None = None
        note_obsolete(
            self._name,
            disconnect_poll=disconnect_poll,
            drop_cache_rather_verify=drop_cache_rather_verify,
            credentials=credentials,
            username=username,
            password=password,
            realm=realm,
        )
        identity = "/".join(map(str, [*addresses, storage]))
        self._cache = open_cache(cache_path(cache, client, var, storage), identity, cache_size, memory_cache_size)
        self._feed = Feed(self._cache)
        self._lost_states = self._feed.lost_states
        self._supervisor = Supervisor(
            addresses,
            partial(self._verify, read_only=read_only),
            self._pushed,
            reconnect_timeout,
            secure=securing(ssl, ssl_server_hostname),
            second_best=SecondBest(partial(self._verify, read_only=True), self._probe) if read_only_fallback else None,
            backoff=BACKOFF.within(min_disconnect_poll, max_disconnect_poll),
            seeking=SEEKING.within(min_disconnect_poll, max_disconnect_poll),
        )
        self._channel = self._supervisor.channel
        self._oids = OidStock(self._channel)
        self._read_ahead = ReadAhead(
            *(self._supervisor.current, self._feed.brought, self._is_cached, self._cache.max_bytes),
            self._compression.pays,
        )
        self._log = RemoteLog(self._channel, self._has)
        self._undo_log = RemoteUndoLog(self._channel)
        self._resolver = Resolver(self._name, self._remembered)
        self._transactions = OpenTransactions(
            self._supervisor.best_channel, self._cache.last_tid, self._has, self._resolver, self, staging_memory_size
        )
        self._supervisor.start()
        if wait:
            self._wait(WAIT_TIMEOUT_S if wait_timeout is None else wait_timeout)

    def _wait(self, timeout_s: float) -> None:
        try:
            self._supervisor.wait_ready(timeout_s)
        except BaseException:
            self._supervisor.close()
            self._cache.close()
            raise

    # -- reading --------------------------------------------------------------------------------------------------

    def name(self) -> str:
        """Return the server's address and the storage's name, or the name given."""
        return self._name

    def read_only(self) -> bool:
        """Tell whether this client only reads, as it was asked to, or since its server takes no writes."""
        return self._read_only

    def last_tid(self) -> Tid:
        """Return the last transaction that this client knows of; what has arrived from the server is taken in first."""
        channel = self._supervisor.current()
        if channel is not None:
            channel.drain()
        return self._cache.last_tid()

    def load_before(self, oid: Oid, tid: Tid) -> Revision | None:
        """Return the newest revision before `tid`, from the cache or the server."""
        if self._lost_states:
            self._lost_states.check(oid, tid)
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
        answer = self._load(oid, tid)
        if answer is not None:
            ahead.loaded(oid, answer.data)
        return answer

    def _load(self, oid: Oid, tid: Tid) -> Revision | None:
        channel = self._channel()
        if self._compression.is_possible and self._compression.pays(channel):
            revision = load_one(channel, oid, tid, self._feed.brought)
            if revision is not None:
                return revision  # else a plain load tells why not
        return cast(Revision | None, channel.call("loadBefore", (oid, tid), self._feed.loaded))

    def prefetch(self, oids: Iterable[Oid], tid: Tid, depth: int = 0, max_bytes: int | None = None) -> None:
        """Load the states before `tid` of those objects that the cache lacks, together, and wait for them.

        With a `depth`, what they refer to as well, in so many steps, up to about `max_bytes` of it; ZEO's servers do
        not know what that is.
        """
        channel = self._channel()
        compressed = self._compression.pays(channel)
        if not self._has(BULK_LOADING):
            prefetch(channel, self._missing(oids, tid), tid, self._feed.loaded)
        else:
            wanted = filter(is_id, oids) if depth else self._missing(oids, tid)
            prefetch_many(channel, wanted, tid, self._feed.brought, depth, max_bytes, compressed=compressed)

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
        self._feed.sink = sink

    def new_addr(self, addr: AddressLike | list[AddressLike]) -> None:
        """Look for a server at other addresses from now on; the connection that there is stays as long as it lasts."""
        self._supervisor.use_addresses(parse_addresses(addr))

    def upstream(self) -> UpstreamLink:
        """Return the way to the server, for a server that serves this storage on (zeo_core.upstream)."""
        return UpstreamLink(self._supervisor, self._cache, self._transactions, self._has)

    def close(self) -> None:
        """Disconnect for good."""
        self._supervisor.close()
        self._cache.close()

    # -- two-phase commit -----------------------------------------------------------------------------------------

    def new_oid(self) -> Oid:
        """Return a fresh oid, which nobody else has or will be given."""
        return self._oids.take()

    def tpc_begin(self, transaction: Any, tid: Tid | None = None, status: str | bytes = b" ") -> None:
        """Begin; transactions of several threads may be in progress at once."""
        if self._supervisor.current() is not None:
            self._check_writable()
        channel = self._channel()
        self._check_writable()  # that of this connection
        self._transactions.begin(transaction, channel, tid, status)

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
        """Return what is to be sent right before the vote; all before that, or in a subclass all, is sent already."""
        if staging.is_small():
            return staging.burst()
        pieces = staging.pieces()
        last = next(pieces)
        for piece in pieces:
            channel.send(last)
            last = piece
        return last

    def while_voting(self, staging: Staging) -> None:
        """Do what there is to do while the server votes."""

    def tpc_finish(self, transaction: Any, announce: Callable[[Tid], None] | None = None) -> Tid:
        """Commit. If the connection breaks before the server's word, it is asked over the next one.

        NotCommittedError then says that nothing was committed, CommitInDoubtError that it could not be found out.
        """

        def finished(staging: Staging) -> OnReply:
            return lambda call, tid: self._feed.finished(staging, replies.tid(call, tid), announce)

        return self._transactions.finish(transaction, finished, announce)

    def tpc_abort(self, transaction: Any) -> None:
        """Forget the transaction, here and on the server."""
        self._transactions.abort(transaction)

    def _staging(self, transaction: Any) -> Staging:
        try:
            return self._transactions.staging(transaction)
        except StorageTransactionError:
            self._check_writable()
            raise

    def _check_writable(self) -> None:
        if self._read_only:
            raise ReadOnlyError(f"{self._name} is read-only for this client")

    def _has(self, extension: str) -> bool:
        """Tell whether the server announced an extension of the protocol."""
        return extension in self._info.get("extensions", ())

    # -- what arrives; in the reader's thread, in the order of the stream --------------------------------------------

    def _pushed(self, channel: Channel, method: str, args: tuple[Any, ...]) -> None:
        if method == "info":
            self._update_info(args[0] or {})
        elif method != "invalidateTransaction":
            raise RemoteProtocolError(f"the server sent {method} to a client that keeps no blobs")
        elif self._verifying is not None:
            self._verifying.append((args[0], args[1]))
        else:
            self._feed.invalidated(channel, *args)

    def _update_info(self, changes: Any) -> None:
        fault = replies.info_fault(changes)
        if fault is not None:
            raise RemoteProtocolError(f"the server pushed info that is {fault}")
        self._info.update(changes)

    # -- a new connection -------------------------------------------------------------------------------------------

    def _verify(self, channel: Channel, *, read_only: bool) -> None:
        """Register, and bring the cache and the DB up to the server's last transaction; in the background thread.

        What is pushed meanwhile waits, and is applied if it is later than what the verification covers (B9, B10).
        """
        self._verifying = []
        known = self._cache.last_tid()
        server_tid = register(channel, self._storage, known, read_only=read_only)
        self._info = channel.call("get_info", (), replies.info)
        self._compression.connected(channel, offered=self._has(COMPRESSED_LOADING))
        if self._client_label:
            channel.send(encode_one_way("set_client_label", (self._client_label,)))
        self._lost_states.add(server_tid, known)
        changes = ServerChanges(channel, server_tid, self._name, knows_forks=bool(self._info.get("extensions")))
        server_tid = self._cache.catch_up(server_tid, changes)
        self._read_only = read_only
        self._feed.reset(server_tid)
        waiting, self._verifying = self._verifying, None
        for tid, oids in waiting:
            if tid > server_tid:
                self._feed.invalidated(channel, tid, oids)

    def _probe(self, channel: Channel) -> None:
        """Ask a server whether it takes writes; ReadOnlyError if not."""
        register(channel, self._storage, ZERO_TID, read_only=False)
