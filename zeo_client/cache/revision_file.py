"""The file of the disk cache: an SQLite database in which every row proves by itself what it says.

    header    one row. `mark`: the file's generation (16 bytes), its horizon (8 bytes: every change up to this tid has
              been applied to the rows), CRC-32 of both. `identity`: format, server and storage, CRC-32.
    revision  `place`: in the order of arrival. `key`: oid + tid. `ended`: the tid that replaced it, NULL while none is
              known. `data`. `crc`: CRC-32 of key, ended and data.
    used      places of rows that were read since the hand of the clock last passed them
    clock     `hand`: the place up to which rows were last looked at for eviction

A row with `ended` is true for ever. One without is true up to the horizon. Both are changed in one transaction of
SQLite's write-ahead log, so that no crash leaves a horizon that is ahead of its rows. What was damaged at rest is found
by the first process that opens the file: SQLite checks the trees, and the rows have their own check. Two more ways to
come to see a row as it was earlier are closed by `secure_delete` (nothing that was replaced stays in the file, where a
damaged pointer could find it) and by the mark around copying from the log (see `_copying`).

docs/topics/caching.md tells why it is SQLite, and why an answer cannot be wrong.
"""

import contextlib
import fcntl
import os
import sqlite3
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import IO, Any, Final, NamedTuple
from zlib import crc32

from zeo_core.ids import ZERO_TID, Oid, Tid
from zeo_core.transaction import Revision

__all__ = [
    "BUSY_S",
    "COPY_BYTES",
    "FORMAT",
    "Batch",
    "BusyCacheError",
    "CacheFileError",
    "DamagedCacheError",
    "Found",
    "Mark",
    "Place",
    "RevisionFile",
    "row_crc",
]

FORMAT = b"zeod cache 1\n"

BUSY_S = 2.0
"""How long a write waits for another process's. Only threads in the background write."""

COPY_BYTES = 4 * 1024 * 1024
"""After how many bytes written to the log it is copied into the file."""

_HAND_STEP = 100  # rows looked at at once for eviction
_HAND_STEPS_MAX = 200  # ... before the lock is given back; what is left to evict is left to the next write

_MARK = struct.Struct(">16s8sI")
_NEVER = bytes(8)

_SCHEMA: Final = (
    "CREATE TABLE header (mark BLOB NOT NULL, identity BLOB NOT NULL, crc INTEGER NOT NULL)",
    "CREATE TABLE revision (place INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, ended BLOB, data BLOB NOT NULL, "
    "crc INTEGER NOT NULL)",
    "CREATE TABLE used (place INTEGER PRIMARY KEY)",
    "CREATE TABLE clock (hand INTEGER NOT NULL)",
)

# One statement, so that mark and row are of one moment.
_FIND = """
SELECT header.mark, row.place, row.key, row.ended, row.data, row.crc FROM header LEFT JOIN revision AS row
ON row.place = (SELECT place FROM revision WHERE key >= ? AND key {} ? ORDER BY key DESC LIMIT 1)
"""
_FIND_BEFORE = _FIND.format("<")
_FIND_EXACTLY = _FIND.format("<=")

_FOLLOWING = """
SELECT header.mark, row.place, row.key, row.ended, row.data, row.crc FROM header JOIN revision AS row
WHERE row.place > ? ORDER BY row.place LIMIT ?
"""

# The same revision may come a second time, now with its end.
_PUT = """
INSERT INTO revision (key, ended, data, crc) VALUES {} ON CONFLICT (key) DO
UPDATE SET ended = excluded.ended, crc = excluded.crc WHERE ended IS NULL AND excluded.ended IS NOT NULL
"""
_ROWS_AT_ONCE = 200  # in a statement: each costs the threads that load two changes of who runs


Place = int
"""Where a row is, in the order of arrival."""


class CacheFileError(Exception):
    """The file cannot be used: the disk is full, the directory may not be written, or alike."""


class BusyCacheError(CacheFileError):
    """Another process has been writing for too long."""


class DamagedCacheError(CacheFileError):
    """The file is not what this module wrote."""


class Mark(NamedTuple):
    """Which file it is, and up to which tid every change has been applied to it."""

    generation: bytes
    horizon: Tid


class Found(NamedTuple):
    """A revision, the tid up to which the file knew all changes when it was read, and its place."""

    revision: Revision
    horizon: Tid
    place: Place


class Batch(NamedTuple):
    """What one process writes at once.

    `changes` are transactions in their order: all that there were after `since`, up to `until`; the revisions are true
    as of `until`, by key (oid + tid); `used` are the places of rows that were read.
    """

    since: Tid
    changes: Sequence[tuple[Tid, Iterable[Oid]]]
    until: Tid
    revisions: Mapping[bytes, Revision]
    used: Iterable[Place]


