"""What connections and their caches hold, for people who look for what fills the memory.

Others use the connections meanwhile: a report is of a moment, not of one moment for all.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from zeo_client.connection import Connection
from zeo_client.serialize import dotted_name

__all__ = ["classes", "connection_info", "objects", "sizes"]


def classes(connections: Iterable[Connection]) -> list[tuple[str, int]]:
    """Return (class, number of objects in all caches), sorted by the class's name."""
    counts = Counter(dotted_name(obj) for connection in connections for _, obj in connection.cache.items())
    return sorted(counts.items())


def objects(connections: Iterable[Connection]) -> list[dict[str, Any]]:
    """Return a dictionary for each object in a cache: conn_no, oid, id, klass, rc, state.

    `id` is the object's attribute `id` or `__name__`, `rc` how many references there are to it from outside of the
    cache, `state` its `_p_changed`.
    """
    return [
        _object(number, oid, obj)
        for number, connection in enumerate(connections, 1)
        for oid, obj in connection.cache.items()
    ]


def _object(number: int, oid: bytes, obj: Any) -> dict[str, Any]:
    attributes = getattr(obj, "__dict__", {})
    # Four are ours: getrefcount's own, this function's, the caller's loop's, the tuple's that items() gave. One more is
    # the cache's, which holds on to everything but ghosts.
    references = sys.getrefcount(obj) - 4 - (obj._p_changed is not None)
    return {
        "conn_no": number,
        "oid": oid,
        "id": attributes.get("id", attributes.get("__name__", "")),
        "klass": dotted_name(obj),
        "rc": references,
        "state": obj._p_changed,
    }


def sizes(connections: Iterable[Connection]) -> list[dict[str, Any]]:
    """Return a dictionary for each connection: connection, ngsize (objects with their state), size (with ghosts)."""
    lines = [
        {"connection": repr(each), "ngsize": each.cache.cache_non_ghost_count, "size": len(each.cache)}
        for each in connections
    ]
    return sorted(lines, key=lambda line: (line["connection"], line["ngsize"], line["size"]))


def connection_info(connections: Iterable[Connection]) -> list[dict[str, Any]]:
    """Return a dictionary for each connection: opened (when, and for how long), info (setDebugInfo's), before."""
    now = time.time()
    return [_info(connection, now) for connection in connections]


def _info(connection: Connection, now: float) -> dict[str, Any]:
    opened, debug_info = connection.opened, connection.getDebugInfo()
    info = debug_info[0] if len(debug_info) == 1 else debug_info or ""
    at = opened and f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(opened))} ({now - opened:.2f}s)"
    return {"opened": at, "info": f"{info} ({len(connection.cache)})", "before": connection.before}
