"""Many objects for one call: what a client asks for by `load_many`, and what these objects refer to.

An answer takes many turns of the loop, a slice of objects in each, so that everybody else is served in between. What a
first slice found may have changed when the last one is done; so what was committed meanwhile is looked up once more
before the answer leaves, in the very callback that sends it: it must be true at its place in the stream (lesson B2).

References are read without importing anything. The records are bytes of clients: those that are long are looked at in
a thread, those that are very long not at all.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from zeo_core.errors import POSKeyError, ZeodError
from zeo_core.ids import Oid, Tid
from zeo_core.record import PICKLE, class_name, format_name, references, untransformed
from zeo_core.storage import Prefetches
from zeo_core.transaction import Revision
from zeo_core.unpickling import check_memo
from zeo_core.wire.compression import compressed
from zeo_server.commit.coordinator import Coordinator
from zeo_server.commit.transaction import Answer
from zeo_server.long_answers import LongAnswers
from zeo_server.storages.relayed import load_threads

__all__ = [
    "ANSWER_MAX_BYTES",
    "FOLLOWED_MAX_BYTES",
    "LEFT_MAX",
    "OBJECTS_MAX",
    "SLICE",
    "WAITING_MAX",
    "BulkLoads",
    "Receiver",
    "Wanted",
    "references_within",
]

ANSWER_MAX_BYTES = 1024 * 1024
"""About what one answer brings at most; a single object may be larger."""

OBJECTS_MAX = 10_000
"""Objects in one answer."""

LEFT_MAX = 1000
"""Oids that an answer names as left out: as many as the next call may ask for."""

SLICE = 50
"""Objects that are looked up in one turn of the loop: about half a millisecond."""

WAITING_MAX = 100
"""Calls of one client that may wait; more would only be a way to fill the server's memory."""

FOLLOWED_MAX_BYTES = 64 * 1024
"""References are read from records up to this size."""

_COMPRESSED_MAX_BYTES = 4 * 1024
"""The same for compressed records, which may become a thousand times as long."""

_AT_ONCE_MAX_BYTES = 2 * 1024
"""References are read in the loop's thread from records up to this size: some 300 opcodes, a microsecond each."""

_OTHER_AT_ONCE_MAX_BYTES = 512
"""The same for records of other formats: some 80 references that a protobuf envelope holds, five microseconds each."""

_FOLLOWING_MAX = 50_000
"""Objects that wait to be looked up in one call; references that come on top are not followed."""

_ENTRY_BYTES = 40
"""What an object adds to an answer beside its data."""

_READ_AHEAD = 32
"""Objects that are read from the disk together, when one of them is not in memory."""


def _uncounted(_objects: int) -> None:
    """Do nothing with the number of objects."""


class Wanted(NamedTuple):
    """What a call asks for.

    What the `oids` refer to is wanted down to `depth` steps. An object of class `through` is followed at any depth, and
    does not count as a step: that is how a chain of buckets, or the inner nodes of a tree, are gone through. If
    they are wanted `compressed`, they are where that pays. `count_found` is told how many there were.
    """

    oids: Sequence[Oid]
    tid: Tid
    depth: int = 0
    max_bytes: int = ANSWER_MAX_BYTES
    through: str = ""
    compressed: bool = False
    count_found: Callable[[int], None] = _uncounted


class Receiver(Protocol):
    """The connection that asks."""

    def takes_more(self) -> bool:
        """Tell whether the peer has read so much that more can be sent."""


class _Search:
    """How far one call has come: in the order in which a reader would meet the objects, depth first."""

    def __init__(self, wanted: Wanted) -> None:
        self.tid = wanted.tid
        self.found: dict[Oid, Revision] = {}
        self.to_follow: tuple[bytes, int] | None = None
        """The record of the last object, if it has to be followed in a thread, and the depth that is left below it."""
        self._through = wanted.through
        self._room = min(wanted.max_bytes, ANSWER_MAX_BYTES)
        self._seen = set(wanted.oids)
        self._waiting = [(oid, wanted.depth) for oid in reversed(wanted.oids)]  # the next one last

    def is_done(self) -> bool:
        """Tell whether there is no more to find, or no more room."""
        return not self._waiting or (self._room <= 0 and bool(self.found)) or len(self.found) >= OBJECTS_MAX

    def next_oids(self, count: int) -> list[Oid]:
        """Return those that come next."""
        return [oid for oid, _ in self._waiting[: -count - 1 : -1]]

    def left(self) -> list[Oid]:
        """Return those that were not looked up."""
        return self.next_oids(LEFT_MAX)

    def entries(self) -> list[tuple[Oid, bytes, Tid, Tid | None]]:
        """Return what was found, as it is answered."""
        return [(oid, *revision) for oid, revision in self.found.items()]

    def step(self, load: Callable[[Oid, Tid], Revision | None]) -> None:
        """Look the next one up; BlockingIOError, and nothing has changed, if `load` says so."""
        oid, depth = self._waiting[-1]
        try:
            revision = load(oid, self.tid)
        except POSKeyError:
            revision = None
        self._waiting.pop()
        if revision is None:
            return
        self.found[oid] = revision
        data = revision.data
        self._room -= len(data) + _ENTRY_BYTES
        if self._through and _is_of_class(data, self._through):
            depth += 1
        if depth <= 0:
            return
        if len(data) > _at_once_max_bytes(data):
            self.to_follow = data, depth - 1
        else:
            self.follow(references_within(data), depth - 1)

    def follow(self, oids: Iterable[Oid], depth: int) -> None:
        """Go on with what the last object refers to."""
        if len(self._waiting) > _FOLLOWING_MAX:
            return
        seen = self._seen
        new = [oid for oid in dict.fromkeys(oids) if oid not in seen]
        seen.update(new)
        self._waiting.extend((oid, depth) for oid in reversed(new))


