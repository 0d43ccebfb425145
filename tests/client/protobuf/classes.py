"""Persistent classes of the schemas, as an application would have them."""

import time
from typing import Any, Self

from persistent import Persistent

from tests.client.protobuf.schemas import ContactPB, PersonPB
from zeo_client.protobuf import ProtobufPersistent, ProtobufState

__all__ = ["Adder", "PContact", "PContactWithGetNewArgs", "Person"]


class PContact(Persistent, metaclass=ProtobufState):
    """As in keas.pbpersist's tests."""

    protobuf_type = ContactPB

    create_time: Any
    name: Any
    address: Any
    guardians: Any
    protobuf: Any
    protobuf_refs: Any
    protobuf_live_references: Any

    def __init__(self) -> None:
        self.create_time = int(time.time())


class PContactWithGetNewArgs(PContact):
    """What cannot be stored."""

    def __getnewargs__(self) -> tuple[()]:
        return ()


class Adder(Persistent):
    """Made with an argument that is no part of the state."""

    def __new__(cls, amount: int) -> Self:
        self: Self = super().__new__(cls)
        self._p_amount = amount
        return self

    __slots__ = ("_p_amount",)

    def __getnewargs__(self) -> tuple[int]:
        return (self._p_amount,)

    def __getstate__(self) -> None:
        return None

    def add(self, value: int) -> int:
        return int(value + self._p_amount)


class Person(ProtobufPersistent, message=PersonPB):
    """All kinds of fields."""
