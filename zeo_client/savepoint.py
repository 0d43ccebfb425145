"""Savepoints: what a transaction has changed so far, kept aside so that it can be gone back to, or let go from memory.

The records of the changed objects go into a spool, which is in memory up to a size and in a temporary file beyond. A
savepoint is no copy of anything: it is how far the spool was written. To roll back is to forget what came later.

The file of a blob is moved to a directory of the spool's; see zeo_client.savepoint_blobs.

A record in the spool: its oid, the serial of the revision it was made from, its length (8 bytes each, big-endian), and
its data. Nobody but the transaction reads the file, and no name leads to it.
"""

import struct
import tempfile
from collections.abc import Callable
from typing import Final, NamedTuple

from transaction.interfaces import InvalidSavepointRollbackError

from zeo_client.savepoint_blobs import SavepointBlobs
from zeo_core.errors import StorageError
from zeo_core.ids import Oid, Tid, oid_repr

__all__ = ["SPOOL_MEMORY_BYTES", "Mark", "Savepoint", "Spool"]

SPOOL_MEMORY_BYTES: Final = 8 * 1024 * 1024
"""How much of a transaction's savepoints stays in memory."""

_HEADER: Final = struct.Struct(">8s8sQ")


class Mark(NamedTuple):
    """How far a spool was written."""

    entries: int
    end: int


class Spool:
    """The records of one transaction's savepoints, of which the last one of each object counts.

    Of the objects without a committed revision it knows as well whether they were added or only met on the way
    (`created`). All methods raise StorageError if the temporary file cannot be written or read.
    """

    def __init__(
        self,
        memory_bytes: int = SPOOL_MEMORY_BYTES,
        directory: str | None = None,
        *,
        blob_parent: Callable[[], str] = tempfile.gettempdir,
    ) -> None:
        """Keep blobs in a directory that is made, once there is one, in the directory that `blob_parent` returns."""
        self.created: dict[Oid, bool] = {}
        """The new objects; True for those that nobody added, but that others refer to."""
        self._file = tempfile.SpooledTemporaryFile(memory_bytes, dir=directory, prefix="zeod-savepoint-")  # noqa: SIM115
        self._directory = directory or tempfile.gettempdir()
        self._end = 0
        self._positions: dict[Oid, int] = {}
        self._blobs = SavepointBlobs(blob_parent)
        # Each record with the position of the object's record before it: a savepoint that copied the positions instead
        # would make a transaction of many savepoints take the square of its time.
        self._log: list[tuple[Oid, int | None]] = []

    def __len__(self) -> int:
        return len(self._positions)

    def __contains__(self, oid: Oid) -> bool:
        return oid in self._positions

    def store(self, oid: Oid, serial: Tid, data: bytes, blob: str | None = None) -> None:
        """Add a record, and the file of its blob, which is taken over."""
        if blob is not None:
            self._blobs.take(self._end, blob)
        try:
            self._file.seek(self._end)
            self._file.write(_HEADER.pack(oid, serial, len(data)))
            self._file.write(data)
        except OSError as error:
            raise StorageError(f"cannot write a savepoint to a file in {self._directory}: {error}") from error
        self._log.append((oid, self._positions.get(oid)))
        self._positions[oid] = self._end
        self._end += _HEADER.size + len(data)

    def load(self, oid: Oid) -> tuple[bytes, Tid]:
        """Return the data and the serial of an object's last record; KeyError if it has none."""
        position = self._positions[oid]
        try:
            self._file.seek(position)
            header = self._file.read(_HEADER.size)
            found, serial, size = _HEADER.unpack(header) if len(header) == _HEADER.size else (b"", b"", 0)
            data = self._file.read(size)
        except OSError as error:
            raise StorageError(f"cannot read a savepoint's file in {self._directory}: {error}") from error
        if found != oid or len(data) != size:
            raise StorageError(f"a savepoint's file in {self._directory} is damaged: no record of {oid_repr(oid)}")
        return data, serial

    def blob(self, oid: Oid) -> str | None:
        """Return the path of the file that came with the object's last record, None if there is none."""
        position = self._positions.get(oid)
        return None if position is None else self._blobs.path(position)

    def oids(self) -> list[Oid]:
        """Return the oids of all objects in the order in which their last records were written."""
        return sorted(self._positions, key=self._positions.__getitem__)

    def mark(self) -> Mark:
        """Return how far it is written."""
        return Mark(len(self._log), self._end)

    def has(self, mark: Mark) -> bool:
        """Tell whether it was not reset to before `mark` since."""
        return mark.entries <= len(self._log) and mark.end <= self._end

    def oids_since(self, mark: Mark) -> set[Oid]:
        """Return the oids of the objects that were stored after `mark`."""
        return {oid for oid, _ in self._log[mark.entries :]}

    def created_since(self, mark: Mark) -> set[Oid]:
        """Return the oids of the new objects that were stored for the first time after `mark`."""
        return {oid for oid, before in self._log[mark.entries :] if before is None and oid in self.created}

    def reset(self, mark: Mark) -> None:
        """Forget what was stored after `mark`."""
        while len(self._log) > mark.entries:
            oid, before = self._log.pop()
            if before is None:
                del self._positions[oid]
                self.created.pop(oid, None)
            else:
                self._positions[oid] = before
        self._end = mark.end
        self._blobs.cut(self._end)
        try:
            self._file.truncate(self._end)
        except OSError as error:
            raise StorageError(f"cannot cut a savepoint's file in {self._directory}: {error}") from error

    def close(self) -> None:
        """Remove the file, and the blobs that are left."""
        self._file.close()
        self._blobs.close()


class Savepoint:
    """What `transaction` holds of one resource for a savepoint: the way back."""

    def __init__(self, spool: Spool, roll_back: Callable[[Spool, Mark], None]) -> None:
        self._spool = spool
        self._mark = spool.mark()
        self._roll_back = roll_back

    def rollback(self) -> None:
        """Go back to here, any number of times.

        InvalidSavepointRollbackError if an earlier savepoint was gone back to meanwhile, or the transaction is over.
        """
        if not self._spool.has(self._mark):
            raise InvalidSavepointRollbackError("an earlier savepoint was rolled back, which ended this one")
        self._roll_back(self._spool, self._mark)
