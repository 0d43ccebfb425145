"""References between current objects."""

from pathlib import Path

import pytest

from tests.records import message_node
from tests.server.storages.file.build import File
from tests.server.storages.file.damaged import zodb_file
from zeo_core.errors import FileFormatError
from zeo_core.ids import ROOT_OID, pack_id
from zeo_server.storages.file.graph import Graph, Reference, safe_class_name

A, B, C = pack_id(1), pack_id(2), pack_id(3)


def record(*oids: bytes) -> bytes:
    """A record of a class x.Y that refers to `oids`: pickles written by hand."""
    persistent_ids = b"".join(b"C\x08" + oid + b"Q" for oid in oids)
    return b"\x80\x03cx\nY\n.\x80\x03(" + persistent_ids + b"t."


def graph_of(directory: Path, file: File) -> Graph:
    path = directory / "Data.fs"
    path.write_bytes(file.content)
    return Graph(str(path))


def found(steps: object) -> list[Reference]:
    assert hasattr(steps, "__iter__")
    return [step for step in steps if isinstance(step, Reference)]


def test_who_refers_to_an_object(tmp_path: Path) -> None:
    file = File().add((ROOT_OID, record(A, B)), (A, record(B)), (B, record())).add((A, record()))
    graph = graph_of(tmp_path, file)
    assert found(graph.referrers(B)) == [Reference(ROOT_OID, "x.Y", B, file.records[0][0])]
    assert found(graph.referrers(C)) == []


def test_dangling_references(tmp_path: Path) -> None:
    file = File().add((ROOT_OID, record(A, C)), (A, record(B)), (B, record())).add((B, 0))
    graph = graph_of(tmp_path, file)
    assert found(graph.dangling()) == [
        Reference(ROOT_OID, "x.Y", C, file.records[0][0]),
        Reference(A, "x.Y", B, file.records[0][1]),
    ]


def test_references_from_records_with_protobuf_messages(tmp_path: Path) -> None:
    file = File().add((ROOT_OID, record(A)), (A, message_node(B, weak=(C,), foreign=(C,))), (B, message_node(C)))
    graph = graph_of(tmp_path, file)
    assert found(graph.referrers(B)) == [Reference(A, "nowhere.Node", B, file.records[0][1])]
    assert found(graph.dangling()) == [Reference(B, "nowhere.Node", C, file.records[0][2])]


def test_a_record_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    file = File().add((ROOT_OID, b"no pickle"))
    graph = graph_of(tmp_path, file)
    assert found(graph.dangling()) == []
    assert [entry[:2] for entry in graph.unreadable] == [(file.records[0][0], ROOT_OID)]
    assert safe_class_name(b"no pickle") == "(unreadable record)"


def test_a_file_of_zodbs_has_no_dangling_references(tmp_path: Path) -> None:
    zodb_file(tmp_path / "Data.fs")
    graph = Graph(str(tmp_path / "Data.fs"))
    assert found(graph.dangling()) == []
    assert {reference.source_class for reference in found(graph.referrers(A))} == {
        "persistent.mapping.PersistentMapping"
    }


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    file = File().add((ROOT_OID, record())).add((A, record()))
    (tmp_path / "Data.fs").write_bytes(file.patched(file.starts[0] + 16, b"x"))
    with pytest.raises(FileFormatError):
        Graph(str(tmp_path / "Data.fs"))
