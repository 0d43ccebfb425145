"""The packer: the program that does the long part of a pack, in a process of its own.

It reads Data.fs up to positions that the owner of the file tells it, none beyond the last committed transaction, and
writes Data.fs.pack and, beside it, its index. It never touches Data.fs, and it ends when its owner does: it hears that
from its standard input, and from its standard output, which go to the owner (pack.py).

Each line on both is a JSON list. The owner begins with ["pack", path, tid in hexadecimal, gc, end]. The packer says

    ["progress", phase, done bytes, total bytes]    how far it is; no answer
    ["redundant"]                                   there is nothing to pack; the end
    ["end?"]                                        it has caught up; the answer is ["end", position]: up to where the
                                                    file is committed now
    ["ready", distance, copied end]                 only little is left, all else is on disk, the index is saved; the
                                                    answer is ["end", position], and nothing is committed behind that
                                                    until the next line
    ["again"]                                       what was committed needs records that were left out: it copies anew
    ["done"]                                        the file is complete and on disk; the end
    ["error", class, arguments]                     the end
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from zeo_core.errors import StorageError
from zeo_core.ids import Tid
from zeo_server.storages import durable
from zeo_server.storages.faults import failure
from zeo_server.storages.file.asof import AsOf, headers
from zeo_server.storages.file.format import STATUS_UNDONE
from zeo_server.storages.file.kept import Kept
from zeo_server.storages.file.log import Window
from zeo_server.storages.file.memory import bound_memory
from zeo_server.storages.file.pack import ERRORS
from zeo_server.storages.file.packed import Output, PackedFile
from zeo_server.storages.file.reader import Descriptor, Reader

__all__ = ["Ask", "Packing", "Say", "main"]

_OWNER_GONE = (EOFError, BrokenPipeError, ConnectionResetError)
_NICENESS = 5
_SMALL_BYTES = 256 << 10  # what may be left to copy while commits wait: a millisecond's work
_MAX_ROUNDS = 20  # commits that come faster than they can be copied must wait in the end
_MAX_COPIES = 5

Say = Callable[..., None]
"""Tells the owner a line, given as its parts."""

Ask = Callable[..., int]
"""Tells the owner a line and returns the position in its answer."""


class Packing:
    """One pack, step by step; `say` tells the owner something, `ask` tells it and returns the position it answers."""

    def __init__(self, path: str, tid: Tid, *, gc: bool, say: Say, ask: Ask) -> None:
        self._say, self._ask = say, ask
        self._gc = gc
        self._tid = tid
        self._reader = Reader(path, Descriptor(path, os.O_RDONLY))
        # Exclusively: a file of this name would be another packer's.
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        self._files = {name: Descriptor(name, flags) for name in (path + ".pack", path + ".pack.index")}
        self._output = Output(path + ".pack", self._files[path + ".pack"])
        self._index_file = self._files[path + ".pack.index"]
        self._as_of = AsOf.empty()
        self._examined_end = 0

    def discard(self) -> None:
        """Remove what was written, unless the names are others' by now: the owner has gone, another may be there."""
        for path, descriptor in self._files.items():
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(path), os.fstat(descriptor.fd)):
                    os.unlink(path)

    def run(self, end: int) -> None:
        """Pack a file that is committed up to `end`."""
        self._show("scan", self._as_of.scan(self._reader, self._tid, end), end)
        if self._as_of.is_packed:
            self._say("redundant")
            return
        kept = Kept(self._reader, self._as_of, gc=self._gc)
        packed = PackedFile(self._reader, self._as_of, kept, self._output)
        kept.add_roots()
        self._examined_end = self._as_of.boundary
        self._show("scan", self._examine(kept, end), end)
        for _ in range(_MAX_COPIES):
            self._show("mark", kept.mark(), self._as_of.boundary)
            kept.changed = False
            if self._gc:
                self._output.check_room(kept.byte_count + self._examined_end - self._as_of.boundary)
            self._show("copy", packed.copy_packed(), self._examined_end)
            self._show("copy", packed.copy_rest(self._examined_end), self._examined_end)
            if self._catch_up(kept, packed):
                self._say("done")
                return
            packed.start_over()
            self._say("again")
        raise StorageError(
            f"{self._reader.path}: not packed, since commits went on to refer to objects that were out of use at the "
            "pack time; an earlier pack time avoids that"
        )

    def _catch_up(self, kept: Kept, packed: PackedFile) -> bool:
        """Copy what was committed meanwhile, the last part while nothing is; tell whether the copy can be used."""
        for _ in range(_MAX_ROUNDS):
            end = self._ask("end?")
            left = end - packed.copied_end
            if not self._add(kept, packed, end):
                return False
            if left <= _SMALL_BYTES:
                break
        self._save_index(packed)
        self._output.sync()
        end = self._ask("ready", packed.distance, packed.copied_end)
        if not self._add(kept, packed, end):
            return False
        self._output.sync()
        return True

    def _add(self, kept: Kept, packed: PackedFile, end: int) -> bool:
        total = end - packed.copied_end
        for _ in self._examine(kept, end):
            pass
        if kept.changed:
            return False
        if total > _SMALL_BYTES:
            self._show("catch up", packed.copy_rest(end), end)
        else:
            for _ in packed.copy_rest(end):
                pass
        return True

    def _examine(self, kept: Kept, end: int) -> Iterator[int]:
        window = Window(self._reader.descriptor, end)
        for header in headers(self._reader.path, window, self._examined_end, end):
            if header.status != STATUS_UNDONE:
                kept.examine(window, header)
            self._examined_end = header.end
            yield header.end

    def _save_index(self, packed: PackedFile) -> None:
        fd = self._index_file.fd
        os.ftruncate(fd, 0)
        position = 0
        for block in packed.index.saved(packed.copied_end - packed.distance):
            while block:
                written = os.pwrite(fd, block, position)
                position += written
                block = block[written:]
        durable.sync_data(fd)

    def _show(self, phase: str, steps: Iterator[int], total: int) -> None:
        shown = -1
        for done in steps:
            # each line wakes the owner: one in a hundredth of the way is enough for any progress bar
            if done - shown > total // 100 or done == total:
                self._say("progress", phase, done, total)
                shown = done


def _say(*line: Any) -> None:
    # not through sys.stdout, which would try again at exit if the owner has gone
    os.write(1, json.dumps(line).encode() + b"\n")


def _answer() -> Any:
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        raise EOFError
    return json.loads(line)


def _ask(*line: Any) -> int:
    _say(*line)
    return int(_answer()[1])


def _tell(error: Exception, path: str) -> None:
    if isinstance(error, OSError):
        error = failure(path + ".pack", error)
    if type(error).__name__ in ERRORS:
        _say("error", type(error).__name__, error.args)
    else:
        _say("error", "StorageError", [f"{path}: not packed: {type(error).__name__}: {error}"])


def main() -> int:
    """Run the program; the owner's lines come by standard input."""
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    with contextlib.suppress(*_OWNER_GONE):
        _, path, tid, gc, end = _answer()
        try:
            bound_memory()
            _pack(path, bytes.fromhex(tid), end, gc=gc)
        except _OWNER_GONE:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the owner must hear of it
            _tell(error, path)
    return 0


def _pack(path: str, tid: Tid, end: int, *, gc: bool) -> None:
    packing = Packing(path, tid, gc=gc, say=_say, ask=_ask)
    try:
        packing.run(end)
    except _OWNER_GONE:
        packing.discard()
        raise


if __name__ == "__main__":
    sys.exit(main())
