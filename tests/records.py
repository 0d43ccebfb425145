"""Records of objects of classes that nobody can import."""

from zeo_core.ids import Oid, unpack_id
from zeo_core.protobuf_record import ClassMetadata, ObjectRecord, Reference, encode

__all__ = ["message_node", "node"]


def node(*children: Oid, name: str = "Node", filling: int = 0) -> bytes:
    """Return the record of a `nowhere.Node` that refers to `children`, longer by `filling` bytes."""
    references = b"".join(b"C\x08" + oid + b"Q" for oid in children)
    text = b"X" + filling.to_bytes(4, "little") + b"x" * filling
    return b"\x80\x03cnowhere\n" + name.encode() + b"\n.\x80\x03(" + references + text + b"l."


def message_node(
    *children: Oid, name: str = "Node", filling: int = 0, weak: tuple[Oid, ...] = (), foreign: tuple[Oid, ...] = ()
) -> bytes:
    """Return the record of such an object whose state is a protobuf message; `foreign` are in another database."""
    cls = ClassMetadata("nowhere", name)
    references = [Reference(0, unpack_id(oid), cls) for oid in children]
    references += [Reference(0, unpack_id(oid), weak=True) for oid in weak]
    references += [Reference(0, unpack_id(oid), cls, "other") for oid in foreign]
    numbered = tuple(reference._replace(refid=refid) for refid, reference in enumerate(references, 1))
    return encode(ObjectRecord(cls, b"x" * filling, numbered))
