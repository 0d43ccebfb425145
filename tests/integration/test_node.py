"""examples/node: a program in another language reads and changes what Python has stored, and the other way round."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from persistent.mapping import PersistentMapping
from transaction import TransactionManager

import zeo_client
from tests.contract.storages import commit
from tests.core.test_protobuf_record import encoded_by_protobuf
from tests.fixtures_zeod import StartZeod, Zeod
from tests.integration import contacts_app as app
from tests.proto_compiler import generate, messages
from zeo_client.protobuf import register
from zeo_client.storage import ClientStorage
from zeo_core.ids import Oid, unpack_id
from zeo_core.protobuf_record import PREFIX, ClassMetadata, ObjectRecord, Reference, decode, encode

ROOT = Path(__file__).parent.parent.parent
NODE = ROOT / "examples" / "node"
MESSAGES = messages(NODE / "contacts.proto", NODE / "record.proto")
Contact: Any = MESSAGES["contacts.ContactPB"]
Book: Any = MESSAGES["contacts.AddressBookPB"]
PCONTACT, PBOOK = ClassMetadata("contacts", "Contact"), ClassMetadata("contacts", "AddressBook")
PATIENCE_S = 60


def needed_node() -> str:
    """Return the path of Node. Who asks for these tests is told what is missing, not passed over."""
    found = shutil.which("node")
    if found is None:
        pytest.fail("Node is not installed, and nothing of examples/node was tested: it needs Node 18 or later")
    if not (NODE / "node_modules").is_dir():
        pytest.fail(f"the packages of examples/node are not installed: run `npm ci` in {NODE}, or `make test-node`")
    return found


@pytest.fixture
def node() -> str:
    """The path of Node."""
    return needed_node()


@pytest.fixture
def server(start_zeod: StartZeod) -> Zeod:
    return start_zeod("-f", "Data.fs")


@pytest.fixture
def storage(server: Zeod) -> Iterator[ClientStorage]:
    opened = ClientStorage(server.address)
    yield opened
    opened.close()


def contact(name: str, *guardians: Oid, **fields: Any) -> bytes:
    """Return a contact's record."""
    numbers = range(1, len(guardians) + 1)
    message = Contact(name=name, guardians=[{"_p_refid": number} for number in numbers], **fields)
    references = (Reference(refid, unpack_id(oid), PCONTACT) for refid, oid in zip(numbers, guardians, strict=True))
    return encode(ObjectRecord(PCONTACT, message.SerializeToString(), tuple(references)))


def fill(server: Zeod, storage: ClientStorage) -> tuple[Oid, Oid]:
    """Make a book with two contacts, in a database whose root has other things too; return the contacts' oids."""
    with zeo_client.open(server.url) as db, db.transaction() as conn:
        conn.root()["book"] = PersistentMapping()
        conn.root()["café"] = PersistentMapping({"number": 1})
    with zeo_client.open(server.url) as db, db.transaction() as conn:
        book = conn.root()["book"]._p_oid
    ann, bob = storage.new_oid(), storage.new_oid()
    listed = Book(contacts=[{"_p_refid": 1}, {"_p_refid": 2}]).SerializeToString()
    references = Reference(1, unpack_id(ann), PCONTACT), Reference(2, unpack_id(bob), PCONTACT)
    home = {"street": "1 Road", "city": "Xanten"}
    commit(storage, {ann: contact("Ann", address=home, seen=2**40), bob: contact("Bob", ann)})
    commit(storage, {book: encode(ObjectRecord(PBOOK, listed, references))})
    return ann, bob


