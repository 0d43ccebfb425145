"""Message classes for the tests, made from descriptors that are written out here: no compiler of .proto is needed.

`envelope` is the schema of a record as zeo_core/protobuf_record.py describes it, for the package `protobuf`.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["envelope", "field", "file_set", "message", "message_class", "proto2_file"]

_TYPES = {
    name.removeprefix("TYPE_").lower(): number for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}
_LABELS = dict(descriptor_pb2.FieldDescriptorProto.Label.items())


def field(declared: str) -> Any:
    """Return a field's descriptor from what a .proto file says: `optional uint64 create_time = 1`."""
    label, kind, name, _, number = declared.split()
    made = descriptor_pb2.FieldDescriptorProto(name=name, number=int(number), label=_LABELS[f"LABEL_{label.upper()}"])
    if kind in _TYPES:
        made.type = _TYPES[kind]
    else:
        made.type, made.type_name = _TYPES["message"], kind
    return made


def message(name: str, *declared: str) -> Any:
    """Return a message's descriptor."""
    return descriptor_pb2.DescriptorProto(name=name, field=map(field, declared))


def proto2_file(name: str, package: str, *messages: Any) -> Any:
    """Return a file's descriptor."""
    return descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto2", message_type=messages)


def file_set(*files: Any) -> bytes:
    """Return what `protoc --descriptor_set_out` writes."""
    encoded: bytes = descriptor_pb2.FileDescriptorSet(file=files).SerializeToString()
    return encoded


def message_class(file: Any, name: str) -> Any:
    """Return the class of a message in a file, from a pool of its own."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}"))


envelope = proto2_file(
    "envelope.proto",
    "zeod.test",
    message("ClassMetadata", "required string module_name = 1", "required string class_name = 2"),
    message(
        "Reference",
        "required uint32 refid = 1",
        "required uint64 zoid = 2",
        "optional .zeod.test.ClassMetadata class_meta = 3",
        "optional string database = 4",
        "optional bool weak = 5",
    ),
    message(
        "ObjectRecord",
        "required .zeod.test.ClassMetadata class_meta = 1",
        "required bytes state = 2",
        "repeated .zeod.test.Reference references = 3",
    ),
)
