"""Exports: what goes into them, what is taken in, and that a bad one changes nothing."""

import contextlib
import io
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import pytest
from BTrees.OOBTree import OOBTree
from hypothesis import given, settings
from hypothesis import strategies as st
from persistent.wref import WeakRef

from tests.client.objects import Node, Plain, Session, WithNewArgs, write
from tests.records import message_node, node
from zeo_client.blob import Blob
from zeo_client.broken import PersistentBroken
from zeo_client.connection import Connection
from zeo_client.db import DB
from zeo_core.errors import ConnectionStateError, ExportError, POSKeyError, StateLoadError, Unsupported
from zeo_core.ids import ROOT_OID, pack_id
from zeo_core.record import references
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage


@pytest.fixture
def with_blobs(tmp_path: Path) -> Iterator[DB]:
    with DB(FileStorage(tmp_path / "Data.fs", blob_dir=tmp_path / "blobs")) as db:
        yield db


@pytest.fixture
def gone() -> Iterator[ModuleType]:
    """A module with classes, which a test takes away."""
    module = ModuleType("zeod_tests_export_gone")
    for name, base in (("Thing", Node), ("Part", Plain)):
        setattr(module, name, type(name, (base,), {"__module__": module.__name__}))
    sys.modules[module.__name__] = module
    yield module
    sys.modules.pop(module.__name__, None)


def site() -> Node:
    """Return something to export."""
    site = Node(title="site")
    site.shared = Node(parent=site)  # a circle
    site.plain = Plain(shared=site.shared, values=[1, "text", b"bytes"])
    site.tree = OOBTree({f"key {number:03}": Node(number=number, site=site) for number in range(100)})
    site.keyed = WithNewArgs("key")
    site.weak = WeakRef(site.shared)
    return site


def check(site: Any) -> None:
    assert site.shared.parent is site
    assert site.plain == Plain(shared=site.shared, values=[1, "text", b"bytes"])
    assert [node.number for node in site.tree.values()] == list(range(100))
    assert all(node.site is site for node in site.tree.values())
    site.tree._check()
    assert site.keyed.__getnewargs__() == ("key",)
    assert site.weak() is site.shared


def exported(conn: Connection, obj: Any) -> io.BytesIO:
    file = io.BytesIO()
    assert conn.exportFile(obj._p_oid, file) is file
    file.seek(0)
    return file


def test_what_was_exported_is_imported_with_other_oids(ann: Session) -> None:
    ann.root["site"] = site()
    ann.commit()
    with DB(MappingStorage()) as other:
        user = Session(other)
        user.root["first"] = Node()
        user.root["site"] = user.conn.importFile(exported(ann.conn, ann.root["site"]), clue="imported")
        check(user.root["site"])
        user.commit()
        user.conn.cacheMinimize()
        check(user.root["site"])
        assert user.root["site"]._p_oid != ann.root["site"]._p_oid
        (line,) = other.storage.undoLog(0, 1)  # type: ignore[attr-defined]
        assert line["description"] == b"imported"


def test_within_one_database_it_is_a_copy(ann: Session) -> None:
    ann.root["site"] = site()
    ann.commit()
    ann.root["copy"] = copy = ann.conn.importFile(exported(ann.conn, ann.root["site"]))
    copy.title = "copy"
    ann.commit()
    check(ann.root["site"])
    check(ann.root["copy"])
    assert ann.root["site"].title == "site"
    assert not {node._p_oid for node in copy.tree.values()} & {node._p_oid for node in ann.root["site"].tree.values()}


def test_to_and_from_a_file_of_a_name(ann: Session, tmp_path: Path) -> None:
    ann.root["node"] = Node(x=1)
    ann.commit()
    for path in (str(tmp_path / "a.zexp"), tmp_path / "b.zexp"):
        with ann.conn.exportFile(ann.root["node"]._p_oid, path) as file:
            assert file.name == str(path)
        assert ann.conn.importFile(path).x == 1
    with ann.conn.exportFile(ann.root["node"]._p_oid) as temporary:
        temporary.seek(0)
        assert ann.conn.importFile(temporary).x == 1


def test_a_failed_export_leaves_no_file(ann: Session, tmp_path: Path) -> None:
    with pytest.raises(POSKeyError):
        ann.conn.exportFile(pack_id(77), str(tmp_path / "file"))
    assert not (tmp_path / "file").exists()


