"""Packing, on the side of the process that owns Data.fs.

It starts the packer (packer.py), shows how far it is, and at the end goes over to the packed file, for which commits
wait some milliseconds and loads not at all.

The switch, and what a crash at any point of it leaves behind (lesson B34):

    Data.fs.pack complete and on disk    leftovers beside a Data.fs that nobody touched; the next opening removes them
    link Data.fs to Data.fs.pack.old     the same
    remove Data.fs.index                 the same; the next opening scans the file, since the index would be wrong
    rename Data.fs.pack to Data.fs       before it is on disk the one file or the other, and both are whole
    sync the directory                   only now, commits go on
    Data.fs.pack.index to Data.fs.index  the next opening scans the file
    Data.fs.pack.old to Data.fs.old      the next opening does it

There is a Data.fs at every moment.
"""

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any

from zeo_core.errors import (
    FileFormatError,
    RecordFormatError,
    StorageClosedError,
    StorageError,
    StorageFullError,
)
from zeo_core.ids import Tid, tid_from_time
from zeo_core.storage import Progress
from zeo_server.storages import durable
from zeo_server.storages.faults import failure
from zeo_server.storages.file.format import MAGIC_SIZE
from zeo_server.storages.file.index import Index
from zeo_server.storages.file.reader import Descriptor, Reader
from zeo_server.storages.file.room import Room

__all__ = ["ERRORS", "Finish", "PackRun", "Replacement", "Switch", "clear_leftovers"]

ERRORS: dict[str, type[StorageError]] = {
    cls.__name__: cls for cls in (FileFormatError, RecordFormatError, StorageError, StorageFullError)
}
"""The errors that the packer tells of by name; others come as StorageErrors."""

logger = logging.getLogger(__name__)

_FINISH_TIMEOUT_S = 10  # while commits wait; it is some milliseconds' work
_READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Replacement:
    """A packed file in the place of Data.fs."""

    reader: Reader
    descriptor: Descriptor
    index: Index
    indexed_end: int
    """Up to where the index describes the packed file."""
    room: Room
    """What is taken of the disk behind its end, for commits that were promised it."""
    distance: int
    """By how much the transactions behind the boundary have moved to the front."""
    fault: str
    """Why nobody can say whether the file's new place is on disk; "" if it is."""


Finish = Callable[[int, int], Replacement]
"""Puts the packed file, which it completes up to a position in the old one, in the old one's place.

The second number is how many bytes of room the packed file needs behind its end: what was promised to votes.
"""

Switch = Callable[[Finish], object]
"""Calls `Finish` while nothing is written, and goes over to the file; returns what holds on to the old one."""


class _AgainError(Exception):
    """The packer has to copy anew."""


def clear_leftovers(path: str) -> None:
    """Remove what a pack that was cut short left beside the Data.fs at `path`, or finish what was all but done."""
    if not os.path.exists(path) or os.path.getsize(path) < MAGIC_SIZE:
        return  # the database is lost, and whoever looks for it may want them
    old = path + ".pack.old"
    if os.path.exists(old):
        if os.path.samefile(old, path):
            os.unlink(old)
        else:
            os.replace(old, path + ".old")
            logger.warning("%s: packed before a crash; the file as it was before is %s.old", path, path)
    for leftover in (path + ".pack", path + ".pack.index"):
        if os.path.exists(leftover):
            os.unlink(leftover)
            logger.warning("%s: left by a pack that was not finished; removed", leftover)


class _Packer:
    """A running packer: lines go there and come back."""

    def __init__(self) -> None:
        # -P: a module in the directory that this process happens to run in is none of ours.
        command = [sys.executable, "-P", "-m", "zeo_server.storages.file.packer"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        ours, theirs = socket.socketpair()
        with theirs:
            # A session of its own: an interrupt from the terminal is for the owner, who then ends the packer.
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, no argument from outside
                command, stdin=theirs.fileno(), stdout=theirs.fileno(), env=environment, start_new_session=True
            )
        self._socket = ours
        self._received = b""

    def say(self, *line: Any) -> None:
        """Send a line."""
        # A packer that has gone has said why, or `hear` finds that it has gone.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(json.dumps(line).encode() + b"\n")

    def hear(self, timeout_s: float | None = None) -> list[Any]:
        """Return the next line; EOFError if the packer has gone, TimeoutError if it is silent."""
        self._socket.settimeout(timeout_s)
        while b"\n" not in self._received:
            try:
                block = self._socket.recv(_READ_BYTES)
            except ConnectionResetError:
                block = b""
            if not block:
                raise EOFError
            self._received += block
        line, _, self._received = self._received.partition(b"\n")
        heard: list[Any] = json.loads(line)
        return heard

    def kill(self) -> int:
        """End the process, if it has not ended, and return its exit status."""
        self._process.kill()
        return int(self._process.wait())

    def close(self) -> None:
        """Let go of the line; only for the thread that hears."""
        self._socket.close()


