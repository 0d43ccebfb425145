"""Making a file's index anew, without trust in the one that is there."""

from collections.abc import Iterator
from contextlib import closing

import zc.lockfile

from zeo_core.errors import FileFormatError, FileLockedError
from zeo_core.storage import Progress
from zeo_server.storages import durable
from zeo_server.storages.file.format import MAGIC_SIZE, STATUS_UNDONE
from zeo_server.storages.file.index import Index
from zeo_server.storages.file.recover import record_positions
from zeo_server.storages.file.walk import Damage, Walk, open_reader
from zeo_server.storages.file.writer import failure

__all__ = ["Rebuild"]

_STEP_BYTES = 8 << 20


class Rebuild:
    """Makes and saves the index of one file: run `steps` to its end."""

    def __init__(self, path: str) -> None:
        """Prepare for the file at `path`."""
        self.path = path
        self.objects = 0
        self._walk = Walk(open_reader(path))

    def steps(self) -> Iterator[Progress]:
        """Do it, in small steps; FileFormatError if the file is damaged, FileLockedError if a server has it open."""
        try:
            lock = closing(zc.lockfile.LockFile(self.path + ".lock"))
        except zc.lockfile.LockError:
            raise FileLockedError(self.path) from None
        with lock:
            index, step_at, end = Index(), 0, MAGIC_SIZE
            for part in self._walk.parts():
                if isinstance(part, Damage):
                    if not part.tail:
                        raise FileFormatError(self.path, part.start, part.reason)
                    break
                if part.position >= step_at:
                    yield Progress("indexing", part.position, self._walk.size)
                    step_at = part.position + _STEP_BYTES
                if part.status != STATUS_UNDONE:
                    index.update(record_positions(self.path, self._walk.window, part))
                end = part.end
            self.objects = len(index)
            self._save(index, end)
        yield Progress("indexing", self._walk.size, self._walk.size)

    def _save(self, index: Index, end: int) -> None:
        path = self.path + ".index"
        try:
            durable.write_file(path, index.saved(end), path + "_tmp")
        except OSError as error:
            raise failure(path, error) from error