class BulkLoads:
    """The calls of one client, one after the other. All methods are called in the server's loop."""

    def __init__(self, coordinator: Coordinator, receiver: Receiver, loop: asyncio.AbstractEventLoop) -> None:
        self._coordinator = coordinator
        self._loop = loop
        self.answers: LongAnswers[tuple[Wanted, Answer]] = LongAnswers(self._give, receiver.takes_more)

    def load(self, wanted: Wanted, answer: Answer) -> None:
        """Find what is wanted, behind what was asked for before; `answer` gets the objects and the oids left out."""
        if len(self.answers) >= WAITING_MAX:
            answer(ZeodError(f"{WAITING_MAX} calls of load_many wait on this connection"))
        else:
            self.answers.add((wanted, answer))

    async def _give(self, asked: tuple[Wanted, Answer]) -> None:
        wanted, answer = asked
        try:
            await self._find(wanted, answer)
        except Exception as error:  # noqa: BLE001 - the caller is told, and a bug is logged there
            answer(error)

    async def _find(self, wanted: Wanted, answer: Answer) -> None:
        known = self._coordinator.storage.last_tid()
        search = _Search(wanted)
        while not search.is_done():
            await self.answers.room()
            await self._find_some(search)
        smaller = None
        if wanted.compressed:
            smaller = await self._loop.run_in_executor(None, compressed, search.entries())
        # Nothing is awaited from here to the answer. What changed meanwhile is told as it is now, in full length.
        is_as_found = not self._look_again(search, known)
        self._coordinator.counters.loads += len(search.found)
        wanted.count_found(len(search.found))
        answer((smaller if smaller is not None and is_as_found else search.entries(), search.left()))

    async def _find_some(self, search: _Search) -> None:
        """Find a slice of objects, and give others their turn."""
        load = self._coordinator.load
        try:
            for _ in range(SLICE):
                if search.is_done():
                    return
                search.step(load)
                if search.to_follow is not None:
                    break
        except BlockingIOError:
            self._coordinator.counters.loads_waited += 1
            threads = load_threads(self._coordinator.storage)
            await self._loop.run_in_executor(threads, self._read, search.next_oids(_READ_AHEAD), search.tid)
        if search.to_follow is not None:
            (data, depth), search.to_follow = search.to_follow, None
            search.follow(await self._loop.run_in_executor(None, references_within, data), depth)
        await asyncio.sleep(0)

    def _read(self, oids: Sequence[Oid], tid: Tid) -> None:
        """Bring objects into memory, the first one for certain; in a thread."""
        storage = self._coordinator.storage
        if isinstance(storage, Prefetches):
            storage.prefetch(oids, tid)
            oids = oids[:1]
        for oid in oids:
            try:
                storage.load_before(oid, tid)
            except POSKeyError:
                continue

    def _look_again(self, search: _Search, known: Tid) -> bool:
        """Look up what was committed after `known` once more, and tell whether anything was.

        What is not in memory any more is left out.
        """
        coordinator = self._coordinator
        if coordinator.storage.last_tid() == known:
            return False
        is_changed = False
        changes = coordinator.invalidations.since(known)
        changed = None if changes is None else set(changes[1])
        for oid, revision in list(search.found.items()):
            if revision.end_tid is None and (changed is None or oid in changed):
                is_changed = True
                del search.found[oid]
                try:
                    again = coordinator.load(oid, search.tid)
                except (BlockingIOError, POSKeyError):
                    continue
                if again is not None:
                    search.found[oid] = again
        return is_changed


def _at_once_max_bytes(data: bytes) -> int:
    if data[:1] == b".":
        return 0
    return _OTHER_AT_ONCE_MAX_BYTES if data[:1] == b"{" else _AT_ONCE_MAX_BYTES


def _is_of_class(data: bytes, name: str) -> bool:
    try:
        return class_name(data) == name
    except ZeodError:
        return False


def references_within(data: bytes) -> list[Oid]:
    """Return what a record refers to; nothing if it is too long to be looked at, or cannot be read."""
    if len(data) > (_COMPRESSED_MAX_BYTES if data[:1] == b"." else FOLLOWED_MAX_BYTES):
        return []
    try:
        record = untransformed(data)
        if format_name(record) == PICKLE:
            check_memo(record, pickles=2)
        return references(record)
    except Exception:  # noqa: BLE001 - the bytes are a client's; whatever is wrong with them, there is nothing to follow
        return []
