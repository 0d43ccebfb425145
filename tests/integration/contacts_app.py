"""The application of examples/node in Python: classes whose states are the messages of its contacts.proto."""

from pathlib import Path
from typing import Any

from tests.proto_compiler import messages
from zeo_client.protobuf import ProtobufPersistent

__all__ = ["AddressBook", "Contact", "Private"]

SCHEMA = Path(__file__).parent.parent.parent / "examples" / "node" / "contacts.proto"
MESSAGES = messages(SCHEMA)
ContactPB: Any = MESSAGES["contacts.ContactPB"]


class Contact(ProtobufPersistent, message=ContactPB):
    """Whose guardians two may change at a time."""

    protobuf_sets = ("guardians",)


class Private(ProtobufPersistent, message=ContactPB):
    """Whose guardians they may not."""


class AddressBook(ProtobufPersistent, message=MESSAGES["contacts.AddressBookPB"]):
    """All contacts."""
