"""The part of a large transaction that waits for the vote in a file: calls as they will be sent, one after the other.

The file has no name and goes with the process, in the directory that Python's tempfile chooses (TMPDIR). A frame is
never cut in two where it is read to be sent: other threads' calls may travel in between.
"""

import os
import tempfile
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from zeo_core.errors import StorageError
from zeo_core.ids import Oid
from zeo_core.wire.codec import decode
from zeo_core.wire.frames import HEADER_BYTES

__all__ = ["PIECE_BYTES", "StagingSpool"]

PIECE_BYTES = 1024 * 1024
"""So much is read, or written, at once: then others have their turn on the connection."""


class StagingSpool:
    """The calls of one transaction, by oid. StorageError if the file cannot be written or read."""

    def __init__(self) -> None:
        self._places: dict[Oid, tuple[int, int]] = {}  # in the order of the file: position and size
        self._end = 0
        try:
            self._file = tempfile.TemporaryFile(prefix="zeod-staging-", buffering=0)  # noqa: SIM115 - until close
        except OSError as error:
            raise _cannot("make", error) from error

    def __contains__(self, oid: Oid) -> bool:
        return oid in self._places

    def oids(self) -> Collection[Oid]:
        """Return the oids of all objects."""
        return self._places.keys()

    def add(self, calls: Iterable[tuple[Oid, bytes]]) -> None:
        """Add encoded calls; an object's later one counts."""
        waiting: list[bytes] = []
        size = 0
        for oid, call in calls:
            self._places.pop(oid, None)
            self._places[oid] = self._end + size, len(call)
            waiting.append(call)
            size += len(call)
            if size >= PIECE_BYTES:
                self._write(b"".join(waiting))
                waiting, size = [], 0
        self._write(b"".join(waiting))

    def forget(self, oid: Oid) -> None:
        """Drop an object's call, if there is one."""
        self._places.pop(oid, None)

    def arguments(self, oid: Oid) -> tuple[str, tuple[Any, ...]]:
        """Return the method and the arguments of an object's call; KeyError."""
        call = decode(self._read(*self._places[oid])[HEADER_BYTES:])
        return call.method, tuple(call.body)

    def pieces(self, without: Collection[Oid]) -> Iterator[bytes]:
        """Return all calls but those of some objects, whole ones, in pieces that are read one by one."""
        start = size = 0
        for oid, (position, length) in self._places.items():
            if oid in without:
                continue
            if position != start + size or size >= PIECE_BYTES:
                if size:
                    yield self._read(start, size)
                start, size = position, 0
            size += length
        if size:
            yield self._read(start, size)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._file.fileno(), view, self._end)
                view = view[written:]
                self._end += written
        except OSError as error:
            raise _cannot("write", error) from error

    def _read(self, position: int, size: int) -> bytes:
        parts: list[bytes] = []
        try:
            while size and (part := os.pread(self._file.fileno(), size, position)):
                parts.append(part)
                position, size = position + len(part), size - len(part)
        except OSError as error:
            raise _cannot("read", error) from error
        if size:
            raise StorageError(f"a temporary file in {tempfile.gettempdir()} ends too soon")
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _cannot(do: str, error: OSError) -> StorageError:
    where = tempfile.gettempdir()
    return StorageError(f"cannot {do} a temporary file for a large transaction in {where}: {error}")
