"""Making a file's index anew, without trust in the one that is there."""

from collections.abc import Iterator
from contextlib import closing
from struct import Struct

import zc.lockfile

from zeo_core.errors import FileFormatError, FileLockedError
from zeo_core.storage import Progress
from zeo_server.storages import durable
from zeo_server.storages.faults import failure
from zeo_server.storages.file.format import DATA_HEADER_SIZE, LENGTH_SIZE, MAGIC_SIZE, STATUS_UNDONE
from zeo_server.storages.file.log import TransactionHeader
from zeo_server.storages.file.numbers import Numbers
from zeo_server.storages.file.walk import Damage, Walk, open_reader

__all__ = ["Rebuild"]

_STEP_BYTES = 8 << 20
_HEADER = Struct(">Q16x10sQ")  # of DATA_HEADER the oid as a number, the place below, and the length
_PLACE = Struct(">QH")  # a record's transaction and the zero after it


class Rebuild:
    """Makes and saves the index of one file: run `steps` to its end."""

    def __init__(self, path: str) -> None:
        """Prepare for the file at `path`."""
        self.path = path
        self.objects = 0
        self._walk = Walk(open_reader(path))
        self._positions = Numbers()

    def steps(self) -> Iterator[Progress]:
        """Do it, in small steps; FileFormatError if the file is damaged, FileLockedError if a server has it open."""
        try:
            lock = closing(zc.lockfile.LockFile(self.path + ".lock"))
        except zc.lockfile.LockError:
            raise FileLockedError(self.path) from None
        with lock:
            step_at, end = 0, MAGIC_SIZE
            for part in self._walk.parts():
                if isinstance(part, Damage):
                    if not part.tail:
                        raise FileFormatError(self.path, part.start, part.reason)
                    break
                if part.position >= step_at:
                    yield Progress("indexing", part.position, self._walk.size)
                    step_at = part.position + _STEP_BYTES
                if part.status != STATUS_UNDONE:
                    self._add(part)
                end = part.end
            self.objects = len(self._positions)
            self._save(end)
        yield Progress("indexing", self._walk.size, self._walk.size)

    def _add(self, header: TransactionHeader) -> None:
        # The loop that the speed of indexing depends on; FileFormatError for records that do not fill the transaction.
        unpack, window, dense = _HEADER.unpack_from, self._walk.window, self._positions.dense
        here = _PLACE.pack(header.position, 0)
        position, end = header.records_start, header.records_end
        while position < end:
            window.offset(position, DATA_HEADER_SIZE)
            data, base = window.data, window.start
            stop = min(end, base + len(data) + 1) - DATA_HEADER_SIZE
            if position >= stop:
                raise FileFormatError(self.path, position, "the transaction ends inside a data header")
            while position < stop:
                oid, place, size = unpack(data, position - base)
                if place != here:
                    reason = f"no data record of the transaction at byte {header.position}"
                    raise FileFormatError(self.path, position, reason)
                try:
                    dense[oid] = position
                except IndexError:
                    self._positions.set(oid, position)
                position += DATA_HEADER_SIZE + (size or LENGTH_SIZE)
        if position != end:
            reason = f"its records end at byte {position}, the transaction at {end}"
            raise FileFormatError(self.path, header.position, reason)

    def _save(self, end: int) -> None:
        path = self.path + ".index"
        try:
            durable.write_file(path, self._positions.saved_index(end), path + "_tmp")
        except OSError as error:
            raise failure(path, error) from error
