"""The disk cache of one process: its handle on a file that all processes of a host share.

Three tids decide what may be answered. The file's horizon is how far its rows are known to be true; `heard` is up to
which transaction this process has heard all changes, in the order of its stream; and a reader asks for the state before
some tid. A row that has an end answers between its two tids, whoever wrote it. A row without one answers up to the
horizon; and up to `heard`, if the changes that this process has heard since the horizon do not name the object.

Nobody who loads or commits waits for another process: what is heard and what is loaded is noted (`cache.notes`), and
one thread writes it, every now and then, in one transaction.

A handle has the generation of the file that was verified on its connection, and answers from no other: when somebody's
verification failed (a server that is back from a backup, lesson B12), the file goes on under another generation, and
this process has no disk cache until it has verified it itself.
"""

import functools
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from zeo_client.cache.directory import CacheDirectory
from zeo_client.cache.notes import Notes
from zeo_client.cache.revision_file import (
    BUSY_S,
    BusyCacheError,
    CacheFileError,
    DamagedCacheError,
    Found,
    Mark,
    Place,
    RevisionFile,
)
from zeo_client.cache.walk import Walks
from zeo_core.ids import ZERO_TID, Oid, Tid, successor
from zeo_core.transaction import Revision

__all__ = ["AHEAD_MAX_BYTES", "FLUSH_S", "AskChanges", "DiskCache", "Known", "Reached"]

logger = logging.getLogger(__name__)

FLUSH_S = 0.1
"""How long notes lie before they are written: a transaction costs as much as some dozens of rows."""

AHEAD_MAX_BYTES = 256 * 1024
"""About how much is read along with a row that is asked for."""

_VERIFICATIONS_MAX = 5  # attempts, while other processes change the file in between

AskChanges = Callable[[Tid], tuple[Tid, Sequence[Oid]] | None]
"""Asks the server what changed after a tid: up to which tid, and which oids; None if it cannot tell."""


class Known(NamedTuple):
    """A revision, and up to which tid it is known to be current if it has no end."""

    revision: Revision
    until: Tid


class Reached(NamedTuple):
    """What was found at `place`, and how many of the rows behind it are likely to be asked for next."""

    known: Known
    place: Place
    rows_ahead: int


class _Verified(NamedTuple):
    """The file that was verified on this connection, and what has been heard and loaded since."""

    file: RevisionFile
    generation: bytes
    notes: Notes
    walks: Walks


