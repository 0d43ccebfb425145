"""The applications' Protocol Buffers schemas, as far as an administrator has registered them: to resolve, and to show.

A schema comes as a file with a FileDescriptorSet, which the compiler writes:

    protoc --include_imports --descriptor_set_out=contacts.desc contacts.proto

The package `protobuf` is imported only if there is such a file.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from zeo_core.protobuf_resolve import MergeRule

__all__ = ["MessageOfClass", "MessageTypes", "merge_rules", "message_of_class", "protobuf_section"]


class MessageOfClass(NamedTuple):
    """Which message a class keeps its state in, and the paths of repeated fields that are sets."""

    class_name: str
    message_name: str
    sets: tuple[str, ...] = ()


def message_of_class(text: str) -> MessageOfClass:
    """Return what `CLASS MESSAGE [SET...]` means; ValueError if it means nothing."""
    parts = text.split()
    if len(parts) < 2 or "." not in parts[0]:
        raise ValueError(
            f"{text!r} does not name a class and its message, such as: app.contacts.Contact contacts.ContactPB"
        )
    return MessageOfClass(parts[0], parts[1], tuple(parts[2:]))


class MessageTypes:
    """The classes of the messages in some files with a FileDescriptorSet."""

    def __init__(self, paths: Sequence[str]) -> None:
        """ValueError, naming the file, for one that is no such set; or if the package `protobuf` is missing."""
        try:
            from google.protobuf import descriptor_pool
        except ImportError:
            raise ValueError(
                f"{' '.join(paths)}: reading it needs the package protobuf: pip install 'zeod[protobuf]'"
            ) from None
        self._paths = paths
        self._pool = descriptor_pool.DescriptorPool()
        for path in paths:
            self._add(path)

    def _add(self, path: str) -> None:
        from google.protobuf import descriptor_pb2
        from google.protobuf.message import DecodeError

        with open(path, "rb") as file:
            data = file.read()
        try:
            files = descriptor_pb2.FileDescriptorSet.FromString(data).file
        except DecodeError as error:
            raise ValueError(
                f"{path}: no FileDescriptorSet, as protoc --descriptor_set_out writes it: {error}"
            ) from error
        for each in files:
            try:
                self._pool.AddSerializedFile(each.SerializeToString())
            except TypeError as error:  # what it raises if an import is missing, or a name is taken
                raise ValueError(
                    f"{path}: {each.name}: {error} (protoc --include_imports adds what it imports)"
                ) from error

    def message(self, name: str) -> Any:
        """Return a message's class by its full name; ValueError if there is none."""
        from google.protobuf import message_factory

        try:
            return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(name))
        except KeyError:
            raise ValueError(f"{' '.join(self._paths)}: there is no message {name}") from None


def merge_rules(paths: Sequence[str], messages: Sequence[MessageOfClass]) -> Mapping[str, MergeRule]:
    """Return, by class, how its messages are merged; ValueError for what is not in the files."""
    types = MessageTypes(paths)
    rules: dict[str, MergeRule] = {}
    for each in messages:
        message = types.message(each.message_name)
        for path in each.sets:
            _check_repeated(message.DESCRIPTOR, path)
        rules[each.class_name] = MergeRule(message, frozenset(each.sets))
    return rules


def _check_repeated(descriptor: Any, path: str) -> None:
    """ValueError if the path does not lead to a repeated field, through sub-messages."""
    current = descriptor
    *through, last = path.split(".")
    for name in through:
        field = None if current is None else current.fields_by_name.get(name)
        current = None if field is None else field.message_type
    field = None if current is None else current.fields_by_name.get(last)
    if field is None or not field.is_repeated:
        raise ValueError(f"{descriptor.full_name} has no repeated field {path}")


def protobuf_section(section: Any) -> Mapping[str, MergeRule]:
    """Return what a section `protobuf` of a configuration file says."""
    return merge_rules(section.descriptor_set, section.message)
