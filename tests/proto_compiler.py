"""Message classes from .proto files, compiled as the tests run: what protoc generates fits one version of protobuf."""

import tempfile
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

__all__ = ["described", "generate", "messages"]


def described(*protos: Path) -> bytes:
    """Return the FileDescriptorSet of .proto files in one directory, with all that they import."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "described"
        arguments = ["protoc", f"-I{protos[0].parent}", "--include_imports", f"--descriptor_set_out={path}"]
        assert protoc.main([*arguments, *(proto.name for proto in protos)]) == 0, f"{protos}: protoc failed"
        return path.read_bytes()


def generate(proto: Path, directory: Path) -> None:
    """Write the module that protoc makes of a .proto file, as an application would have it."""
    arguments = [f"-I{proto.parent}", f"--python_out={directory}", proto.name]
    assert protoc.main(["protoc", *arguments]) == 0, f"{proto}: protoc failed"


def messages(*protos: Path) -> dict[str, Any]:
    """Return the classes of the messages in .proto files, by full name."""
    pool = descriptor_pool.DescriptorPool()
    found = {}
    for file in descriptor_pb2.FileDescriptorSet.FromString(described(*protos)).file:
        pool.AddSerializedFile(file.SerializeToString())
        for message in file.message_type:
            name = f"{file.package}.{message.name}"
            found[name] = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
    return found
