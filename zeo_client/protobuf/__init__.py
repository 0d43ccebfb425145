"""Objects that keep their state in a Protocol Buffers message, so that any language can read their records.

It needs the package `protobuf`: `pip install zeod[protobuf]`. See docs/howto/protobuf.md.
"""

try:
    import google.protobuf  # noqa: F401
except ImportError as error:
    raise ImportError("zeo_client.protobuf needs the package protobuf: pip install zeod[protobuf]") from error

from zeo_client.class_aliases import register_alias
from zeo_client.protobuf.errors import BrokenReferenceError, StaleMessageError
from zeo_client.protobuf.meta import ProtobufObject, ProtobufPersistent, ProtobufState
from zeo_client.protobuf.records import register
from zeo_client.protobuf.references import ProtobufReferences
from zeo_client.protobuf.state import StateTuple

__all__ = [
    "BrokenReferenceError",
    "ProtobufObject",
    "ProtobufPersistent",
    "ProtobufReferences",
    "ProtobufState",
    "StaleMessageError",
    "StateTuple",
    "register",
    "register_alias",
]
