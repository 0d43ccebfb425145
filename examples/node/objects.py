"""The classes of this example in Python. Their states are the messages of contacts.proto, which Node reads too.

contacts_pb2.py is made from it: `protoc --python_out=. contacts.proto`, or with the package grpcio-tools
`python -m grpc_tools.protoc -I. --python_out=. contacts.proto`.
"""

from contacts_pb2 import AddressBookPB, ContactPB

from zeo_client.protobuf import ProtobufPersistent, register

__all__ = ["AddressBook", "Contact"]

register()


class Contact(ProtobufPersistent, message=ContactPB):
    """Somebody; the fields of the message are the attributes."""


class AddressBook(ProtobufPersistent, message=AddressBookPB):
    """All contacts, in the root of the database as `book`."""
