"""Formats of records beside pickles, switched on by name and by the type of the states."""

from collections.abc import Callable
from typing import Any

import pytest
from persistent import Persistent

from tests.client.objects import Session
from zeo_client import state_formats
from zeo_client.db import DB
from zeo_client.state_formats import STATE_FORMATS, format_of_record, register_state_format
from zeo_core.errors import RecordFormatError
from zeo_core.ids import Oid
from zeo_core.record import register_format
from zeo_server.storages.mapping import MappingStorage


class Text(str):
    """The states of the format."""

    __slots__ = ()


class Reversed:
    """A format of texts, backwards; they refer to nothing."""

    def record(self, obj: Any, state: Any, reference_to: Callable[[Any], Any]) -> bytes:
        return b"{reversed}" + f"{type(obj).__module__} {type(obj).__name__} {state[::-1]}".encode()

    def class_names(self, data: bytes) -> tuple[str, str]:
        module, name, _ = data[10:].decode().split(" ", 2)
        return module, name

    def state(self, data: bytes, load_reference: Callable[[Any], Any]) -> Any:
        return data[10:].decode().split(" ", 2)[2][::-1]

    def references(self, data: bytes) -> list[Oid]:
        return []

    def class_name(self, data: bytes) -> str:
        return ".".join(self.class_names(data))


class Note(Persistent):
    """A text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __getstate__(self) -> Text:
        return Text(self.text)

    def __setstate__(self, state: Any) -> None:
        self.__dict__["text"] = state


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_formats, "_by_mark", {})
    monkeypatch.setitem(STATE_FORMATS, Text, Reversed())
    register_format("reversed", Reversed())


def test_a_class_chooses_the_format_by_its_states(db: DB, storage: MappingStorage) -> None:
    register_state_format("reversed", Text, Reversed())
    session = Session(db)
    session.root["note"] = note = Note("hello")
    session.commit()
    assert storage.load(note._p_oid, "")[0] == b"{reversed}tests.client.test_state_formats Note olleh"
    other = Session(db)
    assert other.conn.get(note._p_oid).text == "hello"


def test_a_format_that_nobody_registered_is_an_error_with_advice() -> None:
    with pytest.raises(RecordFormatError, match=r"'protobuf', which nobody registered: call zeo_client\.protobuf\.reg"):
        format_of_record(b"{protobuf}x")
    with pytest.raises(RecordFormatError, match="'other', which nobody registered: is its package installed"):
        format_of_record(b"{other}x")