class DiskCache:
    """Revisions in the directory `path`, of about `max_bytes`. Any thread may call; faults of the disk are logged.

    `identity` names the database. Nothing is answered before `catch_up`. Without `background`, who uses it calls
    `flush` now and then. OSError if the directory cannot be made.
    """

    def __init__(self, path: str, identity: str, max_bytes: int, *, background: bool = True) -> None:
        self.max_bytes = max_bytes
        self._identity = identity.encode("utf-8", "surrogateescape")
        self._directory = CacheDirectory(path)
        self._file: RevisionFile | None = None
        self._verified: _Verified | None = None
        self._lock = threading.Lock()  # over the notes and the counts; never held while the file is used
        self._writing = threading.Lock()  # over the file's writes, and its exchange
        self._hits = self._misses = self._dropped = 0
        self._something = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"zeod cache {path}", daemon=True)
        if background:
            self._thread.start()

    def close(self) -> None:
        """Write what there is to write, and close the file."""
        self._closed.set()
        self._something.set()
        if self._thread.is_alive():
            self._thread.join(2 * BUSY_S)
        self.flush()
        with self._writing:
            self._verified = None
            self._close_file()

    # -- reading ----------------------------------------------------------------------------------------------------

    def load_before(self, oid: Oid, tid: Tid) -> Known | None:
        """Return the revision that was current just before `tid`, None if it is not here."""
        reached = self.reach(oid, tid)
        return None if reached is None else reached.known

    def reach(self, oid: Oid, tid: Tid) -> Reached | None:
        """Do as `load_before` does, and see where it leads."""
        verified = self._verified
        if verified is None:
            return None
        try:
            found = verified.file.find(verified.generation, oid, tid)
        except CacheFileError as error:
            self._give_up(verified, error)
            return None
        with self._lock:
            known = None if found is None else _known(verified.notes, oid, tid, found)
            if known is None or found is None:
                self._misses += 1
                return None
            self._hits += 1
            verified.notes.use(found.place)
            return Reached(known, found.place, verified.walks.reach(found.place))

    def load_ahead(self, reached: Reached, tid: Tid) -> list[tuple[Oid, Known]]:
        """Return the rows behind one that was found, as far as they say what was current just before `tid`."""
        verified = self._verified
        if verified is None:
            return []
        try:
            rows = verified.file.following(verified.generation, reached.place, reached.rows_ahead, AHEAD_MAX_BYTES)
        except CacheFileError as error:
            self._give_up(verified, error)
            return []
        ahead = []
        with self._lock:
            for oid, found in rows:
                known = _known(verified.notes, oid, tid, found) if found.revision.tid < tid else None
                if known is not None:
                    verified.notes.use(found.place)
                    ahead.append((oid, known))
            if rows:
                verified.walks.expect(rows[-1][1].place + 1, reached.rows_ahead)
        return ahead

    def load_serial(self, oid: Oid, tid: Tid) -> Revision | None:
        """Return the revision that transaction `tid` wrote, None if it is not here."""
        verified = self._verified
        if verified is None:
            return None
        try:
            found = verified.file.find_serial(verified.generation, oid, tid)
        except CacheFileError as error:
            self._give_up(verified, error)
            return None
        return None if found is None else found.revision

    def stats(self) -> dict[str, int]:
        """Return hits, misses, bytes, max_bytes, and how many revisions were dropped since writing did not keep up."""
        verified = self._verified
        size = 0
        if verified is not None:
            try:
                size = verified.file.size()
            except CacheFileError as error:
                self._give_up(verified, error)
        counts = {"hits": self._hits, "misses": self._misses, "dropped": self._dropped}
        return counts | {"bytes": size, "max_bytes": self.max_bytes}

    # -- what arrives, in the order of the stream -------------------------------------------------------------------

    def store(self, oid: Oid, revision: Revision) -> None:
        """Keep a revision that the server gave, current if its end_tid is None."""
        verified = self._verified
        if verified is None or 4 * len(revision.data) > self.max_bytes:
            return
        with self._lock:
            if not verified.notes.add(oid, revision):
                self._dropped += 1
        if not self._something.is_set():
            self._something.set()

    def invalidate(self, tid: Tid, oids: Iterable[Oid]) -> None:
        """Take note that transaction `tid` replaced the current revisions of `oids`.

        `oids` is all that it changed, and every transaction before it has been told; one that is covered by `catch_up`
        is ignored.
        """
        verified = self._verified
        if verified is None or tid <= verified.notes.heard:
            return
        with self._lock:
            verified.notes.change(tid, oids)
        self._something.set()

    # -- a new connection -------------------------------------------------------------------------------------------

    def catch_up(self, server_tid: Tid, ask: AskChanges) -> Tid:
        """Bring the file up to the server's last transaction; return the one up to which all is known now.

        From here on `invalidate` is to be told of every later transaction.
        """
        with self._writing:
            self._verified = None
            try:
                for _ in range(_VERIFICATIONS_MAX):
                    tid = self._verify(server_tid, ask)
                    if tid is not None:
                        return tid
                logger.warning("%s: not used on this connection: it changes too fast", self._directory.path)
            except (CacheFileError, OSError) as error:
                logger.warning("%s: not used on this connection: %s", self._directory.path, error)
                self._close_file()
        return server_tid

    def _verify(self, server_tid: Tid, ask: AskChanges) -> Tid | None:
        """Verify the file once; None if it was found damaged, or another process was faster."""
        file = self._open()
        try:
            mark = file.mark()
            answer = None if mark.horizon == ZERO_TID != server_tid else ask(mark.horizon)
            if answer is None:
                now = file.clear(mark, server_tid)
                tid = server_tid
            else:
                tid = answer[0]
                now = Mark(mark.generation, tid) if file.forget(mark, *answer) else None
        except DamagedCacheError as error:
            self._close_file()
            self._replace(file.path, error)
            return None
        if now is None:
            return None
        self._verified = _Verified(file, now.generation, Notes(tid), Walks())
        return tid

    def _open(self) -> RevisionFile:
        """Return the file that is in use now, which may be another one than before."""
        with self._directory.locked():
            path = self._directory.current()
            if self._file is not None and self._file.path == path:
                return self._file
            self._close_file()
            if path is not None:
                try:
                    self._file = RevisionFile(path, self._identity, create=False)
                except DamagedCacheError as error:
                    self._log_replacement(path, error)
            if self._file is None:
                self._file = self._create()
            return self._file

    def _replace(self, path: str, error: DamagedCacheError) -> None:
        with self._directory.locked():
            if self._directory.current() == path:
                self._log_replacement(path, error)
                self._file = self._create()

    def _create(self) -> RevisionFile:
        file = RevisionFile(self._directory.following(), self._identity, create=True)
        self._directory.discard_older()
        return file

    def _log_replacement(self, path: str, error: DamagedCacheError) -> None:
        logger.warning("%s is thrown away, and an empty cache begun: %s", path, error)

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _give_up(self, verified: _Verified, error: CacheFileError) -> None:
        """Do without the file until the next connection; a damaged one is replaced then."""
        if self._verified is verified:
            self._verified = None
            logger.warning("%s: not used until the next connection: %s", verified.file.path, error)

    # -- writing ----------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what there is to write."""
        with self._writing:
            verified = self._verified
            if verified is None:
                return
            notes = verified.notes
            with self._lock:
                batch = notes.take()
            if batch is None:
                return
            try:
                complete = verified.file.write(verified.generation, batch, self.max_bytes)
            except BusyCacheError as error:
                logger.info("%s: written later: %s", verified.file.path, error)
                with self._lock:
                    notes.put_back(batch)
                return
            except CacheFileError as error:
                self._give_up(verified, error)
                return
            if complete is None:
                self._give_up(verified, CacheFileError("another process found it to be of another history"))
                return
            with self._lock:
                notes.written(batch)
                if not complete:
                    notes.put_back(batch)

    def _run(self) -> None:
        while not self._closed.is_set():
            self._something.wait()
            self._closed.wait(FLUSH_S)
            self._something.clear()
            try:
                self.flush()
            except Exception:  # not foreseen; the next connection tries again
                logger.exception("%s: cannot write", self._directory.path)
                self._verified = None


def _known(notes: Notes, oid: Oid, tid: Tid, found: Found) -> Known | None:
    """Return what a row proves about the state before `tid`."""
    revision, horizon, _ = found
    if revision.end_tid is not None:
        return Known(revision, horizon) if tid <= revision.end_tid else None
    until = notes.true_until(oid, horizon)
    return Known(revision, until) if tid <= _following(until) else None


_following = functools.lru_cache(maxsize=64)(successor)  # of few tids, again and again