class PackRun:
    """One pack of one open file."""

    def __init__(
        self, path: str, until_s: float, *, gc: bool, keep_old: bool, end: Callable[[], int], switch: Switch
    ) -> None:
        """Pack up to the time `until_s`; `end` says up to where the file is committed, `switch` goes over.

        StorageError for a time that no tid can hold.
        """
        try:
            self._tid: Tid = tid_from_time(until_s)
        except ValueError as error:
            raise StorageError(f"{path}: no time to pack to: {error}") from None
        self._path = path
        self._gc = gc
        self._keep_old = keep_old
        self._end = end
        self._switch = switch
        self._lock = Lock()
        self._packer: _Packer | None = None
        self._stopped = ""

    def steps(self) -> Iterator[Progress]:
        """Pack; see zeo_core.storage.Packs."""
        packer: _Packer | None = None
        try:
            packer = self._start()
            yield from self._steps(packer)
        except OSError as error:
            raise failure(self._path + ".pack", error) from error
        finally:
            self.stop("it was given up")
            if packer is not None:
                packer.close()

    def stop(self, reason: str) -> None:
        """End the packer and remove what it wrote; from any thread, harmless when repeated."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = reason
            if self._packer is None:
                return
            self._packer.kill()
            for suffix in (".pack", ".pack.index"):
                with contextlib.suppress(OSError):  # also: never made, or in its place by now
                    os.unlink(self._path + suffix)

    def _start(self) -> _Packer:
        with self._lock:
            self._check_stopped()
            clear_leftovers(self._path)
            self._packer = _Packer()
            return self._packer

    def _steps(self, packer: _Packer) -> Iterator[Progress]:
        packer.say("pack", self._path, self._tid.hex(), self._gc, self._end())
        while True:
            what, *arguments = self._hear(packer)
            if what == "progress":
                yield Progress(*arguments)
            elif what == "end?":
                packer.say("end", self._end())
            elif what == "redundant" or (what == "ready" and self._go_over(packer, *arguments)):
                return

    def _go_over(self, packer: _Packer, distance: int, copied_end: int) -> bool:
        """Switch to the packed file; tell whether it could be completed."""
        pack = self._path + ".pack"
        # Opened before anything waits. The reader's errors are to name the file as it will be called.
        reader, descriptor = Reader(self._path, Descriptor(pack, os.O_RDONLY)), Descriptor(pack, os.O_RDWR)
        index, indexed_end = Index.load(pack + ".index")
        if indexed_end != copied_end - distance:
            raise StorageError(f"{pack}.index: ends at byte {indexed_end}, not at {copied_end - distance}")

        def finish(end: int, room_bytes: int) -> Replacement:
            self._complete(packer, end)
            size = os.fstat(reader.descriptor.fd).st_size
            if size != end - distance:
                raise StorageError(f"{pack}: has {size} bytes instead of {end - distance}; nothing was packed")
            room = Room(self._path, descriptor, size)
            room.take(size + room_bytes)
            return Replacement(reader, descriptor, index, indexed_end, room, distance, self._replace())

        try:
            # Held until commits go on: the last to let go of the old file waits for the system to free its space.
            _old = self._switch(finish)
        except _AgainError:
            return False
        self._tidy()
        return True

    def _complete(self, packer: _Packer, end: int) -> None:
        """Have the packer complete the file; while this waits, so do commits."""
        packer.say("end", end)
        what = "progress"
        while what == "progress":
            what = self._hear(packer, _FINISH_TIMEOUT_S)[0]
        if what == "again":
            raise _AgainError
        if what != "done":
            raise StorageError(f"{self._path}: the packer says {what!r} instead of being done; nothing was packed")

    def _replace(self) -> str:
        """Put the packed file in the place of Data.fs; return the fault if nobody knows whether that is on disk."""
        path, pack = self._path, self._path + ".pack"
        if self._keep_old:
            os.link(path, pack + ".old")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + ".index")
        try:
            durable.replace_file(pack, path)
        except OSError as error:
            if os.path.exists(pack):
                with contextlib.suppress(OSError):
                    os.unlink(pack + ".old")
                raise
            return f"{path}: closed to writes, since the packed file may not be in its place on disk ({error})"
        return ""

    def _tidy(self) -> None:
        """Give their names to the index and to the old file; the database is packed, whatever becomes of this."""
        path, pack = self._path, self._path + ".pack"
        try:
            durable.replace_file(pack + ".index", path + ".index")
            if self._keep_old:
                os.replace(pack + ".old", path + ".old")
        except OSError as error:
            logger.warning("%s: packed, but its index or old file is not in place: %s", path, error)
            with contextlib.suppress(OSError):
                os.unlink(path + ".index")  # one of the old file, were it saved in the midst of the switch

    def _hear(self, packer: _Packer, timeout_s: float | None = None) -> list[Any]:
        """Return the packer's next line; its errors are raised."""
        try:
            what, *arguments = packer.hear(timeout_s)
        except TimeoutError:
            raise StorageError(f"{self._path}: no word from the packer in {timeout_s} s; nothing was packed") from None
        except EOFError:
            self._check_stopped()
            status = packer.kill()
            raise StorageError(f"{self._path}: the packer ended with status {status}; nothing was packed") from None
        if what == "error":
            name, details = arguments
            raise ERRORS.get(name, StorageError)(*details)
        return [what, *arguments]

    def _check_stopped(self) -> None:
        if self._stopped:
            raise StorageClosedError(f"{self._path}: not packed: {self._stopped}")
