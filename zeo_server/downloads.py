"""Blobs on their way to one client: read in threads, in slices, no faster than the client takes them.

    receiveBlobStart(oid, serial), receiveBlobChunk(oid, serial, chunk)..., receiveBlobStop(oid, serial), then the reply

Blobs follow one another, so that the messages of two never mix (lesson B18); other replies and invalidations may come
between the chunks of one, since no load should wait for a film. One slice is read while the last one is being sent.
"""

import asyncio
import os
from collections.abc import Callable
from threading import Lock
from typing import Any, Protocol

from zeo_core.errors import StorageError, ZeodError
from zeo_core.ids import Oid, Tid
from zeo_core.storage import HasBlobs, Loads
from zeo_core.wire.codec import encode_before_bytes, encode_one_way
from zeo_server.commit.transaction import Answer
from zeo_server.long_answers import LongAnswers

__all__ = ["MESSAGE_BYTES", "SLICE_BYTES", "Downloads", "Receiver", "Run"]

MESSAGE_BYTES = 128 * 1024
"""Bytes of a blob in one message: few enough to stay in a processor's cache while they are copied at the other end."""

SLICE_BYTES = 4 * MESSAGE_BYTES
"""Bytes that are read at once: enough to be worth a thread's while, and at 1 GB/s a load waits half a millisecond."""


Run = Callable[[Callable[[], Any]], "asyncio.Future[Any]"]
"""Has a thread call a function."""


class Receiver(Protocol):
    """The connection that blobs are sent on."""

    def send(self, frame: bytes | bytearray) -> None:
        """Queue bytes behind everything queued before."""

    def takes_more(self) -> bool:
        """Tell whether the peer has read so much that more can be sent."""

    def disconnect(self, reason: str) -> None:
        """End the connection."""


class Downloads:
    """The blobs on their way to one client, one after the other. All methods are called in the server's loop."""

    def __init__(self, storage: Loads, receiver: Receiver, run: Run) -> None:
        """Have threads read, by `run`."""
        self._storage = storage
        self._receiver = receiver
        self._run = run
        self.answers: LongAnswers[tuple[Oid, Tid, Answer]] = LongAnswers(self._give, receiver.takes_more)

    def send(self, oid: Oid, serial: Tid, answer: Answer) -> None:
        """Send a blob behind those asked for before; `answer` gets None at its end, or the error if there is none."""
        self.answers.add((oid, serial, answer))

    async def _give(self, asked: tuple[Oid, Tid, Answer]) -> None:
        oid, serial, answer = asked
        try:
            blob, messages = await self._run(lambda: _opened(self._storage, oid, serial))
        except (ZeodError, OSError) as error:
            answer(error if isinstance(error, ZeodError) else StorageError(str(error)))
            return
        try:
            await self._send(blob, (oid, serial), messages)
            answer(None)
        except (ZeodError, OSError) as error:
            # What the client has is the beginning of a blob: there is no other way to tell it that no end will come.
            self._receiver.disconnect(f"a blob could not be read: {error}")
        finally:
            if not blob.closed:
                self._run(blob.close)

    async def _send(self, blob: "_OpenBlob", ids: tuple[Oid, Tid], messages: bytes | bytearray) -> None:
        self._receiver.send(encode_one_way("receiveBlobStart", ids))
        while messages:
            await self.answers.room()
            self._receiver.send(messages)
            messages = b"" if blob.closed else await self._run(blob.read)
        self._receiver.send(encode_one_way("receiveBlobStop", ids))


def _opened(storage: Loads, oid: Oid, serial: Tid) -> tuple["_OpenBlob", bytes | bytearray]:
    """Open a blob and read its first messages: for a small one all there is to do in a thread."""
    blob = _OpenBlob(storage, oid, serial)
    try:
        return blob, blob.read()
    except BaseException:
        blob.close()
        raise


class _OpenBlob:
    """A blob that is being read, and closed when it has been read to its end. For threads."""

    def __init__(self, storage: Loads, oid: Oid, serial: Tid) -> None:
        """Open it; POSKeyError if there is none."""
        if not isinstance(storage, HasBlobs):
            raise StorageError(f"{storage.name()} has no directory for blobs")
        self._ids = oid, serial
        self._lock = Lock()  # a lost connection closes the file while a thread may be reading it
        self._file: int | None = os.open(storage.loadBlob(oid, serial), os.O_RDONLY)
        self._left = os.fstat(self._file).st_size

    def read(self) -> bytes | bytearray:
        """Return the next messages, none at the end; StorageError if the file has become shorter."""
        total = min(self._left, SLICE_BYTES)
        sizes = [min(MESSAGE_BYTES, total - start) for start in range(0, total, MESSAGE_BYTES)]
        heads = [encode_before_bytes("receiveBlobChunk", self._ids, size) for size in sizes]
        messages = bytearray(total + sum(map(len, heads)))
        rest = memoryview(messages)
        places: list[memoryview] = []  # where the file's bytes go, between the heads
        for head, size in zip(heads, sizes, strict=True):
            rest[: len(head)] = head
            places.append(rest[len(head) : len(head) + size])
            rest = rest[len(head) + size :]
        with self._lock:
            if self._file is None:
                return b""
            if os.readv(self._file, places) != total:
                raise StorageError("the file has become shorter")
            self._left -= total
            if not self._left:
                self._close()
        return messages

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        with self._lock:
            self._close()

    @property
    def closed(self) -> bool:
        """Tell whether all is read, or nothing will be."""
        return self._file is None

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
