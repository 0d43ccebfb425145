"""Framing: every message is a 4-byte big-endian length and so many bytes of payload.

A stream may be cut anywhere: a frame that has not arrived whole waits for the next `feed`. Memory is taken as bytes
arrive, never because a length promises them.
"""

from zeo_core.errors import RemoteProtocolError

__all__ = ["HEADER_BYTES", "FrameDecoder", "encode_frame"]

HEADER_BYTES = 4


def encode_frame(payload: bytes) -> bytes:
    """Return `payload` (under 4 GiB) with its length before it."""
    return len(payload).to_bytes(HEADER_BYTES, "big") + payload


class FrameDecoder:
    """Cuts a stream into payloads. `max_bytes` bounds a payload and may be changed between frames."""

    __slots__ = ("_data", "_start", "max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._data: bytes | bytearray = b""
        self._start = 0

    def feed(self, data: bytes) -> None:
        """Add what arrived. One whole frame, the usual case, is not copied."""
        if self._start == len(self._data):
            self._data, self._start = data, 0
            return
        if isinstance(self._data, bytes):
            self._data = bytearray(memoryview(self._data)[self._start :])
        else:
            del self._data[: self._start]
        self._data += data
        self._start = 0

    def take(self) -> bytes | bytearray | None:
        """Return the next whole payload, None if it has not arrived; RemoteProtocolError if it is too large."""
        start = self._start + HEADER_BYTES
        if len(self._data) < start:
            return None
        size = int.from_bytes(self._data[self._start : start], "big")
        if size > self.max_bytes:
            raise RemoteProtocolError(f"a message of {size} bytes, where at most {self.max_bytes} are allowed")
        if len(self._data) < start + size:
            return None
        if len(self._data) == start + size:
            whole, self._data, self._start = self._data, b"", 0
            if isinstance(whole, bytes):
                return whole[start:]
            del whole[:start]  # which moves nothing: a large frame is not copied
            return whole
        self._start = start + size
        return self._data[start : self._start]

    def missing_bytes(self) -> int:
        """Return how many bytes the frame that has begun to arrive still lacks, 0 if that is not known."""
        start = self._start + HEADER_BYTES
        if len(self._data) < start:
            return 0
        return int.from_bytes(self._data[self._start : start], "big") + start - len(self._data)

    def pending_bytes(self) -> int:
        """Return how many bytes wait for the rest of their frame: not 0 at the end of a stream means it was cut."""
        return len(self._data) - self._start
