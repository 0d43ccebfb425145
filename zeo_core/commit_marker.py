r"""Commit markers: by which a client finds out, on another connection, whether a transaction of its was committed.

A marker is 16 random bytes that a client gives to a transaction. It stands in the log with the transaction, so it is
committed exactly if the transaction is, whatever is restarted in between. Where: behind the pickle of the transaction's
extension, where no unpickler looks, so that the extension reads as it did.

    pickled dictionary, ends with "."    "}." where there is no extension, an empty one
    8 bytes                              "\0commit:"
    16 bytes                             the marker
"""

from typing import Final

__all__ = ["MARKER_BYTES", "TAIL_MAX_BYTES", "is_marked", "marked", "marker_of", "unmarked"]

MARKER_BYTES: Final = 16

_MAGIC: Final = b"\0commit:"
_EMPTY: Final = b"}."  # a pickled empty dictionary
_TAIL_BYTES: Final = len(_MAGIC) + MARKER_BYTES

TAIL_MAX_BYTES: Final = _TAIL_BYTES + len(_EMPTY)
"""How much longer an extension becomes by a marker, at most."""


def marked(extension: bytes, marker: bytes) -> bytes:
    """Return an extension with a marker."""
    return (extension or _EMPTY) + _MAGIC + marker


def is_marked(extension: bytes, marker: bytes) -> bool:
    """Tell whether an extension has this marker."""
    return extension.endswith(_MAGIC + marker)


def marker_of(extension: bytes) -> bytes:
    """Return the marker of an extension, b"" if it has none."""
    return extension[-MARKER_BYTES:] if extension[-_TAIL_BYTES:-MARKER_BYTES] == _MAGIC else b""


def unmarked(extension: bytes) -> bytes:
    """Return an extension as it was before it was given a marker, if it was."""
    if extension[-_TAIL_BYTES:-MARKER_BYTES] != _MAGIC:
        return extension
    extension = extension[:-_TAIL_BYTES]
    return b"" if extension == _EMPTY else extension
