"""Records of objects of classes that nobody can import."""

from zeo_core.ids import Oid

__all__ = ["node"]


def node(*children: Oid, name: str = "Node", filling: int = 0) -> bytes:
    """Return the record of a `nowhere.Node` that refers to `children`, longer by `filling` bytes."""
    references = b"".join(b"C\x08" + oid + b"Q" for oid in children)
    text = b"X" + filling.to_bytes(4, "little") + b"x" * filling
    return b"\x80\x03cnowhere\n" + name.encode() + b"\n.\x80\x03(" + references + text + b"l."
