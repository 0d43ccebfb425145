"""A server for the client's tests: real M5 over a real socket, and a script for what it does wrong.

It answers every call like a good server with a small storage of its own. A test takes a method over with
`peer.script[method] = function(link, request)`, or lets its requests lie with `peer.hold(method)` and answers them
itself, in any order, from its own thread:

    peer.hold("loadBefore")
    ...                                     # a client's thread loads
    link, request = peer.held("loadBefore") # waits until the request is there
    link.send(link.push("invalidateTransaction", tid, [oid]), link.reply(request, None))   # one write, this order
"""

import contextlib
import functools
import gc
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from zeo_client.transport.address import Address
from zeo_core.errors import ConflictError, POSKeyError
from zeo_core.ids import ZERO_TID, Oid, Tid, pack_id, successor
from zeo_core.record import class_name, references
from zeo_core.transaction import Revision
from zeo_core.wire.session import Failed, KeepAlive, Request, Role, Session

__all__ = ["PATIENCE_S", "Background", "Link", "Peer", "Script", "in_threads", "nothing_left_behind", "until"]

PATIENCE_S = 20.0
"""How long a test waits for what must come, before it fails instead of hanging."""

Script = Callable[["Link", Request], None]

_T = TypeVar("_T")


def until(what: Callable[[], _T], patience_s: float = PATIENCE_S, pause_s: float = 0.001) -> _T:
    """Return what `what()` gives once it is true; fail when it does not become so."""
    deadline = time.monotonic() + patience_s
    while not (value := what()):
        assert time.monotonic() < deadline, f"did not happen within {patience_s:g} s"
        time.sleep(pause_s)
    return value


def in_threads(*targets: Callable[[], object], patience_s: float = PATIENCE_S) -> list[Any]:
    """Run functions in a thread each and return their results; raise their first error, fail if one hangs."""
    threads = [Background(target) for target in targets]
    deadline = time.monotonic() + patience_s
    return [thread.result(max(0.0, deadline - time.monotonic())) for thread in threads]


class Background:
    """A function that runs in a thread; `result` waits for what it returns or raises."""

    def __init__(self, target: Callable[..., object], *args: object) -> None:
        self._target = functools.partial(target, *args)
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._target()
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            self._error = error

    def done(self) -> bool:
        return not self._thread.is_alive()

    def result(self, patience_s: float = PATIENCE_S) -> Any:
        self._thread.join(patience_s)
        if self._thread.is_alive():
            frame = sys._current_frames().get(self._thread.ident or 0)
            where = "".join(traceback.format_stack(frame)) if frame else ""
            raise AssertionError(f"hangs:\n{where}")
        if self._error is not None:
            raise self._error
        return self._value


