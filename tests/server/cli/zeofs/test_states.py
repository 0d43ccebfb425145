"""States of protobuf records: as their schema names them, or as what their bytes can be."""

import sys
import zlib
from pathlib import Path
from types import ModuleType

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import protobuf_schemas as schemas
from tests.core import test_protobuf_resolve as messages
from tests.records import node
from tests.server.cli.zeofs.run import json_lines, zeofs
from tests.server.storages.file.build import File
from zeo_core.ids import ROOT_OID, pack_id
from zeo_core.protobuf_record import ClassMetadata, ObjectRecord, Reference, encode
from zeo_core.protobuf_wire import delimited
from zeo_server.cli.zeofs.states import States

CONTACT = messages.Contact(
    create_time=1,
    name="Bob\nBöb",
    address={"city": "Xanten", "lines": ["a", "b"]},
    guardians=[{"_p_refid": 3}],
    height=1.0,
    counts={"a": -1},
)
REFERENCES = (
    Reference(3, 0x2A, messages.PCONTACT),
    Reference(4, 0x2B, weak=True),
    Reference(5, 0x2C, messages.PCONTACT, "archive"),
)
RECORD = encode(ObjectRecord(messages.PCONTACT, CONTACT.SerializeToString(), REFERENCES))
AS_MESSAGE = "app.contacts.PContact=contacts.Contact"

REFIDS = [
    "    refid 3 is 0x2a  app.contacts.PContact",
    "    refid 4 is 0x2b, weakly",
    "    refid 5 is 0x2c of the database 'archive'  app.contacts.PContact",
]


@pytest.fixture
def described(tmp_path: Path) -> str:
    path = tmp_path / "contacts.desc"
    path.write_bytes(schemas.file_set(schemas.contacts))
    return str(path)


@pytest.fixture
def with_class() -> str:
    """The name of a module with the class."""
    module = ModuleType("zeod_tests_states_app")
    module.PContact = type("PContact", (), {"protobuf_type": messages.Contact})  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    return module.__name__


def test_by_field_numbers() -> None:
    assert list(States().lines(RECORD)) == [
        "state by field numbers:",
        "    1: 1",
        '    2: "Bob\\nBöb"',
        "    3 {",
        '        2: "Xanten"',
        '        3: "a"',
        '        3: "b"',
        "    }",
        "    4 {",
        "        1: 3",
        "    }",
        "    6: 0x3ff0000000000000",
        "    7 {",
        '        1: "a"',
        "        2: 18446744073709551615",
        "    }",
        *REFIDS,
    ]
    shown = States().fields(RECORD)
    assert isinstance(shown, dict)
    assert shown["message"] is None
    assert shown["fields"]["3"] == [{"2": ["Xanten"], "3": ["a", "b"]}]
    assert shown["refids"][1] == {"refid": 4, "oid": "0x2b", "class": None, "database": None, "weak": True}


def test_by_the_schema_in_a_file(described: str) -> None:
    states = States([described], [AS_MESSAGE])
    lines = list(states.lines(RECORD))
    assert lines[:2] == ["state, contacts.Contact:", "    create_time: 1"]
    assert "    address {" in lines
    assert '      city: "Xanten"' in lines
    assert lines[-3:] == REFIDS
    shown = states.fields(RECORD)
    assert isinstance(shown, dict)
    assert shown["message"] == "contacts.Contact"
    assert shown["fields"]["address"] == {"city": "Xanten", "lines": ["a", "b"]}
    other = encode(ObjectRecord(ClassMetadata("app", "Other"), b"\x08\x01"))
    assert list(states.lines(other)) == ["state by field numbers:", "    1: 1"]


def test_by_the_classes_of_a_module(with_class: str) -> None:
    record = encode(ObjectRecord(ClassMetadata(with_class, "PContact"), CONTACT.SerializeToString()))
    assert next(States([with_class]).lines(record)) == "state, contacts.Contact:"
    assert next(States().lines(record)) == "state by field numbers:"  # loaded by chance, but nobody named it


def test_a_state_that_is_none_of_the_message(described: str) -> None:
    bad = encode(ObjectRecord(messages.PCONTACT, b"\x0a\xff"))
    first, second = States([described], [AS_MESSAGE]).lines(bad)
    assert first.startswith("state by field numbers (contacts.Contact does not fit: ")
    assert second == "    no message: 0x0aff"


def test_a_compressed_record() -> None:
    assert States().fields(b".z" + zlib.compress(RECORD)) == States().fields(RECORD)


def test_records_without_a_message_have_nothing_to_show() -> None:
    for data in (None, node(), RECORD[:-1], b".zdamaged"):
        assert list(States().lines(data)) == []
        assert States().fields(data) is None


@pytest.mark.parametrize(
    ("given_schemas", "given_messages", "told"),
    [
        (["no_such_module"], [], "'no_such_module' is no file, and no module"),
        ([], [AS_MESSAGE], "it takes CLASS=MESSAGE, and a file"),
        (["contacts.desc"], ["app.contacts.PContact"], "it takes CLASS=MESSAGE"),
        (["contacts.desc"], ["app.C=contacts.Nobody"], "there is no message contacts.Nobody"),
    ],
)
def test_wrong_options(
    described: str, monkeypatch: pytest.MonkeyPatch, given_schemas: list[str], given_messages: list[str], told: str
) -> None:
    monkeypatch.chdir(Path(described).parent)
    with pytest.raises(click.BadParameter, match=told):
        States(given_schemas, given_messages)


@given(st.binary(max_size=60))
def test_any_state_can_be_shown(state: bytes) -> None:
    record = encode(ObjectRecord(messages.PCONTACT, state))
    assert next(States().lines(record)) == "state by field numbers:"
    assert States().fields(record)


def test_a_message_within_a_message_for_ever_is_shown_to_a_depth() -> None:
    state = b"\x00"
    for _ in range(60):
        state = delimited(1, state)
    assert any("0x0a" in line for line in States().lines(encode(ObjectRecord(messages.PCONTACT, state))))


def test_in_a_process(tmp_path: Path, described: str) -> None:
    (tmp_path / "Data.fs").write_bytes(File().add((ROOT_OID, RECORD), (pack_id(0x2A), node())).content)
    options = ("--schema", described, "--message", AS_MESSAGE)
    assert "state by field numbers:\n    1: 1\n" in zeofs(tmp_path, "show", "Data.fs", "0")
    assert "    create_time: 1\n" in zeofs(tmp_path, "show", *options, "Data.fs", "0")
    (shown,) = json_lines(zeofs(tmp_path, "show", "--json", *options, "Data.fs", "0"))
    assert shown["state"]["fields"]["name"] == "Bob\nBöb"
    assert "state" not in zeofs(tmp_path, "dump", "Data.fs")
    assert "        state by field numbers:\n            1: 1\n" in zeofs(tmp_path, "dump", "--states", "Data.fs")
    (dumped,) = json_lines(zeofs(tmp_path, "dump", "--json", *options, "Data.fs"))
    assert dumped["records"][0]["state"]["message"] == "contacts.Contact"
    assert dumped["records"][1]["state"] is None
    assert "is no file, and no module" in zeofs(tmp_path, "show", "--schema", "nothing", "Data.fs", "0", status=2)
