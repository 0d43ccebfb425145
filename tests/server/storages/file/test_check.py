"""The check: silent on good files, ZODB's among them; loud on every kind of damage, as ZODB's fstest is."""

from pathlib import Path
from random import Random

import pytest
from ZODB.scripts import fstest

from tests.records import message_node
from tests.server.storages.file.build import File
from tests.server.storages.file.damaged import zodb_file
from tests.server.storages.file.test_graph import record
from zeo_core.ids import ROOT_OID, pack_id
from zeo_core.storage import Progress
from zeo_server.storages.file.check import Check

A, B, C = pack_id(1), pack_id(2), pack_id(3)


def checked(directory: Path, content: bytes, *, read_records: bool = False) -> Check:
    path = directory / "Data.fs"
    path.write_bytes(content)
    check = Check(str(path), read_records=read_records)
    steps = list(check.steps())
    assert steps[-1].done_bytes == steps[-1].total_bytes
    assert steps == sorted(steps)
    assert all(isinstance(step, Progress) for step in steps)
    return check


def peer_is_content(path: Path) -> bool:
    """Tell whether ZODB's fstest finds nothing."""
    try:
        fstest.check(str(path))
    except Exception:  # noqa: BLE001 - damage makes it raise anything
        return False
    return True


def test_a_file_of_zodbs_is_good(tmp_path: Path) -> None:
    content = zodb_file(tmp_path / "Data.fs")
    check = checked(tmp_path, content, read_records=True)
    assert check.faults == []
    assert (check.transactions, check.objects, check.index, check.tail) == (8, 7, "agrees", "")


def test_a_packed_file_of_zodbs_is_good(tmp_path: Path) -> None:
    import time

    from ZODB.FileStorage import FileStorage
    from ZODB.serialize import referencesf

    zodb_file(tmp_path / "Data.fs")
    storage = FileStorage(str(tmp_path / "Data.fs"))
    storage.pack(time.time(), referencesf)
    storage.close()
    check = Check(str(tmp_path / "Data.fs"), read_records=True)
    list(check.steps())
    assert check.faults == []


def good() -> File:
    file = File().add((ROOT_OID, record(A)), (A, record())).add((A, record(B)), (B, record()))
    return file.add((A, file.records[0][1]), (A, record())).add((B, 0))


def test_repeated_and_doubled_records_and_deletions_are_good(tmp_path: Path) -> None:
    assert checked(tmp_path, good().content, read_records=True).faults == []


def test_every_field_is_looked_at(tmp_path: Path) -> None:
    file = good()
    second, (a_record, b_record) = file.starts[1], file.records[1]
    for position, data, told_at, reason in (
        (second, pack_id(1), second, "tids do not grow"),
        (second + 8, pack_id(77), second, "lengths disagree"),
        (second + 16, b"x", second, "no transaction header"),
        (a_record, B, a_record, "its previous record"),
        (a_record + 8, pack_id(9), a_record, "a record with the tid"),
        (a_record + 16, pack_id(0), a_record, "leads back to byte 0"),
        (a_record + 16, pack_id(5), a_record, "its previous record"),
        (a_record + 16, pack_id(file.records[0][0]), a_record, "its previous record"),
        (a_record + 24, pack_id(4), a_record, "no data record of the transaction"),
        (a_record + 32, b"\0\1", a_record, "no data record of the transaction"),
        (b_record + 34, pack_id(3), b_record + 45, "ends inside a data header"),
        (b_record + 34, pack_id(500), second, "the records of the transaction end"),
        (file.records[2][0] + 42, pack_id(2**30), file.records[2][0], "which is not earlier"),
        (file.records[2][0] + 42, pack_id(file.records[0][0]), file.records[2][0], "what it repeats"),
    ):
        check = checked(tmp_path, file.patched(position, data))
        told = [fault for fault in check.faults if fault.position == told_at and reason in fault.reason]
        assert told, (reason, check.faults)
        assert str(told[0]).startswith(f"{tmp_path}/Data.fs: at byte {told_at}: ")


def test_dangling_references_and_unreadable_records(tmp_path: Path) -> None:
    file = File().add((ROOT_OID, record(A, C)), (A, record(B)), (B, b"no pickle")).add((B, 0), (A, b"junk"))
    content = file.content
    assert checked(tmp_path, content).faults == []
    reasons = [fault.reason for fault in checked(tmp_path, content, read_records=True).faults]
    assert reasons[0] == "oid 0x00 refers to oid 0x03, which does not exist"
    assert reasons[1].startswith("the record of oid 0x01 cannot be read")
    assert len(reasons) == 2
    deleted = File().add((ROOT_OID, record(A)), (A, record())).add((A, 0))
    assert checked(tmp_path, deleted.content, read_records=True).fault_count == 1


def test_references_from_records_with_protobuf_messages(tmp_path: Path) -> None:
    damaged = message_node(A)[:-1]
    file = File().add(
        (ROOT_OID, message_node(A, C)), (A, message_node(ROOT_OID, weak=(C,), foreign=(C,))), (B, damaged)
    )
    reasons = [fault.reason for fault in checked(tmp_path, file.content, read_records=True).faults]
    assert reasons[0] == "oid 0x00 refers to oid 0x03, which does not exist"
    assert reasons[1].startswith("the record of oid 0x02 cannot be read: no protobuf object record: cut off")
    assert len(reasons) == 2


def test_the_index_is_compared(tmp_path: Path) -> None:
    content = zodb_file(tmp_path / "Data.fs")
    index = (tmp_path / "Data.fs.index").read_bytes()
    more = zodb_file(tmp_path / "Other.fs", 9)
    assert checked(tmp_path, content).index == "agrees"
    assert checked(tmp_path, more).index == "wrong"
    wrong = index.replace(pack_id(4)[2:], pack_id(6)[2:])
    (tmp_path / "Data.fs.index").write_bytes(wrong if wrong != index else index[:-30] + b"\x07" + index[-29:])
    assert checked(tmp_path, content).index in ("wrong", "unreadable")
    (tmp_path / "Data.fs.index").unlink()
    assert checked(tmp_path, content).index == "missing"


def test_an_index_of_an_earlier_end_agrees_as_far_as_it_goes(tmp_path: Path) -> None:
    content = zodb_file(tmp_path / "Data.fs")
    path = tmp_path / "Data.fs"
    tail = File(content=b"FS30").add((A, b"x")).content[4:]
    path.write_bytes(content + tail[:16] + b"c" + tail[17:])
    check = Check(str(path))
    list(check.steps())
    assert check.fault_count == 1  # its tid, 1, is of the past: a tail in name only
    assert check.index == f"agrees up to byte {len(content)}"


@pytest.mark.parametrize("seed", range(3))
def test_what_zodbs_fstest_finds_is_found(tmp_path: Path, seed: int) -> None:
    content = zodb_file(tmp_path / "Data.fs")
    random = Random(seed)
    path = tmp_path / "Data.fs"
    for _ in range(60):
        at = random.randrange(4, len(content))
        if random.random() < 0.2:
            damaged = content[:at]
        else:
            damaged = content[:at] + bytes([content[at] ^ (1 << random.randrange(8))]) + content[at + 1 :]
        check = checked(tmp_path, damaged)
        if not peer_is_content(path):
            assert check.fault_count or check.tail, f"byte {at}"
