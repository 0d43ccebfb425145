"""Resolving conflicts on the server: only of classes on a list, on records that clients have sent."""

import logging
from collections.abc import Callable, Sequence

from zeo_core.errors import POSKeyError, RecordFormatError
from zeo_core.ids import ZERO_TID, Oid, Tid, oid_repr, successor
from zeo_core.protobuf_record import PREFIX, PROTOBUF
from zeo_core.record import class_name, format_name, untransformed
from zeo_core.resolve import UnresolvedError, resolve
from zeo_core.transaction import Revision
from zeo_server.allow_list import AllowList
from zeo_server.commit.transaction import Conflict

__all__ = ["AT_ONCE_MAX_BYTES", "MERGED_AT_ONCE_MAX_BYTES", "Load", "Resolver"]

AT_ONCE_MAX_BYTES = 16 * 1024
"""Records larger than this are resolved in a thread: up to here the loop is held up for well under a millisecond."""

MERGED_AT_ONCE_MAX_BYTES = 2 * 1024
"""The same for records that are merged by their schema, which at worst takes four microseconds a byte."""

Load = Callable[[Oid, Tid], Revision | None]

_log = logging.getLogger("ZEO.StorageServer")


class Resolver:
    """Resolves conflicts of objects whose classes are on a list; `load` is a storage's load_before."""

    def __init__(self, load: Load, classes: AllowList) -> None:
        self._load = load
        self._classes = classes

    def can(self, conflict: Conflict) -> bool:
        """Tell whether that may be tried: not for a new object whose oid is taken (lesson B25), nor a deletion."""
        if not isinstance(conflict.data, bytes) or conflict.read == ZERO_TID:
            return False
        try:
            name = class_name(conflict.data)
            if self._classes.allows(name):
                return True
            # What is pickled of such a class, its own code may resolve: that is for the client to try.
            return self._classes.merges(name) and format_name(untransformed(conflict.data)) == PROTOBUF
        except RecordFormatError:
            return False

    def committed_data(self, conflict: Conflict, load: Load) -> bytes | None:
        """Return the data committed to the object of a conflict if they are in memory, and not too large to send."""
        try:
            revision = load(conflict.oid, successor(conflict.committed))
        except (BlockingIOError, POSKeyError):
            return None
        return None if revision is None or len(revision.data) > AT_ONCE_MAX_BYTES else revision.data

    def resolve(self, conflict: Conflict) -> bytes | None:
        """Return the record with both changes, None if there is none. May wait for the disk: for a thread."""
        return self._resolve(conflict, self._load, at_once=False)

    def resolve_at_once(self, conflict: Conflict, load: Load) -> bytes | None:
        """Do so in the loop; BlockingIOError if that could hold it up, which `load` raises if it would wait."""
        return self._resolve(conflict, load, at_once=True)

    def _resolve(self, conflict: Conflict, load: Load, *, at_once: bool) -> bytes | None:
        if not isinstance(conflict.data, bytes):
            return None
        try:
            states = [load(conflict.oid, successor(tid)) for tid in (conflict.read, conflict.committed)]
        except POSKeyError:
            return None
        old, committed = states
        if old is None or committed is None or (old.tid, committed.tid) != (conflict.read, conflict.committed):
            return None  # packed away, or deleted
        records = old.data, committed.data, conflict.data
        if at_once and sum(map(len, records)) > _at_once_max_bytes(records):
            raise BlockingIOError
        try:
            return resolve(*records, self._classes.load, self._classes.rule)
        except UnresolvedError as error:
            if not error.expected:
                _log.warning("oid %s: conflict not resolved: %s", oid_repr(conflict.oid), error)
            return None


def _at_once_max_bytes(records: Sequence[bytes]) -> int:
    if any(record[:1] == b"." for record in records):
        return 0  # compressed: they may become a thousand times as long
    return MERGED_AT_ONCE_MAX_BYTES if records[-1].startswith(PREFIX) else AT_ONCE_MAX_BYTES
