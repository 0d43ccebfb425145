"""Loading many objects at once: their requests go out together, so that they take one round trip and not one each.

A zeod takes many oids in one call (the extension bulk-loading); to ZEO's servers goes a call for each.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Final

from zeo_client.replies import Brought
from zeo_client.transport.channel import Call, Channel, OnReply
from zeo_core.errors import ZeodError
from zeo_core.ids import Oid, Tid
from zeo_core.transaction import Revision

__all__ = ["BULK_WINDOW", "PREFETCH_MAX_BYTES", "WINDOW", "load_one", "oids_of", "prefetch", "prefetch_many"]

WINDOW: Final = 250
"""Requests in one write. Two windows are under way, so that the server answers one while the other travels; it never
has to keep more replies than these for us."""

BULK_WINDOW: Final = 500
"""Oids in one call where the server takes many; two calls are under way."""

PREFETCH_MAX_BYTES: Final = 1024 * 1024
"""What is fetched beside the objects that are named, because they refer to it, if nothing else is said."""


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


def prefetch_many(
    channel: Channel,
    oids: Iterable[Oid],
    tid: Tid,
    on_reply: OnReply,
    depth: int = 0,
    max_bytes: int | None = None,
    *,
    compressed: bool = False,
) -> None:
    """Do as `prefetch` does with a server that takes many oids in a call, and knows what they refer to.

    With a `depth`, what they refer to, in so many steps, is fetched too, as far as `max_bytes` go; `on_reply` returns
    what was Brought.
    """
    room = PREFETCH_MAX_BYTES if max_bytes is None else max_bytes
    oids = iter(oids)
    under_way: deque[Call] = deque()
    try:
        while True:
            window = list(itertools.islice(oids, BULK_WINDOW))
            if window and (room > 0 or not depth):
                args: tuple[Any, ...] = (window, tid, depth, room) if depth else (window, tid)
                if compressed:
                    args = (window, tid, depth, room if depth else PREFETCH_MAX_BYTES, "", True)
                under_way.append(channel.start("load_many", args, on_reply))
            elif not under_way:
                return
            if len(under_way) > 1 or not window:
                brought: Brought = channel.wait(under_way.popleft())
                if depth:
                    room -= sum(len(revision.data) for _, revision in brought.found)
                else:
                    oids = itertools.chain(brought.left, oids)
    except ZeodError:
        return  # as above


def load_one(channel: Channel, oid: Oid, tid: Tid, on_reply: OnReply) -> Revision | None:
    """Load one object that comes compressed, if that makes it smaller; None if the server passes it over."""
    brought: Brought = channel.call("load_many", ((oid,), tid, 0, 0, "", True), on_reply)
    return next((revision for found, revision in brought.found if found == oid), None)


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