class RevisionFile:
    """One open file. Any thread may read; one thread at a time may write. Errors are CacheFileErrors."""

    def __init__(self, path: str, identity: bytes, *, create: bool) -> None:
        """Open the file; DamagedCacheError if it is none of ours, or of another database. Under the directory's lock.

        `identity` is the database's, whatever it is made of.
        """
        self.path = path
        self._identity = FORMAT + identity
        self._written = 0
        self._told = b""  # the mark as it was last read, and what it means
        self._mark = Mark(b"", ZERO_TID)
        self._broken: set[Place] = set()  # places of rows that failed their check
        self._reading = threading.Lock()
        with contextlib.ExitStack() as opened, _errors():
            users = opened.enter_context(open(f"{path}-users", "ab"))
            is_first = self._join(users)
            self._writer = opened.enter_context(contextlib.closing(_connection(path)))
            if create:
                self._create()
            else:
                self._check(is_first)
            self._reader = opened.enter_context(contextlib.closing(_connection(path)))
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close it; another thread's reading ends first."""
        with self._reading, contextlib.suppress(CacheFileError), _errors():
            self._reader.close()
            # the last who closes copies all of the log into the file
            with self._copying():
                self._writer.close()
        self._opened.close()

    # -- reading ----------------------------------------------------------------------------------------------------

    def mark(self) -> Mark:
        """Return the file's mark."""
        with self._reading, _errors():
            return _mark_of(self._reader.execute("SELECT mark FROM header").fetchall())

    def find(self, generation: bytes, oid: Oid, before: Tid) -> Found | None:
        """Return the newest revision before a tid; None if there is none, or the file is of another generation."""
        return self._found(generation, _FIND_BEFORE, oid, oid + before)

    def find_serial(self, generation: bytes, oid: Oid, tid: Tid) -> Found | None:
        """Return the revision that a transaction wrote."""
        found = self._found(generation, _FIND_EXACTLY, oid + tid, oid + tid)
        return found if found is not None and found.revision.tid == tid else None

    def size(self) -> int:
        """Return how many bytes of the file are in use."""
        with self._reading, _errors():
            return _bytes_in_use(self._reader)

    def following(self, generation: bytes, place: Place, rows: int, max_bytes: int) -> list[tuple[Oid, Found]]:
        """Return revisions that came after the one at `place`: up to so many rows, and about so many bytes."""
        found = []
        with self._reading, _errors(), contextlib.closing(self._reader.execute(_FOLLOWING, (place, rows))) as read:
            for told, *row in read:
                revision = self._checked(self._understood(told), *row)
                if revision is not None:
                    found.append((row[1][:8], revision))
                    max_bytes -= len(revision.revision.data)
                if max_bytes < 0:
                    break
            is_right = self._mark.generation == generation
        return found if is_right else []

    def _found(self, generation: bytes, statement: str, first: bytes, bound: bytes) -> Found | None:
        # The one place where time counts: no context manager.
        with self._reading:
            try:
                ((told, *row),) = self._reader.execute(statement, (first, bound)).fetchall()
                mark = self._understood(told)
            except _CAUGHT as error:
                raise _translated(error) from error
        place, key, *_ = row
        if mark.generation != generation or key is None:
            return None
        found = self._checked(mark, *row)
        if found is not None and key[:8] != first[:8]:
            self._broken.add(place)
            return None
        return found

    def _understood(self, told: Any) -> Mark:
        """Return what a mark says, which is checked only when it is another than before."""
        if told != self._told:
            self._mark, self._told = _unpacked(told), told
        return self._mark

    def _checked(self, mark: Mark, place: Any, key: Any, ended: Any, data: Any, crc: Any) -> Found | None:
        if not _is_whole(key, ended, data, crc):
            self._broken.add(place)
            return None
        return Found(Revision(data, key[8:], ended), mark.horizon, place)

    # -- writing ----------------------------------------------------------------------------------------------------

    def write(self, generation: bytes, batch: Batch, max_bytes: int) -> bool | None:
        """Apply changes, add revisions, and evict until `max_bytes` are kept.

        Return None if the file is of another generation. Return false if it knows later changes than `batch`: then
        revisions without an end have been left out.
        """
        with _errors(), self._transaction():
            mark = self._writer_mark()
            if mark.generation != generation:
                return None
            broken, self._broken = self._broken, set()
            self._drop(broken)
            if batch.changes:
                mark = self._change(mark, batch)
            is_ahead = mark.horizon > batch.until
            self._put(
                (key, revision)
                for key, revision in batch.revisions.items()
                if revision.end_tid is not None or not is_ahead
            )
            self._writer.executemany("INSERT OR IGNORE INTO used VALUES (?)", [(place,) for place in batch.used])
            self._evict(max_bytes)
        if self._written > COPY_BYTES:
            self._copy()
        return not is_ahead

    def forget(self, mark: Mark, until: Tid, oids: Iterable[Oid]) -> bool:
        """Move the horizon on to `until`, where `oids` are all that changed after `mark`, at unknown times (B11).

        Return false if the file is no more that of the mark.
        """
        with _errors(), self._transaction():
            now = self._writer_mark()
            if now.generation != mark.generation or now.horizon < mark.horizon:
                return False
            if now.horizon < until:
                self._writer.executemany(
                    "DELETE FROM revision WHERE key >= ? AND key < ? AND ended IS NULL",
                    [(oid, oid + b"\xff" * 9) for oid in oids],
                )
                self._set_mark(Mark(mark.generation, until))
        return True

    def clear(self, mark: Mark, horizon: Tid) -> Mark | None:
        """Empty the file, which is of another generation then; None if it is no more that of the mark."""
        with _errors(), self._transaction():
            if self._writer_mark().generation != mark.generation:
                return None
            self._writer.execute("DELETE FROM revision")
            self._writer.execute("DELETE FROM used")
            cleared = Mark(os.urandom(16), horizon)
            self._set_mark(cleared)
        return cleared

    def _change(self, mark: Mark, batch: Batch) -> Mark:
        if mark.horizon < batch.since:
            # Nobody has told the file what happened in between: nothing in it is known to be current.
            self._writer.execute("DELETE FROM revision WHERE ended IS NULL")
        for tid, oids in batch.changes:
            if tid > mark.horizon:
                for oid in oids:
                    self._end(oid, tid)
        changed = Mark(mark.generation, max(mark.horizon, batch.until))
        if changed != mark:
            self._set_mark(changed)
        return changed

    def _end(self, oid: Oid, tid: Tid) -> None:
        rows = self._writer.execute(
            "SELECT place, key, data, crc FROM revision WHERE key >= ? AND key < ? AND ended IS NULL", (oid, oid + tid)
        ).fetchall()
        for place, key, data, crc in rows:
            if _is_whole(key, None, data, crc):
                changed = (tid, row_crc(key, tid, data), place)
                self._writer.execute("UPDATE revision SET ended = ?, crc = ? WHERE place = ?", changed)
                self._written += len(data)
            else:
                self._drop([place])

    def _drop(self, places: Iterable[Place]) -> None:
        self._writer.executemany("DELETE FROM revision WHERE place = ?", [(place,) for place in places])

    def _put(self, revisions: Iterable[tuple[bytes, Revision]]) -> None:
        rows = [(key, end_tid, data, row_crc(key, end_tid, data)) for key, (data, _, end_tid) in revisions]
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            self._writer.execute(_PUT.format(", ".join(("(?, ?, ?, ?)",) * len(some))), [*chain.from_iterable(some)])
        self._written += sum(len(data) for _, _, data, _ in rows)

    def _evict(self, max_bytes: int) -> None:
        """Drop rows in the order of arrival, round and round, but those that were read since the last round."""
        execute = self._writer.execute
        for _ in range(_HAND_STEPS_MAX):
            if _bytes_in_use(self._writer) <= max_bytes:
                return
            ((hand,),) = execute("SELECT hand FROM clock").fetchall()
            rows = execute("SELECT place FROM revision WHERE place > ? ORDER BY place LIMIT ?", (hand, _HAND_STEP))
            step = [place for (place,) in rows.fetchall()]
            if not step and not hand:
                return
            span = (hand, step[-1]) if step else (hand, hand)
            used = {place for (place,) in execute("SELECT place FROM used WHERE place > ? AND place <= ?", span)}
            execute("DELETE FROM used WHERE place > ? AND place <= ?", span)
            self._drop([place for place in step if place not in used])
            execute("UPDATE clock SET hand = ?", (span[1] if step else 0,))

    def _set_mark(self, mark: Mark) -> None:
        told = _MARK.pack(*mark, crc32(mark.generation + mark.horizon))
        self._writer.execute("UPDATE header SET mark = ?", (told,))

    def _writer_mark(self) -> Mark:
        return _mark_of(self._writer.execute("SELECT mark FROM header").fetchall())

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._writer.execute("COMMIT")
        finally:
            if self._writer.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")

    # -- the log and the file ---------------------------------------------------------------------------------------

    def _copy(self) -> None:
        with _errors(), self._copying():
            self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._written = 0

    @contextlib.contextmanager
    def _copying(self) -> Iterator[None]:
        """Leave word that this process copies pages, in their order, from the log into the file.

        Killed half way, it leaves a file that holds some pages of later transactions and others of earlier ones. With
        the log that is no harm; should the log be damaged later, it would be one that no check finds.
        """
        name = f"{self.path}-copying-{os.getpid()}-{id(self):x}"
        with open(name, "ab"):
            yield
        with contextlib.suppress(FileNotFoundError):  # the file has been replaced
            os.unlink(name)

    def _join(self, users: IO[bytes]) -> bool:
        """Become one of the file's users, and tell whether this is the first.

        The first refuses what was left by a process that died while it copied.
        """
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_first = False
        else:
            is_first = True
            directory, name = os.path.split(self.path)
            if any(other.startswith(f"{name}-copying-") for other in os.listdir(directory)):
                raise DamagedCacheError(f"{self.path}: a process died while it wrote")
        fcntl.flock(users, fcntl.LOCK_SH)
        return is_first

    def _create(self) -> None:
        self._writer.execute("PRAGMA journal_mode = WAL").fetchall()
        self._writer.execute("BEGIN")
        for statement in _SCHEMA:
            self._writer.execute(statement)
        self._writer.execute("INSERT INTO clock VALUES (0)")
        mark = Mark(os.urandom(16), ZERO_TID)
        told = _MARK.pack(*mark, crc32(mark.generation + mark.horizon))
        self._writer.execute("INSERT INTO header VALUES (?, ?, ?)", (told, self._identity, crc32(self._identity)))
        self._writer.execute("COMMIT")

    def _check(self, is_first: bool) -> None:
        # They stand in the file as text, where a flipped bit gives a column another name, or takes away a constraint.
        tables = self._writer.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid").fetchall()
        if tuple(sql for (sql,) in tables) != _SCHEMA:
            raise DamagedCacheError(f"{self.path}: its tables are not those of a cache")
        rows = self._writer.execute("SELECT mark, identity, crc FROM header").fetchall()
        if len(rows) != 1 or crc32(rows[0][1]) != rows[0][2]:
            raise DamagedCacheError(f"{self.path}: the header fails its check")
        if rows[0][1] != self._identity:
            raise DamagedCacheError(f"{self.path}: it is the cache of another database or format")
        _mark_of(rows)
        # A damaged index could hide a row from its change and show it to a later reader. ZEO's client reads all of its
        # cache at the start, too; here the later users of a file need not, as long as there are earlier ones.
        if is_first and self._writer.execute("PRAGMA integrity_check(1)").fetchall() != [("ok",)]:
            raise DamagedCacheError(f"{self.path}: SQLite finds it damaged")


