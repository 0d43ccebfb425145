"""Salvage: everything of a good file, all that can be had of a damaged one, at least what ZODB's fsrecover saves."""

import contextlib
import io
from pathlib import Path
from random import Random

import pytest
from ZODB import fsrecover

from tests.server.storages.file.build import File
from tests.server.storages.file.damaged import zodb_file
from zeo_core.errors import StorageError
from zeo_core.ids import Oid, Tid, pack_id
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file.check import Check
from zeo_server.storages.file.salvage import Salvage

A, B = pack_id(1), pack_id(2)
T1, T2, T3 = map(pack_id, range(1, 4))

Records = dict[tuple[Tid, Oid], bytes | None]


def salvaged(directory: Path, content: bytes) -> tuple[Salvage, Records]:
    (directory / "Data.fs").write_bytes(content)
    (directory / "Saved.fs").unlink(missing_ok=True)
    salvage = Salvage(str(directory / "Data.fs"), str(directory / "Saved.fs"))
    steps = list(salvage.steps())
    assert steps[-1].done_bytes == steps[-1].total_bytes
    assert (directory / "Data.fs").read_bytes() == content
    check = Check(str(directory / "Saved.fs"))
    list(check.steps())
    assert check.faults == []
    return salvage, records_of(directory / "Saved.fs")


def records_of(path: Path) -> Records:
    storage = FileStorage(path, read_only=True)
    try:
        return {(one.tid, record.oid): record.data for one in storage.transactions() for record in one.records}
    finally:
        storage.close()


def three() -> File:
    return File().add((A, b"one"), (B, b"b")).add((A, b"two" * 50)).add((A, 0), (B, b"three"))


def test_a_good_file_is_copied(tmp_path: Path) -> None:
    content = zodb_file(tmp_path / "Data.fs")
    salvage, _ = salvaged(tmp_path, content)
    assert (salvage.losses, salvage.transactions) == ([], 8)
    assert (tmp_path / "Saved.fs").read_bytes() == content


def test_what_is_lost_is_named(tmp_path: Path) -> None:
    file = three()
    second, third = file.starts[1:]
    salvage, records = salvaged(tmp_path, file.patched(second + 16, b"x"))
    assert [loss[:2] for loss in salvage.losses] == [(second, third)]
    assert str(salvage.losses[0]) == f"bytes {second} to {third}: no transaction header"
    assert set(records) == {(T1, A), (T1, B), (T3, A), (T3, B)}
    salvage, records = salvaged(tmp_path, file.patched(file.records[0][1] + 24, pack_id(7)))
    assert set(records) == {(T1, A), (T2, A), (T3, A), (T3, B)}
    assert salvage.losses[0].tid == T1


def test_pointers_are_made_anew_and_tids_taken_from_records(tmp_path: Path) -> None:
    file = three()
    salvage, records = salvaged(tmp_path, file.patched(file.records[1][0] + 16, pack_id(3)))
    assert salvage.losses == []
    salvage, same = salvaged(tmp_path, file.patched(file.starts[1], b"\x7f"))
    assert salvage.losses == []
    assert same == records


def test_a_repeated_record_that_is_lost(tmp_path: Path) -> None:
    file = three()
    for back in (len(file.content), file.records[0][1]):
        content = file.patched(file.records[2][0] + 42, pack_id(back))
        salvage, records = salvaged(tmp_path, content)
        assert (salvage.losses[0].oid, salvage.losses[0].tid) == (A, T3)
        assert (T3, B) in records


def test_an_empty_transaction_of_a_wild_tid_does_not_cost_the_others(tmp_path: Path) -> None:
    file = File().add((A, b"one")).add().add((A, b"two")).add()
    salvage, records = salvaged(tmp_path, file.patched(file.starts[1], b"\x7f"))
    assert salvage.loss_count == 1
    assert (len(records), salvage.transactions) == (2, 3)


def test_a_file_without_magic_is_salvaged_and_none_is_written_over(tmp_path: Path) -> None:
    salvage, records = salvaged(tmp_path, b"\0\0\0\0" + three().content[4:])
    assert (salvage.losses, len(records)) == ([], 5)
    with pytest.raises(StorageError, match="exists already"):
        Salvage(str(tmp_path / "Data.fs"), str(tmp_path / "Saved.fs"))


@pytest.mark.parametrize("seed", range(2))
def test_no_less_is_saved_than_by_zodbs_fsrecover(tmp_path: Path, seed: int) -> None:
    content = zodb_file(tmp_path / "Data.fs")
    everything = records_of(tmp_path / "Data.fs")
    random = Random(seed)
    for number in range(25):
        at, size = random.randrange(4, len(content)), random.choice((1, 1, 8, 200))
        damaged = content[:at] + random.randbytes(size) + content[at + size :]
        _, ours = salvaged(tmp_path, damaged)
        peer = tmp_path / f"peer{number}.fs"
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception, SystemExit):
            fsrecover.recover(str(tmp_path / "Data.fs"), str(peer), 0, partial=True, force=True)
        theirs = records_of(peer) if peer.exists() else {}
        good = {key: data for key, data in theirs.items() if everything.get(key) == data}
        assert good.items() <= ours.items(), f"{size} bytes at {at}"
