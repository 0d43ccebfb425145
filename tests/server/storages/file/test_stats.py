"""Counting by class, against what the records say."""

from collections import Counter
from pathlib import Path

import pytest

from tests.records import message_node
from tests.server.storages.file.build import File
from tests.server.storages.file.damaged import zodb_file
from tests.server.storages.file.test_graph import record
from zeo_core.errors import FileFormatError
from zeo_core.ids import ROOT_OID, pack_id
from zeo_core.record import class_name
from zeo_server.storages.file import FileStorage, stats
from zeo_server.storages.file.stats import ClassStats, Stats

A, B, C = pack_id(1), pack_id(2), pack_id(3)


def counted(path: Path) -> Stats:
    done = Stats(str(path))
    steps = list(done.steps())
    assert steps[-1].done_bytes == steps[-1].total_bytes
    return done


def test_objects_as_they_are_now_and_records(tmp_path: Path) -> None:
    x, large = record(), record(A, B)
    file = File().add((ROOT_OID, large), (A, x), (B, b"no pickle")).add((A, large))
    file.add((A, file.records[0][1])).add((ROOT_OID, 0))
    (tmp_path / "Data.fs").write_bytes(file.content)
    done = counted(tmp_path / "Data.fs")
    assert done.classes == [
        ClassStats("x.Y", 1, len(x), len(x), 1, 3, len(x) + 2 * len(large)),
        ClassStats("(unreadable record)", 1, 9, 9, 2, 1, 9),
    ]
    assert (done.transactions, done.records, done.objects, done.deleted) == (4, 6, 2, 1)
    assert (done.first_tid, done.last_tid) == (pack_id(1), pack_id(4))


def test_against_a_walk_over_a_file_of_zodbs(tmp_path: Path) -> None:
    zodb_file(tmp_path / "Data.fs", 30)
    done = counted(tmp_path / "Data.fs")
    storage = FileStorage(tmp_path / "Data.fs", read_only=True)
    records = [entry for one in storage.transactions() for entry in one.records]
    current = {entry.oid: entry.data for entry in records}
    storage.close()
    objects = Counter(class_name(data) for data in current.values() if data is not None)
    assert {one.name: one.objects for one in done.classes} == objects
    assert sum(one.bytes for one in done.classes) == sum(len(data or b"") for data in current.values())
    assert done.records == len(records)


def test_records_that_do_not_begin_with_their_class_and_long_ones(tmp_path: Path) -> None:
    import pickle

    old = pickle.dumps((("module", "Name"), None), 1) + pickle.dumps({}, 1)
    long = record() + b"x" * 2_000_000
    nameless = b"\x80\x03" + b"c" + b"m" * 300 + b"\nLong\n." + b"N."
    file = File().add((A, old), (B, long), (C, nameless)).add((A, old))
    (tmp_path / "Data.fs").write_bytes(file.content)
    classes = {one.name: (one.objects, one.records) for one in counted(tmp_path / "Data.fs").classes}
    assert classes == {"module.Name": (1, 2), "x.Y": (1, 1), "m" * 300 + ".Long": (1, 1)}


def test_records_with_protobuf_messages(tmp_path: Path) -> None:
    (tmp_path / "Data.fs").write_bytes(
        File()
        .add((ROOT_OID, record(A)), (A, message_node(B)), (B, message_node(name="Leaf")), (C, message_node()))
        .content
    )
    counts = {entry.name: entry.objects for entry in counted(tmp_path / "Data.fs").classes}
    assert counts == {"x.Y": 1, "nowhere.Node": 2, "nowhere.Leaf": 1}


def test_too_many_classes_are_counted_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "_MAX_CLASSES", 5)
    objects = [(pack_id(number), b"\x80\x03cm\nC%d\n.N." % number) for number in range(9)]
    (tmp_path / "Data.fs").write_bytes(File().add(*objects).content)
    classes = {one.name: one.objects for one in counted(tmp_path / "Data.fs").classes}
    assert classes["(other classes)"] == 6


def test_damage_is_named_and_a_tail_is_left_out(tmp_path: Path) -> None:
    file = File().add((A, record())).add((B, record()))
    path = tmp_path / "Data.fs"
    path.write_bytes(file.patched(file.starts[1] + 16, b"c"))
    assert counted(path).objects == 1
    path.write_bytes(file.patched(file.records[0][0] + 24, pack_id(9)))
    with pytest.raises(FileFormatError, match=f"at byte {file.records[0][0]}"):
        counted(path)
    path.write_bytes(file.patched(file.starts[0] + 16, b"x"))
    with pytest.raises(FileFormatError, match="at byte 4"):
        counted(path)
