"""Loading many objects at once: their requests go out together, so that they take one round trip and not one each."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Final

from zeo_client.transport.channel import Call, Channel, OnReply
from zeo_core.errors import ZeodError
from zeo_core.ids import Oid, Tid

__all__ = ["WINDOW", "oids_of", "prefetch"]

WINDOW: Final = 250
"""Requests in one write. Two windows are under way, so that the server answers one while the other travels; it never
has to keep more replies than these for us."""


def prefetch(channel: Channel, oids: Iterable[Oid], tid: Tid, on_reply: OnReply) -> None:
    """Load the states of `oids` before `tid`, and wait for them; `on_reply` puts each into the cache.

    What the server does not have, or a connection that breaks, is passed over: who needs the object will be told.
    """
    oids = iter(oids)
    under_way: deque[list[Call]] = deque()
    try:
        while window := [(oid, tid) for oid in itertools.islice(oids, WINDOW)]:
            under_way.append(channel.start_all("loadBefore", window, on_reply))
            if len(under_way) > 1:
                _wait(channel, under_way.popleft())
    except ZeodError:
        pass  # the connection is lost, and with it all that is under way
    for calls in under_way:
        _wait(channel, calls)


def _wait(channel: Channel, calls: list[Call]) -> None:
    for call in calls:
        try:
            channel.wait(call)
        except ZeodError:
            continue


def oids_of(args: Iterable[Any]) -> Iterator[Oid]:
    """Return the oids of what is an oid, an object, or a collection of these; new objects have none."""
    for arg in args:
        if isinstance(arg, bytes):
            yield arg
        elif hasattr(arg, "_p_oid"):
            if arg._p_oid is not None:
                yield arg._p_oid
        else:
            yield from oids_of(arg)
