"""The message classes of contacts.proto, compiled when the tests start: what protoc generates is for one version."""

import tempfile
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

__all__ = [
    "AddressPB",
    "ContactPB",
    "EarlyPersonPB",
    "PersonPB",
    "Phone",
    "Ref",
    "Relation",
    "compiled",
    "message_class",
]

PROTO = Path(__file__).with_name("contacts.proto")


def compiled(proto: Path) -> bytes:
    """Return a .proto file as the FileDescriptorSet that protoc makes of it, with all that it imports."""
    included = resources.files("grpc_tools") / "_proto"
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "out.bin")
        arguments = [
            f"-I{proto.parent}",
            f"-I{included}",
            f"--descriptor_set_out={out}",
            "--include_imports",
            proto.name,
        ]
        if protoc.main(["protoc", *arguments]) != 0:
            raise ValueError(f"{proto}: protoc failed")
        return out.read_bytes()


@cache
def _pool() -> Any:
    pool = descriptor_pool.Default()
    files = descriptor_pb2.FileDescriptorSet.FromString(compiled(PROTO)).file
    for file in files:
        if file.package == "zeod.test.contacts":  # Google's own are in the default pool
            pool.AddSerializedFile(file.SerializeToString())
    return pool


def message_class(name: str) -> Any:
    """Return the class of one of the messages."""
    from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2, wrappers_pb2  # noqa: F401 - into the pool

    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"zeod.test.contacts.{name}"))


AddressPB = message_class("AddressPB")
ContactPB = message_class("ContactPB")
EarlyPersonPB = message_class("EarlyPersonPB")
PersonPB = message_class("PersonPB")
Phone = message_class("Phone")
Ref = message_class("Ref")
Relation = message_class("Relation")
