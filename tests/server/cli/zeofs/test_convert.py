"""`zeofs convert` in a process, with an application's module beside the file."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.proto_compiler import described
from tests.server.cli.zeofs.run import json_lines, zeofs

SCHEMA = Path(__file__).parents[4] / "examples" / "node" / "contacts.proto"

PICKLED = """
from persistent import Persistent

class Contact(Persistent):
    pass
"""

WITH_MESSAGE = """
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from zeo_client.protobuf import ProtobufPersistent

with open("contacts.desc", "rb") as file:
    (described,) = descriptor_pb2.FileDescriptorSet.FromString(file.read()).file
descriptor_pool.Default().AddSerializedFile(described.SerializeToString())
ContactPB = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName("contacts.ContactPB"))

class Contact(ProtobufPersistent, message=ContactPB):
    pass
"""

FILL = """
import zeo_client, contacts_app
from persistent.mapping import PersistentMapping

with zeo_client.open("Data.fs") as db, db.transaction() as conn:
    for name in ("ann", "bob", "eve"):
        contact = conn.root()[name] = contacts_app.Contact()
        contact.name = name
    conn.root()["bob"].guardians = [conn.root()["ann"]]
    conn.root()["eve"].secret = 1
"""

CHECK = """
import zeo_client, zeo_client.protobuf
zeo_client.protobuf.register()
with zeo_client.open("Data.fs") as db, db.transaction() as conn:
    assert conn.root()["bob"].guardians[0] is conn.root()["ann"]
    assert [conn.root()[name].name for name in ("ann", "bob")] == ["ann", "bob"]
"""

CONVERT = ("convert", "--to", "protobuf", "--class", "contacts_app.Contact")


def python(directory: Path, program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], cwd=directory, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A database with three pickled objects, one of them with an attribute too many, beside the new application."""
    (tmp_path / "contacts_app.py").write_text(PICKLED)
    python(tmp_path, FILL)
    (tmp_path / "contacts_app.py").write_text(WITH_MESSAGE)
    (tmp_path / "contacts.desc").write_bytes(described(SCHEMA))
    return tmp_path


def test_a_dry_run_first_then_all_or_what_can_be(directory: Path) -> None:
    before = (directory / "Data.fs").read_bytes()
    told = zeofs(directory, *CONVERT, "--dry-run", "Data.fs", status=1)
    assert "Data.fs: 2 objects to convert, " in told
    assert "contacts_app.Contact  AttributeError: contacts.ContactPB has no field 'secret'" in told
    assert "Data.fs: 1 object cannot be converted\n" in told
    assert "nothing was converted; --skip leaves out what cannot be" in zeofs(directory, *CONVERT, "Data.fs", status=1)
    assert (directory / "Data.fs").read_bytes() == before
    assert zeofs(directory, *CONVERT, "--skip", "Data.fs", status=1).endswith("Data.fs: 2 objects converted\n")
    assert "0 objects to convert, 0 B as pickles, 0 B with messages; 2 objects converted before\n" in zeofs(
        directory, *CONVERT, "--dry-run", "Data.fs", status=1
    )
    python(directory, CHECK)
    assert "no faults" in zeofs(directory, "check", "Data.fs")
    (stats,) = json_lines(zeofs(directory, "show", "--json", "--schema", "contacts_app", "Data.fs", "2"))
    assert stats["state"]["message"] == "contacts.ContactPB"


def test_what_keeps_it_from_its_work(directory: Path) -> None:
    assert "Missing.fs: there is no such file" in zeofs(directory, *CONVERT, "Missing.fs", status=2)
    assert not (directory / "Missing.fs").exists()
    assert "no module named 'missing'" in zeofs(directory, *CONVERT, "--import", "missing", "Data.fs", status=2).lower()
    assert "Missing option '--class'" in zeofs(directory, "convert", "--to", "protobuf", "Data.fs", status=2)
    program = f"import sys, runpy; sys.modules['google.protobuf'] = None; sys.argv = {['zeofs', *CONVERT, 'Data.fs']!r}"
    command = [sys.executable, "-c", f"{program}; runpy.run_module('zeo_server.cli.zeofs.main', run_name='__main__')"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "pip install 'zeod[protobuf]' brings what is needed" in done.stderr
