"""FileStorage as a whole: making, locking, closing, failing."""

import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.contract.storages import commit
from tests.server.storages.file.build import File
from tests.server.storages.file.test_writer import file_size_limit, prepared
from zeo_core.errors import (
    FileFormatError,
    FileLockedError,
    POSKeyError,
    ReadOnlyError,
    StorageClosedError,
    StorageError,
    StorageFullError,
)
from zeo_core.ids import MAX_TID, ZERO_TID, Oid, Tid, pack_id
from zeo_core.storage import Commits, Iterates, Loads, Transacts
from zeo_server.status import Measured
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file import storage as storage_module
from zeo_server.storages.mapping import MappingStorage

A, B = pack_id(1), pack_id(2)


def test_it_keeps_all_parts_of_the_contract(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path / "Data.fs")
    for part in (Loads, Iterates, Commits, Transacts):
        assert isinstance(storage, part)
    assert storage.name() == str(tmp_path / "Data.fs")
    storage.close()


@pytest.mark.parametrize("start", [None, b"", b"FS3"])
def test_a_missing_or_unfinished_file_is_made(tmp_path: Path, start: bytes | None) -> None:
    path = tmp_path / "Data.fs"
    if start is not None:
        path.write_bytes(start)
    FileStorage(path).close()
    assert path.read_bytes() == b"FS30"
    assert sorted(os.listdir(tmp_path)) == ["Data.fs", "Data.fs.lock"]


@pytest.mark.parametrize("remains", [".index", ".old", ".pack"])
@pytest.mark.parametrize("start", [None, b""])
def test_a_lost_file_is_not_taken_for_a_new_one(tmp_path: Path, remains: str, start: bytes | None) -> None:
    path = tmp_path / "Data.fs"
    if start is not None:
        path.write_bytes(start)
    (tmp_path / f"Data.fs{remains}").write_bytes(b"something")
    with pytest.raises(StorageError, match=rf"Data\.fs: is .* yet there is .*Data\.fs\{remains}"):
        FileStorage(path)
    assert path.exists() == (start is not None)
    FileStorage(path, create=True).close()
    assert path.read_bytes() == b"FS30"


def test_create_never_replaces_a_file(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path / "Data.fs", create=True)
    tid = commit(storage, {A: b"a"})
    storage.close()
    with pytest.raises(StorageError, match="exists already"):
        FileStorage(tmp_path / "Data.fs", create=True)
    storage = FileStorage(tmp_path / "Data.fs")
    assert storage.last_tid() == tid
    storage.close()


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "picture").write_bytes(b"\x89PNG....")
    cases: list[tuple[str, dict[str, Any], type[StorageError]]] = [
        ("directory", {}, StorageError),
        ("picture", {}, FileFormatError),
        ("missing", {"read_only": True}, StorageError),
        ("nowhere/Data.fs", {}, StorageError),
        ("picture/Data.fs", {}, StorageError),
        ("both", {"read_only": True, "create": True}, StorageError),
    ]
    for name, options, error in cases:
        with pytest.raises(error, match=name):
            FileStorage(tmp_path / name, **options)
    assert not (tmp_path / "missing").exists()
    FileStorage(tmp_path / "Data.fs").close()


