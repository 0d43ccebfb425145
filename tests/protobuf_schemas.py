"""Message classes for the tests, made from descriptors that are written out here: no compiler of .proto is needed.

`envelope` is the schema of a record as zeo_core/protobuf_record.py describes it, for the package `protobuf`; `contacts`
has a message with fields of all kinds.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["contacts", "envelope", "field", "file_set", "message", "message_class", "proto2_file"]

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


def message(name: str, *declared: str, oneof: str = "", chosen: tuple[str, ...] = ()) -> Any:
    """Return a message's descriptor; the fields `chosen` are those of a oneof.

    A map's field is declared as `map string:int32 counts = 7`.
    """
    made = descriptor_pb2.DescriptorProto(name=name)
    for each in declared:
        if each.startswith("map "):
            _add_map(made, each)
        else:
            made.field.append(field(each))
    for each in chosen:
        made.field.append(field(f"optional {each}"))
        made.field[-1].oneof_index = 0
    if oneof:
        made.oneof_decl.add(name=oneof)
    return made


def _add_map(made: Any, declared: str) -> None:
    """Add a map: repeated entries of a type within the message, marked as such."""
    _, types, name, _, number = declared.split()
    key, _, value = types.partition(":")
    entry = message(f"{name.capitalize()}Entry", f"optional {key} key = 1", f"optional {value} value = 2")
    entry.options.map_entry = True
    made.nested_type.append(entry)
    made.field.append(field(f"repeated {entry.name} {name} = {number}"))


def proto2_file(name: str, package: str, *messages: Any) -> Any:
    """Return a file's descriptor."""
    return descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto2", message_type=messages)


def file_set(*files: Any) -> bytes:
    """Return what `protoc --descriptor_set_out` writes."""
    encoded: bytes = descriptor_pb2.FileDescriptorSet(file=files).SerializeToString()
    return encoded


def message_class(file: Any, name: str, *imported: Any) -> Any:
    """Return the class of a message in a file, from a pool of its own; `imported` are files that it imports."""
    pool = descriptor_pool.DescriptorPool()
    for each in imported:
        pool.AddSerializedFile(each.serialized_pb)
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

contacts = proto2_file(
    "contacts.proto",
    "contacts",
    message("Ref", "optional uint32 _p_refid = 1"),
    message("Address", "optional string line1 = 1", "optional string city = 2", "repeated string lines = 3"),
    message(
        "Contact",
        "required uint64 create_time = 1",
        "optional string name = 2",
        "optional .contacts.Address address = 3",
        "repeated .contacts.Ref guardians = 4",
        "optional .contacts.Ref spouse = 5",
        "optional double height = 6",
        "map string:int32 counts = 7",
        "map string:.contacts.Address addresses = 8",
        "repeated int32 numbers = 9",
        oneof="reach",
        chosen=("string mail = 10", ".contacts.Address visit = 11"),
    ),
)