def test_an_imported_object_goes_with_an_abort_or_a_rollback(ann: Session) -> None:
    ann.root["node"] = Node(x=1)
    ann.commit()
    file = exported(ann.conn, ann.root["node"])
    ann.root["changed"] = 1
    before = ann.manager.savepoint()
    copy = ann.conn.importFile(file)
    oid = copy._p_oid
    ann.root["copy"] = copy
    before.rollback()
    assert "copy" not in ann.root
    assert ann.root["changed"] == 1
    with pytest.raises(POSKeyError):
        ann.conn.get(oid)
    file.seek(0)
    oid = ann.conn.importFile(file)._p_oid
    ann.manager.abort()
    with pytest.raises(POSKeyError):
        ann.conn.get(oid)


def test_blobs_go_along(with_blobs: DB, ann: Session, tmp_path: Path) -> None:
    user = Session(with_blobs)
    user.root["pictures"] = Node(large=Blob(b"x" * 3_000_000), empty=Blob(), again=None)
    user.root["pictures"].again = user.root["pictures"].large
    user.commit()
    file = exported(user.conn, user.root["pictures"])
    user.root["copy"] = copy = user.conn.importFile(file)
    with copy.large.open() as data:
        assert data.read() == b"x" * 3_000_000
    user.commit()
    assert copy.again is copy.large is not user.root["pictures"].large
    with copy.large.open("c") as data, copy.empty.open("c") as nothing:
        assert (data.read(), nothing.read()) == (b"x" * 3_000_000, b"")
    file.seek(0)
    with pytest.raises(Unsupported, match="Importing Blobs in"):
        ann.conn.importFile(file)
    ann.commit()
    assert len(ann.conn.db().storage) == 1  # type: ignore[arg-type]
    file.seek(0)
    file.truncate(file.getbuffer().nbytes - 100)
    with pytest.raises(ExportError, match="cut off"):
        user.conn.importFile(file)
    user.commit()
    assert list((tmp_path / "blobs" / "tmp").iterdir()) == []


def test_what_a_savepoint_has_is_exported(with_blobs: DB) -> None:
    user = Session(with_blobs)
    user.root["node"] = node = Node(x=1, blob=Blob(b"data"))
    user.manager.savepoint()
    node.x = 2
    copy = user.conn.importFile(exported(user.conn, node))
    assert copy.x == 1
    with copy.blob.open() as data:
        assert data.read() == b"data"


def test_lost_objects_are_left_out_and_told(ann: Session, caplog: pytest.LogCaptureFixture) -> None:
    ann.root["node"] = node = Node(lost=Node(), kept=Node(x=1))
    ann.commit()
    write(ann.conn.db().storage, {pack_id(90): ann.conn._load(node._p_oid)[0].replace(node.lost._p_oid, pack_id(91))})
    ann.manager.begin()
    copy = ann.conn.importFile(exported(ann.conn, ann.conn.get(pack_id(90))))
    assert "left out object 0x5b, which does not exist" in caplog.text
    assert copy.kept.x == 1
    with pytest.raises(POSKeyError):
        copy.lost.x  # noqa: B018


def test_weak_references_do_not_export_what_they_refer_to(ann: Session) -> None:
    ann.root["other"] = other = Node()
    ann.root["node"] = Node(weak=WeakRef(other))
    ann.commit()
    assert ann.conn.importFile(exported(ann.conn, ann.root["node"])).weak() is None


def test_objects_of_classes_that_are_gone_are_imported_unharmed(ann: Session, gone: ModuleType) -> None:
    thing = gone.Thing()
    thing.part, thing.x = gone.Part(y=2), 1
    ann.root["node"] = Node(thing=thing, classes=[gone.Part])
    ann.commit()
    file = exported(ann.conn, ann.root["node"])
    with DB(MappingStorage()) as other:
        user = Session(other)
        module = sys.modules.pop(gone.__name__)
        user.root["node"] = user.conn.importFile(file)
        assert isinstance(user.root["node"].thing, PersistentBroken)
        user.commit()
        sys.modules[gone.__name__] = module
        healed = Session(DB(other.storage)).root["node"]
        assert (healed.thing.x, healed.thing.part.y, healed.classes) == (1, 2, [gone.Part])


