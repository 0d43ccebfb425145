"""Blobs on the wire, both ways, in chunks: never a whole one in memory."""

import os
from typing import IO

from zeo_client.transport.channel import Channel
from zeo_core.errors import ClientDisconnected, POSKeyError, RemoteProtocolError, StorageError
from zeo_core.ids import Oid, oid_repr
from zeo_core.wire.codec import encode_before_bytes, encode_one_way

__all__ = ["CHUNK_BYTES", "Download", "upload"]

CHUNK_BYTES = 256 * 1024
"""Of a blob, in one message to the server: other calls on the connection wait for one chunk, not for the blob."""

_START = encode_one_way("storeBlobStart", ())


def upload(channel: Channel, path: str, end: bytes) -> None:
    """Send the file at `path` as a blob, and `end`, the storeBlobEnd that goes with it. One at a time on a channel.

    If the file cannot be read to its end the connection is given up: the server waits for the rest, and would take the
    next blob for it.
    """
    with open(path, "rb", buffering=0) as file:
        left = os.fstat(file.fileno()).st_size
        before = _START
        try:
            while left:
                size = min(left, CHUNK_BYTES)
                left -= size
                # A small blob is one write, which wakes the server once.
                channel.send(_message(file, path, before, size, b"" if left else end))
                before = b""
        except ClientDisconnected:
            raise
        except BaseException as error:
            channel.fail(f"a blob could not be sent: {error}")
            raise
    if before:  # it is empty
        channel.send(before + end)


def _message(file: IO[bytes], path: str, before: bytes, size: int, after: bytes) -> bytearray:
    """Return the next `size` bytes of the file as a chunk, with what stands before and after it."""
    head = before + encode_before_bytes("storeBlobChunk", (), size)
    message = bytearray(len(head) + size + len(after))
    message[: len(head)] = head
    message[len(head) + size :] = after
    if file.readinto(memoryview(message)[len(head) : len(head) + size]) != size:  # type: ignore[attr-defined]
        raise StorageError(f"{path}: has become shorter while it was sent")
    return message


class Download:
    """A blob that comes in, to a file.

    The methods run in the thread that reads; whatever they raise ends the connection (lesson B20).
    """

    def __init__(self, oid: Oid, file: IO[bytes]) -> None:
        self._whole = False
        self._oid = oid
        self._file = file
        self._started = False
        self._size = 0

    def start(self) -> None:
        """Take note that it begins."""
        if self._started:
            raise RemoteProtocolError(f"the blob of {oid_repr(self._oid)} begins twice")
        self._started = True

    def add(self, chunk: bytes) -> None:
        """Write the next bytes."""
        if not self._started or self._whole:
            raise RemoteProtocolError(
                f"a part of the blob of {oid_repr(self._oid)} before its beginning or after its end"
            )
        rest = memoryview(chunk)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._size += len(chunk)

    def stop(self) -> None:
        """Take note that it is whole, and that the file has all of it."""
        self.add(b"")
        if os.fstat(self._file.fileno()).st_size != self._size:
            raise StorageError(f"the blob of {oid_repr(self._oid)} was not written whole")
        self._whole = True

    def check_whole(self) -> None:
        """Raise POSKeyError if the server has answered without sending the blob."""
        if not self._whole:
            raise POSKeyError(self._oid)
