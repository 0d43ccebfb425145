"""Read-ahead: who walks through the objects that one object refers to is going to want the next ones, too.

A walk is recognised by the loads that the cache cannot answer: the second object in a row that stands behind the one
before it in a record loaded lately (a list, a bucket), or the third of a chain of one class (buckets with plain
values). From there on windows of objects are asked for by `load_many`, each twice as long as the one before. The next
window is asked for when the walk reaches the current one, so that it is on its way meanwhile; nobody waits for it
before he needs an object in it.

    record:  [1]  [2]  [3] ... [60] ... [200]
    loads:    plain    `----1st----' `--2nd--'
                       asked for     asked for
                       at [2]        at [3]

A window follows objects of the class of the walked one: from bucket to bucket, and from a tree's node to its children.
What arrives is put into the cache as every load is, in the order of the stream; here is only noted what is awaited.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from zeo_client.replies import Brought
from zeo_client.transport.channel import Call, Channel
from zeo_core.errors import ClientDisconnected, RecordFormatError, ZeodError
from zeo_core.ids import Oid, Tid
from zeo_core.protobuf_record import PREFIX
from zeo_core.record import class_name, references, untransformed
from zeo_core.wire.methods import LOAD_MANY_MAX_OIDS

__all__ = ["FIRST_WINDOW_BYTES", "LAST_WINDOW_BYTES", "ReadAhead"]

FIRST_WINDOW_BYTES: Final = 16 * 1024
"""So much may be fetched in vain when what looked like a walk was none."""

LAST_WINDOW_BYTES: Final = 512 * 1024

_RECORDS: Final = 8  # loaded lately, through which somebody may be walking; each is searched at each miss
_RECORD_MAX_BYTES: Final = 1024 * 1024
_STEPS: Final = 2  # children met in order that make a walk
_MARKS_MAX: Final = 100
_MARKS: Final = 3  # a window's first objects, one of which tells that the walk has come so far

_OID_OPCODES: Final = (b"C\x08", b"U\x08")  # how a pickle of protocol 3 begins an oid, and one of protocol 1 or 2


class _Record:
    """A record that was loaded lately, and how far somebody has met what it refers to.

    `data` is what oids are searched in: the record itself if it is pickled, which is quicker than to read it; else the
    oids of `targets`, which were read from it.
    """

    __slots__ = ("class_name", "data", "place", "steps", "targets")

    def __init__(self, data: bytes, name: str, steps: int, targets: Sequence[Oid] | None = None) -> None:
        self.data, self.class_name = data, name
        self.targets = targets
        self.place = 0
        self.steps = steps


class _Walk:
    """Objects that are going to be wanted, in order; `call` brings the current window of them."""

    __slots__ = ("call", "through", "todo", "window_bytes")

    def __init__(self, todo: Sequence[Oid], through: str) -> None:
        self.todo = todo
        self.through = through
        self.window_bytes = FIRST_WINDOW_BYTES
        self.call: Call | None = None


class _Awaited(NamedTuple):
    channel: Channel
    call: Call


class ReadAhead:
    """The walks through one storage; any thread may call any method.

    `channel` is where to ask, None while there is nothing to be asked; `on_reply` is to put what is brought into the
    cache, `is_cached` tells what need not be asked for, and `compresses` whether answers are to be compressed.
    """

    def __init__(
        self,
        channel: Callable[[], Channel | None],
        on_reply: Callable[[Call, object], Brought],
        is_cached: Callable[[Oid, Tid], bool],
        cache_bytes: int,
        compresses: Callable[[Channel], bool] = lambda _channel: False,
    ) -> None:
        self._channel = channel
        self._compresses = compresses
        self._on_reply = on_reply
        self._is_cached = is_cached
        self._window_max_bytes = min(LAST_WINDOW_BYTES, cache_bytes // 8)
        self._lock = threading.Lock()
        self._records: deque[_Record] = deque(maxlen=_RECORDS)
        self._awaited: dict[Oid, _Awaited] = {}
        self.marks: OrderedDict[Oid, _Walk] = OrderedDict()
        """Objects at which the next window is to be asked for, by `reached`. In sight since each load looks here."""

    def bring(self, oid: Oid, tid: Tid) -> bool:
        """Wait for an object that is on its way, or that a walk has come to; False if it has to be loaded plainly."""
        awaited = self._awaited.get(oid)
        if awaited is None or awaited.call.done:
            walk = self._recognised(oid)
            awaited = None if walk is None else self._ask(walk, tid)
        if awaited is None:
            return False
        try:
            awaited.channel.wait(awaited.call)
        except ZeodError:
            return False  # a plain load will tell what there is to tell
        return True

    def loaded(self, oid: Oid, data: bytes) -> None:
        """Take note of a record that was loaded plainly: somebody may begin to walk through it."""
        if self._window_max_bytes < FIRST_WINDOW_BYTES:
            return  # the cache is too small to hold what would come
        if len(data) > _RECORD_MAX_BYTES or not (data.startswith(PREFIX) or any(map(data.__contains__, _OID_OPCODES))):
            return
        targets = None
        try:
            record = untransformed(data)
            name = class_name(record)
            if record.startswith(PREFIX):
                targets = references(record)
                record = b"".join(targets)
        except RecordFormatError:
            return
        if not record:
            return
        with self._lock:
            parent = self._parent(oid)
            steps = parent.steps if parent is not None and parent.class_name == name else 0
            self._records.append(_Record(record, name, steps, targets))

    def reached(self, oid: Oid, tid: Tid) -> None:
        """Ask for the next window of a walk, without waiting: it has come to an object in `marks`."""
        with self._lock:
            walk = self.marks.pop(oid, None)
        if walk is not None and (walk.call is None or walk.call.done):
            self._ask(walk, tid)

    def _parent(self, oid: Oid) -> _Record | None:
        """Return the record in which `oid` was met last."""
        for record in self._records:
            if record.place and record.data[record.place - len(oid) : record.place] == oid:
                return record
        return None

    def _recognised(self, oid: Oid) -> _Walk | None:
        """Take note of a load that the cache could not answer; return the walk that begins with it, if one does."""
        with self._lock:
            for record in reversed(self._records):
                place = record.data.find(oid, record.place)
                if place < 0:
                    continue
                record.place = place + len(oid)
                record.steps += 1
                if record.steps < _STEPS:
                    return None
                self._records.remove(record)
                return _walk_from(record, oid)
        return None

    def _ask(self, walk: _Walk, tid: Tid) -> _Awaited | None:
        """Send for the next window; None if there is nobody to ask, or nothing to ask for."""
        channel = self._channel()
        with self._lock:
            oids = [oid for oid in walk.todo[:LOAD_MANY_MAX_OIDS] if not self._is_cached(oid, tid)]
            walk.todo = walk.todo[LOAD_MANY_MAX_OIDS:]
        if channel is None or not oids:
            return None
        args: tuple[Any, ...] = (oids, tid, 0, walk.window_bytes, walk.through)
        if self._compresses(channel):
            args = (*args, True)
        try:
            walk.call = call = channel.start("load_many", args, self._brought_for(walk))
        except ClientDisconnected:
            return None
        call.shared = True
        walk.window_bytes = min(2 * walk.window_bytes, self._window_max_bytes)
        awaited = _Awaited(channel, call)
        with self._lock:
            for oid in oids:
                self._awaited[oid] = awaited
            if call.done:  # it came before it was noted here
                self._forget(call)
        return awaited

    def _brought_for(self, walk: _Walk) -> Callable[[Call, object], Brought]:
        def brought(call: Call, answer: object) -> Brought:
            result = self._on_reply(call, answer)
            with self._lock:
                walk.todo = [*result.left, *walk.todo]
                self._forget(call)
                for oid, _ in result.found[:_MARKS]:
                    self.marks[oid] = walk
                while len(self.marks) > _MARKS_MAX:
                    self.marks.popitem(last=False)
            return result

        return brought

    def _forget(self, call: Call) -> None:
        for oid in call.args[0]:
            awaited = self._awaited.get(oid)
            if awaited is not None and awaited.call is call:
                del self._awaited[oid]


def _walk_from(record: _Record, oid: Oid) -> _Walk | None:
    """Return the walk through what a record refers to, from `oid` on."""
    try:
        oids = references(record.data) if record.targets is None else record.targets
    except RecordFormatError:
        return None
    if oid not in oids:
        return None
    return _Walk(list(dict.fromkeys(oids[oids.index(oid) :])), record.class_name)