def test_records_with_protobuf_messages_get_the_fresh_oids_too(ann: Session) -> None:
    """No schema is needed for it, nor the class."""
    a, b, c, elsewhere = map(pack_id, (101, 102, 103, 9))
    write(ann.conn.db().storage, {a: node(b), b: message_node(c, b, weak=(a,), foreign=(elsewhere,)), c: node(a)})
    ann.conn.sync()
    storage = MappingStorage()
    with DB(storage) as other:
        user = Session(other)
        user.root["first"] = Node()
        user.root["imported"] = user.conn.importFile(exported(ann.conn, ann.conn.get(a)))
        user.commit()
        fresh_a = user.root["imported"]._p_oid
        (fresh_b,) = references(storage.load(fresh_a)[0])
        record = storage.load(fresh_b)[0]
        fresh_c = references(record)[0]
        assert record == message_node(fresh_c, fresh_b, weak=(fresh_a,), foreign=(elsewhere,))
        assert references(storage.load(fresh_c)[0]) == [fresh_a]
        assert len({a, b, c, fresh_a, fresh_b, fresh_c}) == 6


def test_other_formats_have_importers_of_their_own(ann: Session) -> None:
    def imported(conn: Connection, file: IO[bytes], clue: str) -> Any:
        return conn, file.read(), clue

    file = io.BytesIO(b"<xml>")
    assert ann.conn.importFile(file, "clue", {b"<xml": imported}) == (ann.conn, b"<xml>", "clue")


def test_a_closed_connection_neither_exports_nor_imports(ann: Session) -> None:
    ann.conn.close()
    with pytest.raises(ConnectionStateError, match="cannot export"):
        ann.conn.exportFile(ROOT_OID)
    with pytest.raises(ConnectionStateError, match="cannot import"):
        ann.conn.importFile("file")


def export_of(*records: bytes) -> bytes:
    chunks = [struct.pack(">QQ", number, len(record)) + record for number, record in enumerate(records, 1)]
    return b"ZEXP" + b"".join(chunks) + b"\xff" * 16


NODE = b"\x80\x03ctests.client.objects\nNode\nq\x00.\x80\x03}q\x01X\x01\x00\x00\x00xq\x02K\x01s."
REFERRING = b"\x80\x03ctests.client.objects\nNode\nq\x00.\x80\x03}X\x01\x00\x00\x00xC\x03abcQs."


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it begins with b'', not with b'ZEXP'"),
        (b"PK\x03\x04", r"it begins with b'PK"),
        (export_of(NODE)[:-1], "it is cut off"),
        (export_of(NODE)[:30], "it is cut off"),
        (b"ZEXP" + struct.pack(">QQ", 1, 2**63) + NODE, "it is cut off"),
        (b"ZEXP" + 2 * export_of(NODE)[4:-16] + b"\xff" * 16, "object 0x01 is in it twice"),
        (export_of(b"no pickle"), "object 0x01: .*Error"),
        (export_of(NODE, REFERRING), "object 0x02: ValueError: a reference without an oid: b'abc'"),
        (export_of(b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N."), "the blob 0x01 has no data"),
    ],
)
def test_a_malformed_export_changes_nothing(ann: Session, tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.zexp"
    path.write_bytes(content)
    ann.root["mine"] = 1
    with pytest.raises(ExportError, match=rf"bad\.zexp: cannot be imported: {reason}"):
        ann.conn.importFile(path, clue="never")
    ann.root["mine"] += 1
    ann.commit()
    assert ann.root["mine"] == 2
    assert len(ann.conn.db().storage) == 1  # type: ignore[arg-type]


def test_an_export_of_nothing_gives_nothing(ann: Session) -> None:
    assert ann.conn.importFile(io.BytesIO(export_of())) is None


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_export_is_an_export_error_or_harmless(data: st.DataObject) -> None:
    content = bytearray(export_of(NODE, NODE))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with DB(MappingStorage()) as db:
        user = Session(db)
        try:
            taken = user.conn.importFile(io.BytesIO(bytes(content)))
        except ExportError:
            user.commit()
            assert db.storage.object_count() == 1
            return
        except StateLoadError:  # the record can be read, but no object of its class can be made
            user.manager.abort()
            return
        with contextlib.suppress(StateLoadError, AttributeError):  # the damage is in what is no business of exports
            taken._p_activate()
        user.manager.abort()