def test_a_file_is_open_for_writing_once(tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    storage = FileStorage(path)
    with pytest.raises(FileLockedError) as caught:
        FileStorage(path)
    assert caught.value.path == str(path)
    assert str(os.getpid()) in str(caught.value)
    code = "import sys; from zeo_server.storages.file import FileStorage; FileStorage(sys.argv[1])"
    other = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert "FileLockedError" in other.stderr
    storage.close()
    FileStorage(path).close()


def test_a_failed_opening_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    file = File().add((A, b"a")).add((A, b"b"))
    path.write_bytes(file.patched(4 + 16, b"x"))
    with pytest.raises(FileFormatError):
        FileStorage(path)
    path.write_bytes(file.content)
    FileStorage(path).close()


def test_read_only_takes_no_lock_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    writing = FileStorage(path)
    tid = commit(writing, {A: b"a"})
    reading = FileStorage(path, read_only=True)
    assert reading.isReadOnly()
    assert reading.load(A) == (b"a", tid)
    commit(writing, {A: b"b"})
    assert reading.load(A) == (b"a", tid)
    for call in (
        reading.new_oid,
        lambda: reading.write_group([]),
        lambda: commit(reading, {B: b"b"}),
    ):
        with pytest.raises(ReadOnlyError, match=r"Data\.fs is read-only"):
            call()
    before = sorted(os.listdir(tmp_path))
    reading.close()
    assert sorted(os.listdir(tmp_path)) == before
    writing.close()


def test_groups_are_seen_when_they_are_published(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path / "Data.fs")
    group = storage.write_group([prepared((A, b"a")), prepared((B, b"bb")), prepared()])
    later = storage.write_group([prepared((pack_id(3), b"c"))])
    assert storage.last_tid() == ZERO_TID
    assert storage.byte_size() == 4
    assert storage.current_tid(A) is None
    assert list(storage.transactions()) == []
    with pytest.raises(POSKeyError):
        storage.load(A)
    announced: list[tuple[Tid, list[Oid], Tid]] = []
    storage.publish(group, lambda tid, oids: announced.append((tid, list(oids), storage.last_tid())))
    first, second, third = group.tids
    assert announced == [(first, [A], ZERO_TID), (second, [B], first), (third, [], second)]
    assert storage.current_tid(B) == second
    assert [t.tid for t in storage.transactions()] == list(group.tids)
    storage.publish(later)
    assert storage.load(pack_id(3)) == (b"c", later.tids[0])
    assert storage.new_oid() == pack_id(4)
    with pytest.raises(TypeError):
        storage.publish(MappingStorage().write_group([]))
    storage.close()


def test_oids_are_reserved_when_they_are_written_not_when_they_are_seen(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path / "Data.fs")
    storage.write_group([prepared((pack_id(500), b"x"))])
    assert storage.new_oid() == pack_id(501)
    storage.close()


def test_a_group_written_but_not_published_is_there_after_closing(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path / "Data.fs")
    tid = storage.write_group([prepared((A, b"a"))]).tids[0]
    storage.close()
    storage = FileStorage(tmp_path / "Data.fs")
    assert storage.load(A) == (b"a", tid)
    storage.close()


def test_close_saves_the_index_if_there_is_news(tmp_path: Path) -> None:
    index = tmp_path / "Data.fs.index"
    storage = FileStorage(tmp_path / "Data.fs")
    commit(storage, {A: b"a"})
    storage.close()
    saved = index.stat()
    FileStorage(tmp_path / "Data.fs").close()
    assert index.stat().st_mtime_ns == saved.st_mtime_ns
    assert not (tmp_path / "Data.fs.index_tmp").exists()


def test_a_long_scan_saves_the_index_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Data.fs").write_bytes(File().add((A, b"a")).content)
    monkeypatch.setattr(storage_module, "_SAVE_INDEX_AFTER_BYTES", 10)
    storage = FileStorage(tmp_path / "Data.fs")
    assert (tmp_path / "Data.fs.index").exists()
    storage.close()


def test_an_index_that_cannot_be_saved_is_only_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = FileStorage(tmp_path / "Data.fs")
    tid = commit(storage, {A: b"a"})
    (tmp_path / "Data.fs.index").mkdir()
    storage.close()
    assert "could not be saved" in caplog.text
    storage = FileStorage(tmp_path / "Data.fs")
    assert storage.load(A) == (b"a", tid)
    storage.close()


def test_a_closed_storage_refuses_everything(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path / "Data.fs")
    commit(storage, {A: b"a"})
    storage.close()
    storage.close()
    for call in (
        lambda: storage.load_before(A, MAX_TID),
        lambda: storage.load_serial(A, MAX_TID),
        lambda: storage.revisions(A, 1),
        lambda: storage.current_tid(A),
        lambda: storage.write_group([]),
        lambda: storage.transactions(),
    ):
        with pytest.raises(StorageClosedError, match=r"Data\.fs is closed"):
            call()


def test_loads_in_other_threads_survive_a_close(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path / "Data.fs")
    commit(storage, {A: b"a" * 5000})
    ends: list[BaseException] = []

    def load() -> None:
        try:
            while True:
                assert storage.load(A)[0] == b"a" * 5000
        except BaseException as error:  # noqa: BLE001 - looked at below
            ends.append(error)

    threads = [Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    storage.close()
    others = [open(os.devnull, "rb") for _ in range(5)]  # takes the descriptor's number, were it closed  # noqa: SIM115
    for thread in threads:
        thread.join()
    for other in others:
        other.close()
    assert ends
    assert all(isinstance(error, StorageClosedError) for error in ends)


def test_a_child_process_reads_without_disturbing_its_parent(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path / "Data.fs")
    tid = commit(storage, {A: b"a", B: b"b"})
    child = os.fork()
    if child == 0:
        ok = all(storage.load(oid)[1] == tid for _ in range(100) for oid in (A, B))
        os._exit(0 if ok else 1)
    for _ in range(100):
        assert storage.load(A) == (b"a", tid)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    commit(storage, {A: b"again"})
    storage.close()


def test_a_write_that_fails_leaves_the_storage_usable(tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    storage = FileStorage(path)
    tid = commit(storage, {A: b"a"})
    with file_size_limit(path.stat().st_size + 100), pytest.raises(StorageError, match=r"Data\.fs: File too large"):
        commit(storage, {A: b"x" * 1000})
    assert storage.load(A) == (b"a", tid)
    second = commit(storage, {A: b"b"})
    storage.close()
    storage = FileStorage(path)
    assert [t.tid for t in storage.transactions()] == [tid, second]
    storage.close()


def test_after_a_failed_sync_loads_go_on_and_writes_do_not(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path / "Data.fs")
    tid = commit(storage, {A: b"a"})
    assert storage._writer is not None
    # From here on the writer's descriptor is a device that takes writes and cannot be synced.
    device = os.open(os.devnull, os.O_RDWR)
    os.dup2(device, storage._writer._descriptor.fd)
    os.close(device)
    with pytest.raises(StorageError, match="Invalid argument"):
        commit(storage, {A: b"b"})
    with pytest.raises(StorageClosedError, match="closed to writes"):
        commit(storage, {A: b"c"})
    assert storage.load(A) == (b"a", tid)
    assert storage.last_tid() == tid
    storage.close()
    storage = FileStorage(tmp_path / "Data.fs")
    assert storage.load(A) == (b"a", tid)
    storage.close()


def test_a_vote_refuses_what_the_disk_has_no_room_for(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path / "Data.fs")
    storage.check_room(1000)
    with pytest.raises(StorageFullError, match=r"Data\.fs: .* bytes to store"):
        storage.check_room(2**60)
    storage.close()


def test_load_serial_of_an_unknown_object(tmp_path: Path) -> None:
    storage = FileStorage(tmp_path / "Data.fs")
    with pytest.raises(POSKeyError):
        storage.load_serial(A, ZERO_TID)
    storage.close()


def test_it_tells_what_its_index_and_its_syncs_take_also_after_a_pack(tmp_path: Path) -> None:
    with closing(FileStorage(tmp_path / "Data.fs", pack_gc=False)) as storage:
        assert isinstance(storage, Measured)
        for number in (1, 2):
            commit(storage, {pack_id(number): b"data"})
        syncs = storage.sync_seconds()
        assert syncs is not None
        assert syncs.total == 4
        assert storage.index_bytes() == 2 * 8
        for _ in storage.pack_steps(time.time()):
            pass
        assert storage.sync_seconds() == syncs
    with closing(FileStorage(tmp_path / "Data.fs", read_only=True)) as reading:
        assert reading.sync_seconds() is None