def run_node(node: str, server: Zeod, *arguments: str, status: int = 0) -> str:
    address = server.url.removeprefix("zeo://")
    command = [node, str(NODE / "contacts.mjs"), address, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr if status else done.stdout


def awaited(storage: ClientStorage, oid: Oid, before: bytes) -> bytes:
    """Return the object's record as soon as the storage has heard of the change."""
    deadline_s = time.monotonic() + PATIENCE_S
    while (data := storage.load(oid)[0]) == before:
        assert time.monotonic() < deadline_s, "the change was not told"
        time.sleep(0.01)
    return data


def test_the_envelope_in_the_example_is_ours() -> None:
    reference = Reference(1, 2**64 - 1, PCONTACT, "other")
    for value in (ObjectRecord(PCONTACT, b"x", (reference,)), ObjectRecord(PBOOK, b"", (Reference(7, 0, weak=True),))):
        read = MESSAGES["zeod.ObjectRecord"].FromString(encoded_by_protobuf(value).removeprefix(PREFIX))
        assert read.class_meta.class_name == value.class_meta.class_name
        assert PREFIX + read.SerializeToString() == encode(value)
    told = (ROOT / "docs" / "topics" / "records.md").read_text("utf-8")
    _, _, schema = (NODE / "record.proto").read_text("utf-8").partition("\nmessage ClassMetadata")
    assert schema
    assert schema in told


def test_a_record_is_read_with_nothing_but_the_schema(server: Zeod, storage: ClientStorage) -> None:
    """No class of the application, and none of ours: the package protobuf and two .proto files."""
    ann, bob = fill(server, storage)
    record = MESSAGES["zeod.ObjectRecord"].FromString(storage.load(bob)[0].removeprefix(b"{protobuf}"))
    bobs = Contact.FromString(record.state)
    (reference,) = record.references
    assert (bobs.name, bobs.guardians[0]._p_refid) == ("Bob", reference.refid)
    assert reference.zoid.to_bytes(8, "big") == ann
    assert record.class_meta.class_name == "Contact"


def run_fill(directory: Path, server: Zeod) -> list[str]:
    """Run the example's Python program, with the module that it has made of the schema."""
    if not (directory / "contacts_pb2.py").exists():
        generate(NODE / "contacts.proto", directory)
    done = subprocess.run(
        [sys.executable, str(NODE / "fill.py"), server.url],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(directory), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_program_in_python_fills_a_database(server: Zeod, tmp_path: Path) -> None:
    filled = ["Ann, Xanten; guardians: none", "Bob, nowhere; guardians: Ann"]
    assert run_fill(tmp_path, server) == filled
    assert run_fill(tmp_path, server) == filled


@pytest.mark.node
def test_both_programs_of_the_example_on_one_database(node: str, server: Zeod, tmp_path: Path) -> None:
    run_fill(tmp_path, server)
    assert run_node(node, server, "Bob", "Ypres").splitlines()[:2] == [
        "Ann (objects.Contact): 1 Road, Xanten; guardians: none",
        "Bob (objects.Contact): no address; guardians: Ann",
    ]
    assert run_fill(tmp_path, server) == ["Ann, Xanten; guardians: none", "Bob, Ypres; guardians: Ann"]


@pytest.mark.node
def test_node_shows_what_python_stored(node: str, server: Zeod, storage: ClientStorage) -> None:
    fill(server, storage)
    assert run_node(node, server).splitlines() == [
        "Ann (contacts.Contact): 1 Road, Xanten; guardians: none",
        "Bob (contacts.Contact): no address; guardians: Ann",
    ]


@pytest.mark.node
def test_python_sees_what_node_changed(node: str, server: Zeod, storage: ClientStorage) -> None:
    ann, bob = fill(server, storage)
    before, before_bob = storage.load(ann)[0], storage.load(bob)[0]
    assert "moved Ann to Ypres in transaction 0x" in run_node(node, server, "Ann", "Ypres")
    changed = decode(awaited(storage, ann, before))
    assert Contact.FromString(changed.state) == Contact(
        name="Ann", address={"street": "1 Road", "city": "Ypres"}, seen=2**40 + 1
    )
    assert changed._replace(state=b"") == decode(before)._replace(state=b"")
    run_node(node, server, "Bob", "Genua")
    moved = decode(awaited(storage, bob, before_bob))
    assert Contact.FromString(moved.state).address.city == "Genua"
    assert moved.references == decode(before_bob).references
    assert run_node(node, server).splitlines()[1] == "Bob (contacts.Contact): , Genua; guardians: Ann"
    assert storage.history(ann, 1)[0]["description"] == b"moved Ann to Ypres"


@pytest.mark.node
def test_python_objects_change_under_a_program_that_has_them_open(node: str, server: Zeod) -> None:
    register()
    with zeo_client.open(server.url) as db:
        with db.transaction() as conn:
            ann, bob = app.Contact(name="Ann"), app.Contact(name="Bob", address={"street": "1 Road", "city": "Xanten"})
            bob.guardians.append(ann)
            conn.root()["book"] = app.AddressBook(contacts=[ann, bob])
        conn = db.open(TransactionManager())
        bob = conn.root()["book"].contacts[1]
        assert bob.address.city == "Xanten"
        run_node(node, server, "Bob", "Ypres")
        deadline_s = time.monotonic() + PATIENCE_S
        while bob.address.city != "Ypres":
            assert time.monotonic() < deadline_s, "the change was not told"
            conn.sync()
        assert (bob.name, bob.seen, bob.guardians[0].name) == ("Bob", 1, "Ann")
        assert bob.guardians[0] is conn.root()["book"].contacts[0]
        conn.close()


@pytest.mark.node
def test_fields_of_a_later_schema_survive_a_change_by_node(node: str, server: Zeod, storage: ClientStorage) -> None:
    ann, _ = fill(server, storage)
    record = decode(storage.load(ann)[0])
    commit(storage, {ann: encode(record._replace(state=record.state + b"\xa2\x06\x05later"))})
    before = storage.load(ann)[0]
    run_node(node, server, "Ann", "Ypres")
    state = decode(awaited(storage, ann, before)).state
    assert state.endswith(b"\xa2\x06\x05later")
    assert Contact.FromString(state).address.city == "Ypres"


CONFLICTING = """
import { Zeod, oidFromNumber } from "./zeod.mjs";
const zeod = await Zeod.connect(process.argv[2]);
const object = await zeod.load(oidFromNumber(process.argv[3]));
const heard = new Promise((resolve) => (zeod.onInvalidated = resolve));
console.log("loaded");
const [oid] = await heard;
console.log(`changed by somebody else: ${oid.at(-1)}`);
try {
  await zeod.commit([object]);
} catch (error) {
  console.log(error.name);
}
await zeod.commit([await zeod.load(object.oid)]);
console.log("committed");
zeod.close();
"""


@pytest.mark.node
def test_a_change_of_what_somebody_else_has_changed_is_a_conflict(
    node: str, server: Zeod, storage: ClientStorage, tmp_path: Path
) -> None:
    ann, _ = fill(server, storage)
    script = tmp_path / "conflicting.mjs"
    script.write_text(CONFLICTING.replace('"./zeod.mjs"', f'"{(NODE / "zeod.mjs").as_uri()}"'))
    address = server.url.removeprefix("zeo://")
    command = [node, str(script), address, str(unpack_id(ann))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loaded\n"
        commit(storage, {ann: contact("Ann", seen=7)})
        said = process.communicate(timeout=PATIENCE_S)[0].splitlines()
    changed = f"changed by somebody else: {ann[-1]}"
    assert said == [changed, "ZODB.POSException.ConflictError", "committed"]


@pytest.mark.node
def test_what_goes_wrong_is_said_in_a_line(node: str, server: Zeod, storage: ClientStorage) -> None:
    fill(server, storage)
    assert run_node(node, server, "Zed", "Ypres", status=1) == "contacts: there is no contact Zed\n"
    server.stop()
    assert "contacts: connect ECONNREFUSED" in run_node(node, server, status=1)
