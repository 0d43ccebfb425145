"""A channel to a scripted peer, for the tests of the channel."""

from collections.abc import Callable
from typing import Any

from tests.client.peer import Background, Link, Peer
from zeo_client.transport.address import Address
from zeo_client.transport.channel import Channel
from zeo_core.ids import pack_id
from zeo_core.wire.session import Request

__all__ = ["ADDRESS", "LIMIT", "T1", "T2", "A", "B", "Client", "asked", "echo"]

ADDRESS = Address("db1", 9672)
A, B = pack_id(1), pack_id(2)
T1, T2 = pack_id(101), pack_id(102)
LIMIT = 32 * 1024 * 1024


class Client:
    """A channel over a socket pair to a peer, with its background thread, and the pushes it got."""

    def __init__(self, peer: Peer, *, attended: bool = True, on_push: Callable[..., None] | None = None) -> None:
        self.pushes: list[tuple[str, tuple[Any, ...]]] = []
        self.sock = peer.pair()
        self.channel = Channel(self.sock, ADDRESS, on_push or self._pushed, LIMIT)
        self.channel.greet()
        self.channel.call("register", ("1", False))
        self.link = peer.link()
        self.attendant = Background(self.channel.attend) if attended else None

    def close(self) -> None:
        self.channel.fail("the test is over")
        if self.attendant is not None:
            self.attendant.result()
        Background(self.channel.close).result()

    def got(self, pushes: int) -> bool:
        return len(self.pushes) == pushes

    def _pushed(self, _channel: Channel, method: str, args: tuple[Any, ...]) -> None:
        self.pushes.append((method, args))


def asked(link: Link, count: int) -> bool:
    return len(link.requests) > count


def echo(link: Link, request: Request) -> None:
    link.send(link.reply(request, request.args))