class Link:
    """The server's end of one connection, in its own thread."""

    def __init__(self, peer: "Peer", sock: socket.socket) -> None:
        self.peer = peer
        self.sock = sock
        self.session = Session(Role.SERVER)
        self.requests: list[Request] = []
        self.reading = threading.Event()
        self.reading.set()
        self.ended = threading.Event()
        self.failure: Exception | None = None
        self.signs_of_life = 0
        self._sending = threading.Lock()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def send(self, *messages: bytes) -> None:
        """Send messages in one write; a client that is gone is no error here."""
        with self._sending, contextlib.suppress(OSError):
            self.sock.sendall(b"".join(messages))

    def reply(self, request: Request, result: object) -> bytes:
        return self.session.reply(request.message_id, result)

    def error(self, request: Request, error: BaseException) -> bytes:
        return self.session.error(request.message_id, error)

    def push(self, method: str, *args: object) -> bytes:
        return self.session.one_way(method, args)

    def invalidation(self, tid: Tid, *oids: Oid) -> bytes:
        return self.push("invalidateTransaction", tid, oids)

    def cut(self) -> None:
        """End the connection at once; what was sent still arrives."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def calls(self, method: str) -> list[Request]:
        """Return the requests of one method so far."""
        return [request for request in list(self.requests) if request.method == method]

    def _run(self) -> None:
        try:
            self.send(self.peer.greeting)
            while data := self._receive():
                for event in self.session.receive(data):
                    if isinstance(event, Request):
                        self.requests.append(event)
                        self.peer.handle(self, event)
                    elif isinstance(event, Failed):
                        self._fail(event.error)
                    elif isinstance(event, KeepAlive):
                        self.signs_of_life += 1
        except Exception as error:  # noqa: BLE001 - for the test to look at
            self._fail(error)
        finally:
            self.ended.set()
            self.cut()

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self.peer.failures.append(error)

    def _receive(self) -> bytes:
        self.reading.wait()
        try:
            return self.sock.recv(256 * 1024)
        except OSError:
            return b""


class Peer:
    """A scriptable server on a Unix socket (`path`), a TCP port of 127.0.0.1, or one socket pair (`pair`)."""

    def __init__(self, path: Path | None = None, *, listen: bool = True) -> None:
        self.greeting = Session(Role.SERVER).greeting()
        self.script: dict[str, Script] = {}
        self.links: list[Link] = []
        self.failures: list[Exception] = []
        self.revisions: dict[Oid, list[tuple[Tid, bytes]]] = {}
        self.log: list[tuple[Tid, list[Oid]]] = []
        self._walks: list[Iterator[Tid]] = []
        self.last_tid = ZERO_TID
        self.last_oid = 1000
        self.extensions: tuple[str, ...] = ()
        self.interfaces: tuple[tuple[str, str], ...] = ()
        self.blobs: dict[tuple[Oid, Tid], bytes] = {}
        self._staged: dict[tuple[Link, object], dict[Oid, tuple[Tid, bytes]]] = {}
        self._markers: dict[tuple[Link, object], bytes] = {}
        self._marked: dict[bytes, Tid] = {}
        self._coming: dict[Link, bytes] = {}
        self._brought: dict[tuple[Link, object], dict[Oid, bytes]] = {}
        self._held: dict[str, deque[tuple[Link, Request]]] = {}
        self._came = threading.Condition()
        self._commit = threading.RLock()
        self._path = path
        self._port = 0
        self._listener: socket.socket | None = None
        self._acceptor = threading.current_thread()
        if listen:
            self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
        if kind is None:
            assert self.failures == []

    # -- connections ----------------------------------------------------------------------------------------------

    @property
    def address(self) -> Address:
        return Address("", 0, str(self._path)) if self._path else Address("127.0.0.1", self._port)

    def start(self) -> None:
        """Listen, at the same address as before."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(self._path))
        else:
            self._listener = socket.socket()
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(("127.0.0.1", self._port))
            self._port = self._listener.getsockname()[1]
        self._listener.listen()
        self._acceptor = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        """Stop listening and cut every connection."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._acceptor.join(PATIENCE_S)
            self._listener.close()
            self._listener = None
        for link in self.links:
            link.cut()
            link.reading.set()
            link.thread.join(PATIENCE_S)
            link.sock.close()

    def pair(self) -> socket.socket:
        """Return the client's end of a new connection that needs no listening."""
        ours, theirs = socket.socketpair()
        self._begin(ours)
        return theirs

    def link(self, number: int = -1) -> Link:
        """Return a connection whose client has registered."""
        return until(lambda: [link for link in self.links if link.calls("register")][number:])[0]

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                self._begin(sock)

    def _begin(self, sock: socket.socket) -> None:
        link = Link(self, sock)
        self.links.append(link)
        link.thread.start()

    # -- scripts --------------------------------------------------------------------------------------------------

    def handle(self, link: Link, request: Request) -> None:
        """Do what the script says, or what a good server does."""
        script = self.script.get(request.method)
        if script is not None:
            script(link, request)
        else:
            self.answer(link, request)

    def answer(self, link: Link, request: Request) -> None:
        """Answer like a good server."""
        handler: Callable[..., Any] = getattr(self, f"_{request.method}")
        with self._commit:
            try:
                result = handler(link, *request.args)
            except (LookupError, ConflictError, ValueError) as error:
                link.send(link.error(request, error))
                return
            if request.method == "register":
                link.session.registered()
            if not request.one_way:
                link.send(link.reply(request, result))

    def hold(self, *methods: str) -> None:
        """Let requests of these methods lie until the test answers them."""
        for method in methods:
            self._held[method] = deque()
            self.script[method] = self._keep

    def release(self, *methods: str) -> None:
        """Answer the methods again as usual; what is held stays so."""
        for method in methods:
            del self.script[method]

    def held(self, method: str) -> tuple[Link, Request]:
        """Return the next request that lies, waiting for it."""
        with self._came:
            assert self._came.wait_for(lambda: self._held[method], PATIENCE_S), f"{method} did not come"
            return self._held[method].popleft()

    def _keep(self, link: Link, request: Request) -> None:
        with self._came:
            self._held[request.method].append((link, request))
            self._came.notify_all()

    # -- a good server --------------------------------------------------------------------------------------------

    def commit(self, data: dict[Oid, bytes], by: Link | None = None) -> Tid:
        """Commit as some client would: the others hear of it."""
        with self._commit:
            tid = self.last_tid = successor(self.last_tid)
            for oid, record in data.items():
                self.revisions.setdefault(oid, []).append((tid, record))
            self.log.append((tid, list(data)))
            for link in self.links:
                if link is not by and link.session.state.value == "ready":
                    link.send(link.invalidation(tid, *data))
            return tid

    def revision(self, oid: Oid, before: Tid) -> Revision | None:
        """Return what a good server gives for loadBefore."""
        if oid not in self.revisions:
            raise POSKeyError(oid)
        end = None
        for tid, data in reversed(self.revisions[oid]):
            if tid < before:
                return Revision(data, tid, end)
            end = tid
        return None

    def _lastTransaction(self, link: Link) -> Tid:  # noqa: N802
        return self.last_tid

    def _register(self, link: Link, storage: str, read_only: bool = False) -> Tid:
        if storage != "1":
            raise ValueError(f"unknown storage: {storage}")
        return self.last_tid

    def _get_info(self, link: Link) -> dict[str, Any]:
        return {
            "name": "peer",
            "length": len(self.revisions),
            "size": 0,
            "interfaces": self.interfaces,
            "extensions": self.extensions,
        }

    def _getInvalidations(self, link: Link, tid: Tid) -> tuple[Tid, list[Oid]] | None:  # noqa: N802
        if tid not in {known for known, _ in self.log}:
            return None
        return self.last_tid, [oid for later, oids in self.log if later > tid for oid in oids]

    def _iterator_start(self, link: Link, start: Tid, stop: Tid) -> int:
        self._walks.append(iter([tid for tid, _ in self.log if start <= tid <= stop]))
        return len(self._walks) - 1

    def _iterator_next(self, link: Link, number: int) -> tuple[object, ...] | None:
        tid = next(self._walks[number], None)
        return None if tid is None else (tid, b" ", b"", b"", {})

    def _iterator_gc(self, link: Link, numbers: list[int]) -> None:
        return None

    def _loadBefore(self, link: Link, oid: Oid, tid: Tid) -> Revision | None:  # noqa: N802
        return self.revision(oid, tid)

    def _load_many(
        self, link: Link, oids: tuple[Oid, ...], tid: Tid, depth: int = 0, max_bytes: int = 1 << 20, through: str = ""
    ) -> tuple[list[tuple[object, ...]], list[Oid]]:
        found: list[tuple[object, ...]] = []
        waiting = [(oid, depth) for oid in reversed(oids)]
        while waiting and max_bytes > 0:
            oid, left = waiting.pop()
            if oid in self.revisions and (revision := self.revision(oid, tid)) is not None:
                found.append((oid, *revision))
                max_bytes -= len(revision.data)
                if through and class_name(revision.data) == through:
                    left += 1
                if left:
                    waiting += [(each, left - 1) for each in reversed(references(revision.data))]
        return found, [oid for oid, _ in reversed(waiting)]

    def _loadSerial(self, link: Link, oid: Oid, serial: Tid) -> bytes:  # noqa: N802
        for tid, data in self.revisions.get(oid, ()):
            if tid == serial:
                return data
        raise POSKeyError(oid)

    def _history(self, link: Link, oid: Oid, size: int = 1) -> list[dict[str, Any]]:
        return [
            {"tid": tid, "user_name": b"", "description": b"", "size": len(data), "time": 0.0}
            for tid, data in list(reversed(self.revisions[oid]))[:size]
        ]

    def _new_oids(self, link: Link, count: int = 100) -> list[Oid]:
        first = self.last_oid + 1
        self.last_oid += count
        return [pack_id(number) for number in range(first, first + count)]

    def _tpc_begin(self, link: Link, txn: object, *metadata: Any) -> None:
        self._staged[link, txn] = {}
        if len(metadata) > 5:
            self._markers[link, txn] = metadata[5]

    def _storea(self, link: Link, oid: Oid, serial: Tid, data: bytes, txn: object) -> None:
        self._staged[link, txn][oid] = serial, data

    def _storeBlobStart(self, link: Link) -> None:  # noqa: N802
        assert link not in self._coming
        self._coming[link] = b""

    def _storeBlobChunk(self, link: Link, chunk: bytes) -> None:  # noqa: N802
        self._coming[link] += chunk

    def _storeBlobEnd(self, link: Link, oid: Oid, serial: Tid, data: bytes, txn: object) -> None:  # noqa: N802
        self._staged[link, txn][oid] = serial, data
        self._brought.setdefault((link, txn), {})[oid] = self._coming.pop(link)

    def _sendBlob(self, link: Link, oid: Oid, serial: Tid) -> None:  # noqa: N802
        if (oid, serial) not in self.blobs:
            raise POSKeyError(oid)
        link.send(
            link.push("receiveBlobStart", oid, serial),
            link.push("receiveBlobChunk", oid, serial, self.blobs[oid, serial]),
            link.push("receiveBlobStop", oid, serial),
        )

    def _checkCurrentSerialInTransaction(self, link: Link, oid: Oid, serial: Tid, txn: object) -> None:  # noqa: N802
        return None

    def _vote(self, link: Link, txn: object) -> list[Oid]:
        for oid, (serial, _) in self._staged[link, txn].items():
            committed = self.revisions[oid][-1][0] if oid in self.revisions else ZERO_TID
            if committed != serial:
                raise ConflictError(oid=oid, serials=(committed, serial))
        return []

    def _tpc_finish(self, link: Link, txn: object) -> Tid:
        staged = self._staged.pop((link, txn))
        if (link, txn) in self._markers:
            self._marked[self._markers.pop((link, txn))] = successor(self.last_tid)
        tid = self.commit({oid: data for oid, (_, data) in staged.items()}, by=link)
        for oid, blob in self._brought.pop((link, txn), {}).items():
            self.blobs[oid, tid] = blob
        return tid

    def _transaction_outcome(self, link: Link, marker: bytes, since: Tid) -> Tid | None:
        return self._marked.get(marker)

    def _tpc_abort(self, link: Link, txn: object) -> None:
        self._staged.pop((link, txn), None)

    def _server_status(self, link: Link) -> dict[str, Any]:
        return {"loads": 0}

    def _set_client_label(self, link: Link, label: str) -> None:
        return None

    def _ping(self, link: Link) -> None:
        return None


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Fail when a thread or a socket of the client's is still there some time after the block."""
    before = set(threading.enumerate())
    yield
    until(lambda: not [thread for thread in set(threading.enumerate()) - before if "zeod" in thread.name])
    gc.collect(1)  # a socket that was not closed makes a ResourceWarning, which is an error; the young ones will do
