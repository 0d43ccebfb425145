"""A client that shows the wire as it is: blocking, no cache, every message kept in the order in which it came."""

import socket
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from zeo_core.ids import ZERO_TID, Oid, Tid
from zeo_core.wire.faults import from_wire
from zeo_core.wire.session import ErrorReply, Event, Failed, Greeted, Reply, Request, Role, Session

__all__ = ["RawClient", "connect"]

TIMEOUT_S = 20


def connect(address: tuple[str, int] | str) -> socket.socket:
    """Return a connected socket that gives up after a while."""
    sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(TIMEOUT_S)
    sock.connect(address)
    if not isinstance(address, str):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class RawClient:
    """Speaks M5 on a socket. `heard` has all pushes and replies in the order of the stream."""

    def __init__(
        self,
        address: tuple[str, int] | str,
        storage: str = "1",
        *,
        read_only: bool = False,
        register: bool = True,
    ) -> None:
        self.sock = connect(address)
        self.session = Session(Role.CLIENT)
        self.heard: list[Event] = []
        self._next_id = 0
        while not any(isinstance(event, Greeted) for event in self._receive()):
            pass
        self.last_tid: Tid = self.call("register", storage, read_only) if register else ZERO_TID

    def __enter__(self) -> Self:
        return self

    def __exit__(self, cls: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    # -- calls --------------------------------------------------------------------------------------------------------

    def send(self, method: str, *args: object) -> int:
        """Send a call and return the id of its reply."""
        self._next_id += 1
        self.sock.sendall(self.session.call(self._next_id, method, args))
        return self._next_id

    def one_way(self, method: str, *args: object) -> None:
        self.sock.sendall(self.session.one_way(method, args))

    def call(self, method: str, *args: object) -> Any:
        """Send a call and return its result, or raise its error."""
        return self.wait(self.send(method, *args))

    def wait(self, message_id: int) -> Any:
        """Return the result of a call, or raise its error."""
        while True:
            for event in self.heard:
                if isinstance(event, Reply) and event.message_id == message_id:
                    return event.result
                if isinstance(event, ErrorReply) and event.message_id == message_id:
                    raise from_wire(event.name, event.arguments)
            self._receive()

    def answered(self, message_id: int) -> bool:
        """Tell whether the reply to a call is here, when all that the server has to say so far is here."""
        self.call("ping")
        return any(isinstance(event, Reply | ErrorReply) and event.message_id == message_id for event in self.heard)

    # -- transactions -----------------------------------------------------------------------------------------------

    def begin(
        self, txn: int, objects: Mapping[Oid, tuple[Tid, bytes]], checks: Mapping[Oid, Tid] | None = None
    ) -> None:
        """Begin a transaction and stage objects, a map from oid to (serial, data), and readCurrent checks."""
        self.one_way("tpc_begin", txn, "user", "description", {}, None, " ")
        for oid, (serial, data) in objects.items():
            self.one_way("storea", oid, serial, data, txn)
        for oid, serial in (checks or {}).items():
            self.one_way("checkCurrentSerialInTransaction", oid, serial, txn)

    def commit(self, objects: Mapping[Oid, tuple[Tid, bytes]], txn: int = 1) -> Tid:
        self.begin(txn, objects)
        assert self.call("vote", txn) == ()
        tid: Tid = self.call("tpc_finish", txn)
        return tid

    def load(self, oid: Oid, before: Tid = b"\x7f" + b"\xff" * 7) -> Any:
        return self.call("loadBefore", oid, before)

    # -- what was heard -----------------------------------------------------------------------------------------------

    def invalidations(self) -> list[tuple[Tid, Sequence[Oid]]]:
        """Return the (tid, oids) pushed so far, in order; a ping makes sure that all are here."""
        self.call("ping")
        return [e.args for e in self.heard if isinstance(e, Request) and e.method == "invalidateTransaction"]

    def wait_closed(self) -> None:
        """Read until the server has closed the connection."""
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            pass

    def _receive(self) -> list[Event]:
        data = self.sock.recv(1024 * 1024)
        if not data:
            raise ConnectionResetError("the server has closed the connection")
        events = list(self.session.receive(data))
        for event in events:
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Greeted):
                self.sock.sendall(event.answer)
        self.heard += events
        return events
