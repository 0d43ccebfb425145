"""Registered schemas: read from a file, and used by a zeod that has none of the application's classes."""

import sys
from pathlib import Path

import pytest

from tests import protobuf_schemas as schemas
from tests.core import test_protobuf_resolve as messages
from tests.fixtures_zeod import StartZeod
from tests.server.raw_client import RawClient
from zeo_core.errors import ConfigurationError, ConflictError
from zeo_core.ids import ZERO_TID, pack_id
from zeo_server.config import load
from zeo_server.protobuf_schemas import MessageOfClass, MessageTypes, merge_rules, message_of_class

A = pack_id(1)


@pytest.fixture
def described(tmp_path: Path) -> str:
    """A file with the contacts' schema."""
    path = tmp_path / "contacts.desc"
    path.write_bytes(schemas.file_set(schemas.contacts))
    return str(path)


def test_messages_are_found_by_their_names(described: str) -> None:
    message = MessageTypes([described]).message("contacts.Contact")
    assert message.DESCRIPTOR.full_name == "contacts.Contact"
    assert message(create_time=1).SerializeToString() == b"\x08\x01"
    with pytest.raises(ValueError, match=r"contacts\.desc: there is no message contacts\.Nobody"):
        MessageTypes([described]).message("contacts.Nobody")


def test_what_is_no_schema_is_named(tmp_path: Path) -> None:
    path = tmp_path / "contacts.proto"
    path.write_text('syntax = "proto2";')
    with pytest.raises(ValueError, match=r"contacts\.proto: no FileDescriptorSet"):
        MessageTypes([str(path)])
    importing = schemas.proto2_file("a.proto", "a")
    importing.dependency.append("missing.proto")
    path.write_bytes(schemas.file_set(importing))
    with pytest.raises(ValueError, match=r"a\.proto: .*missing\.proto.*include_imports"):
        MessageTypes([str(path)])


@pytest.mark.parametrize("text", ["", "app.Contact", "Contact contacts.Contact"])
def test_a_line_names_a_class_and_its_message(text: str) -> None:
    assert message_of_class("app.C p.M a b.c") == MessageOfClass("app.C", "p.M", ("a", "b.c"))
    with pytest.raises(ValueError, match="does not name a class and its message"):
        message_of_class(text)


@pytest.mark.parametrize("path", ["name", "nothing", "address", "address.nothing", "nothing.lines", "name.lines"])
def test_sets_are_repeated_fields(described: str, path: str) -> None:
    rules = merge_rules([described], [MessageOfClass("app.C", "contacts.Contact", ("guardians", "address.lines"))])
    assert rules["app.C"].sets == {"guardians", "address.lines"}
    with pytest.raises(ValueError, match=f"contacts.Contact has no repeated field {path}"):
        merge_rules([described], [MessageOfClass("app.C", "contacts.Contact", (path,))])


CONFIGURATION = """
    <zeo>
      address 127.0.0.1:0
      <protobuf>
        descriptor-set contacts.desc
        message app.contacts.PContact contacts.Contact guardians
      </protobuf>
    </zeo>
    <mappingstorage 1>
    </mappingstorage>
"""


def test_a_server_merges_messages_of_a_registered_schema(described: str, tmp_path: Path, start_zeod: StartZeod) -> None:
    (tmp_path / "zeo.conf").write_text(CONFIGURATION)
    server = start_zeod("-C", "zeo.conf")
    with RawClient(server.address) as ann, RawClient(server.address) as ben:
        first = ann.commit({A: (ZERO_TID, messages.OLD)})
        ann.commit({A: (first, messages.COMMITTED)})
        ben.begin(7, {A: (first, messages.NEW)})
        assert ben.call("vote", 7) == (A,)
        ben.call("tpc_finish", 7)
        merged = messages.shown(ann.load(A)[0])
        assert merged["guardians"] == [messages.ALICE, messages.BOB, messages.CAROL, messages.DAVE]
        assert merged["name"] == "B"
        ann.begin(8, {A: (first, messages.record([], name="X"))})
        with pytest.raises(ConflictError, match=r"app\.contacts\.PContact"):
            ann.call("vote", 8)
        assert ann.call("server_status")["conflicts_resolved"] == 1


def test_a_configuration_with_a_wrong_name_is_refused(
    described: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "zeo.conf"
    path.write_text(CONFIGURATION.replace("contacts.Contact guardians", "contacts.Contact name"))
    with pytest.raises(ConfigurationError, match=r"contacts\.Contact has no repeated field name"):
        load(str(path))
    path.write_text(CONFIGURATION)
    assert load(str(path)).merge_rules is not None


def test_without_the_package_it_is_said_what_to_install(described: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    with pytest.raises(ValueError, match=r"contacts\.desc: reading it needs .*pip install 'zeod\[protobuf\]'"):
        MessageTypes([described])
