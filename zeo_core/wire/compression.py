"""Objects of one answer, made smaller together: for links that are slower than zlib.

The array of objects that `load_many` answers becomes one byte string, the zlib stream of its msgpack encoding. Small
records that are alike, which is what most databases hold, are a fraction of their length together, and hardly less
when each is taken alone.
"""

import zlib
from collections.abc import Sequence
from typing import Any, Final

import msgpack

from zeo_core.errors import RemoteProtocolError
from zeo_core.wire.codec import ValueCount

__all__ = ["COMPRESSED_MAX_BYTES", "COMPRESSED_MIN_BYTES", "compressed", "decompressed"]

COMPRESSED_MIN_BYTES: Final = 1024
"""What is smaller goes into one packet of the network anyway."""

COMPRESSED_MAX_BYTES: Final = 64 * 1024 * 1024
"""The most that an answer may grow to when it is decompressed: a few bytes can say that they are very many."""

_ENTRIES_MAX = 10_000
_SAMPLE_BYTES = 64 * 1024
_LEVEL = 1  # three times as fast as zlib's own choice, for a sixth more bytes
_WORTH_WHILE = 0.8


def compressed(entries: Sequence[Any]) -> bytes | None:
    """Return the objects as one byte string; None if that would not be worth while. It takes long: for a thread."""
    data: bytes = msgpack.packb(entries, use_bin_type=True)
    if not COMPRESSED_MIN_BYTES <= len(data) <= COMPRESSED_MAX_BYTES:
        return None
    if len(data) > 2 * _SAMPLE_BYTES and _smaller(data[:_SAMPLE_BYTES]) is None:
        return None  # images and alike
    return _smaller(data)


def _smaller(data: bytes) -> bytes | None:
    smaller = zlib.compress(data, _LEVEL)
    return smaller if len(smaller) <= _WORTH_WHILE * len(data) else None


def decompressed(data: bytes) -> tuple[Any, ...]:
    """Return the objects in a byte string; RemoteProtocolError if there are none, or too much."""
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data, COMPRESSED_MAX_BYTES)
        if not stream.eof or stream.unused_data:
            raise RemoteProtocolError(f"compressed objects cut short, or of more than {COMPRESSED_MAX_BYTES} bytes")
        # As much as a server gives, but no more: what nests may take many times its bytes.
        entries = msgpack.unpackb(
            plain,
            use_list=False,
            raw=False,
            max_array_len=_ENTRIES_MAX,
            max_map_len=0,
            max_ext_len=0,
            list_hook=ValueCount(),
        )
    except (zlib.error, ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise RemoteProtocolError(f"compressed objects that cannot be read: {type(error).__name__}: {error}") from None
    if type(entries) is not tuple:
        raise RemoteProtocolError("compressed objects that are no array")
    return entries