def row_crc(key: bytes, ended: Tid | None, data: bytes) -> int:
    """Return the check of a row."""
    return crc32(data, crc32(ended or _NEVER, crc32(key)))


def _is_whole(key: object, ended: object, data: object, crc: object) -> bool:
    """Tell whether a row is as it was written; a damaged one may hold values of any kind."""
    if not (isinstance(key, bytes) and isinstance(data, bytes) and isinstance(ended, bytes | None)):
        return False
    return row_crc(key, ended, data) == crc


def _mark_of(rows: Sequence[Sequence[Any]]) -> Mark:
    if len(rows) != 1:
        raise DamagedCacheError("it has no mark, or several")
    return _unpacked(rows[0][0])


def _unpacked(told: Any) -> Mark:
    generation, horizon, crc = _MARK.unpack(told)
    if crc32(generation + horizon) != crc:
        raise DamagedCacheError("the mark fails its check")
    return Mark(generation, horizon)


def _bytes_in_use(connection: sqlite3.Connection) -> int:
    (pages,), (free,), (size,) = (
        connection.execute(f"PRAGMA {name}").fetchall()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _connection(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    for setting in (
        "synchronous = NORMAL",  # the log is on disk before the file is written: after a power cut the end may be lost
        "secure_delete = ON",
        "cell_size_check = ON",
        "wal_autocheckpoint = 0",  # see _copy
        f"journal_size_limit = {2 * COPY_BYTES}",
    ):
        connection.execute(f"PRAGMA {setting}").fetchall()
    return connection


_BUSY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_NOT_THE_FILES_FAULT: Final = {
    *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM),
    *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY),
}

_CAUGHT: Final = (sqlite3.Error, OSError, IndexError, TypeError, ValueError, struct.error)
"""SQLite's errors, the system's, and what comes of values of a kind that nobody wrote."""


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Give errors the classes above."""
    try:
        yield
    except _CAUGHT as error:
        raise _translated(error) from error


def _translated(error: Exception) -> CacheFileError:
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _BUSY:
            return BusyCacheError(str(error))
        return (CacheFileError if code in _NOT_THE_FILES_FAULT else DamagedCacheError)(str(error))
    if isinstance(error, OSError):
        return CacheFileError(str(error))
    return DamagedCacheError(f"it holds a value of the wrong kind: {error}")
