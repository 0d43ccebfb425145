"""Packing an open storage, with the packer in its own process."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ZODB.FileStorage import FileStorage as ZODBFileStorage
from ZODB.scripts import fstest
from ZODB.serialize import referencesf

from tests.server.storages.file.graphs import commit, group, node, record, repeat, state
from tests.server.storages.file.test_writer import file_size_limit
from zeo_core.errors import POSKeyError, ReadOnlyError, RecordFormatError, StorageClosedError, StorageError
from zeo_core.ids import MAX_TID, pack_id, successor, tid_to_time
from zeo_server.storages import durable
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file.generation import Generation
from zeo_server.storages.file.pack import clear_leftovers

FUTURE_S = time.time() + 3600


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[FileStorage]:
    with closing(FileStorage(tmp_path / "Data.fs")) as opened:
        yield opened


def time_of(tid: bytes) -> float:
    """Return a time just after a transaction's; as a float it would often be just before."""
    return tid_to_time(tid) + 1e-6


def pack(storage: FileStorage, until: bytes | float = FUTURE_S, *, gc: bool = True) -> list[str]:
    """Pack up to a tid or time; return the phases that were shown."""
    until_s = time_of(until) if isinstance(until, bytes) else until
    return list(dict.fromkeys(step.phase for step in storage.pack_steps(until_s, gc=gc)))


def names(directory: Path) -> set[str]:
    """Return the files in a directory, but for those that locks leave."""
    return {name for name in os.listdir(directory) if not name.endswith((".lock", ".tmp"))}


def filled(storage: FileStorage) -> tuple[bytes, bytes]:
    """Commit a few revisions; return the tid up to which to pack, and the last."""
    commit(storage, {0: node(1, 2), 1: node(text="old"), 2: node(3), 3: node()})
    packed = commit(storage, {1: node(text="new"), 2: node(text="3 is out of use")})
    return packed, commit(storage, {1: node(text="newest"), 4: node()})


def test_old_revisions_and_objects_out_of_use_go(storage: FileStorage, tmp_path: Path) -> None:
    until, last = filled(storage)
    before = state(storage, map(pack_id, range(5)), successor(until))
    size = storage.byte_size()
    assert pack(storage, until) == ["scan", "mark", "copy"]
    assert storage.byte_size() < size == (tmp_path / "Data.fs.old").stat().st_size
    assert storage.byte_size() == (tmp_path / "Data.fs").stat().st_size
    assert [entry.tid for entry in storage.revisions(pack_id(1), 9)] == [last, until]
    with pytest.raises(POSKeyError):
        storage.load(pack_id(3))
    del before[pack_id(3)]
    assert state(storage, map(pack_id, range(5)), successor(until)) == before
    assert storage.load_before(pack_id(1), until) is None
    assert storage.last_tid() == last


def test_work_goes_on_with_the_packed_file(storage: FileStorage, tmp_path: Path) -> None:
    until, _ = filled(storage)
    pack(storage, until)
    tid = commit(storage, {2: node(1)})
    assert storage.load(pack_id(2)) == (node(1), tid)
    oids = [pack_id(number) for number in range(5)]
    expected, statuses = state(storage, oids), [t.status for t in storage.transactions()]
    assert statuses == [b"p", b"p", b" ", b" "]
    storage.close()
    assert names(tmp_path) == {"Data.fs", "Data.fs.index", "Data.fs.old"}
    fstest.main([str(tmp_path / "Data.fs")])
    for index in (True, False):
        if not index:
            (tmp_path / "Data.fs.index").unlink()
        with closing(FileStorage(tmp_path / "Data.fs")) as reopened:
            assert state(reopened, oids) == expected
            assert reopened.last_tid() == tid


def test_what_the_index_says_after_a_crash_is_right(storage: FileStorage, tmp_path: Path) -> None:
    pack(storage, filled(storage)[0])
    shutil.copytree(tmp_path, tmp_path / "crashed")
    (tmp_path / "crashed" / "Data.fs.lock").unlink()
    commit(storage, {1: node()})
    with closing(FileStorage(tmp_path / "crashed" / "Data.fs")) as reopened:
        assert reopened.load(pack_id(1))[0] == node(text="newest")
        assert len(reopened) == 4


def test_the_old_file_is_kept_only_if_wanted(storage: FileStorage, tmp_path: Path) -> None:
    until, last = filled(storage)
    for _ in storage.pack_steps(time_of(until), keep_old=False):
        pass
    assert names(tmp_path) == {"Data.fs", "Data.fs.index"}
    for _ in storage.pack_steps(FUTURE_S):
        pass
    with closing(FileStorage(tmp_path / "Data.fs.old", read_only=True)) as old:
        assert [entry.tid for entry in old.revisions(pack_id(1), 9)] == [last, until]


def test_packing_to_an_earlier_time_does_nothing(storage: FileStorage) -> None:
    first = commit(storage, {0: node(1), 1: node()})
    until, _ = filled(storage)
    pack(storage, until)
    size = storage.byte_size()
    for time_s in (time_of(until), time_of(first), 0.0):
        assert set(pack(storage, time_s)) <= {"scan"}
        assert storage.byte_size() == size
    with closing(FileStorage(storage.name() + ".copy", create=True)) as empty:
        assert pack(empty) == []


def test_the_last_tid_stays_even_if_nothing_of_it_is_kept(storage: FileStorage, tmp_path: Path) -> None:
    commit(storage, {0: node()})
    tid = commit(storage, {1: node()})  # out of use from the first moment
    pack(storage)
    assert storage.last_tid() == tid
    storage.close()
    with closing(FileStorage(tmp_path / "Data.fs")) as reopened:
        assert reopened.last_tid() == tid
        assert [[(r.oid, r.data) for r in t.records] for t in reopened.transactions()][-1] == [(pack_id(1), None)]
        assert pack(reopened) == ["scan"]


def test_no_oid_is_given_out_again(storage: FileStorage, tmp_path: Path) -> None:
    commit(storage, {0: node(), 9: node()})
    for _ in range(2):
        pack(storage)
        assert len(storage) == 1
        with pytest.raises(POSKeyError):
            storage.load(pack_id(9))
        storage.close()
        with closing(FileStorage(tmp_path / "Data.fs")) as reopened:
            assert reopened.new_oids(1) == [pack_id(10)]
            commit(reopened, {0: node()})
        storage = FileStorage(tmp_path / "Data.fs")
    storage.close()


def test_an_object_that_is_put_to_use_again_is_kept_where_zodb_loses_it(storage: FileStorage, tmp_path: Path) -> None:
    commit(storage, {0: node(1), 1: node(2), 2: node(text="precious")})
    until = commit(storage, {0: node()})
    commit(storage, {0: node(1)})
    shutil.copy(tmp_path / "Data.fs", tmp_path / "zodb.fs")
    with closing(ZODBFileStorage(str(tmp_path / "zodb.fs"))) as zodb:
        zodb.pack(time_of(until), referencesf)
        with pytest.raises(KeyError):
            zodb.load(pack_id(2), "")
    pack(storage, until)
    assert storage.load(pack_id(2))[0] == node(text="precious")
    assert storage.load(pack_id(1))[0] == node(2)


@pytest.mark.parametrize("phase", ["mark", "copy"])
def test_an_object_that_is_put_to_use_again_during_the_pack_is_kept(storage: FileStorage, phase: str) -> None:
    commit(storage, {0: node(1), 1: node(2), 2: node(text="precious")})
    until = commit(storage, {0: node()})
    steps = storage.pack_steps(time_of(until))
    shown = [step.phase for step in steps if step.phase == phase and commit(storage, {0: node(1)})]
    assert phase in shown
    assert storage.load(pack_id(2))[0] == node(text="precious")


def test_undo_that_repeats_an_old_record_during_the_pack(storage: FileStorage) -> None:
    old = commit(storage, {0: node(1), 1: node(2, text="old"), 2: node()})
    until = commit(storage, {1: node(text="new")})
    repeated: list[bytes] = []
    for step in storage.pack_steps(time_of(until)):
        if step.phase == "copy" and not repeated:
            repeated.append(repeat(storage, 1, old))
    assert storage.load(pack_id(1)) == (node(2, text="old"), repeated[0])
    assert storage.load_before(pack_id(1), repeated[0]) == (node(text="new"), until, repeated[0])
    assert storage.load_before(pack_id(1), until) is None
    assert storage.load(pack_id(2))[0] == node()


def test_a_group_written_before_the_switch_can_be_published_after_it(storage: FileStorage) -> None:
    until, _ = filled(storage)
    written = group(storage, {2: node(1), 5: node()})
    pack(storage, until)
    with pytest.raises(POSKeyError):
        storage.load(pack_id(5))
    assert storage.load(pack_id(2))[0] == node(text="3 is out of use")
    storage.publish(written)
    assert storage.load(pack_id(5)) == (node(), written.tids[0])
    assert storage.load(pack_id(2)) == (node(1), written.tids[0])
    assert storage.byte_size() == os.path.getsize(storage.name())
    assert commit(storage, {2: node()}) == storage.load(pack_id(2))[1]


def test_weak_and_foreign_references_keep_nothing_and_miss_nothing(storage: FileStorage) -> None:
    foreign = ["n", ("other", pack_id(77))], ["m", ("other", pack_id(78), None)]
    commit(storage, {0: record(["w", (pack_id(1),)], *foreign, pack_id(2)), 1: node(), 2: node()})
    pack(storage)
    assert set(state(storage, map(pack_id, range(3)))) == {pack_id(0), pack_id(2)}


BROKEN = [
    (b"no pickle", RecordFormatError, "0x05"),
    (b"{unheard_of}...", RecordFormatError, "unheard_of"),
    (node(99), StorageError, "0x63"),
]


@pytest.mark.parametrize(("data", "error", "text"), BROKEN)
def test_what_cannot_be_followed_stops_it_and_changes_nothing(
    storage: FileStorage, tmp_path: Path, data: bytes, error: type[Exception], text: str
) -> None:
    commit(storage, {0: node(5), 5: data})
    commit(storage, {0: node(5)})
    content = (tmp_path / "Data.fs").read_bytes()
    with pytest.raises(error, match=text) as caught:
        pack(storage)
    assert "0x05" in str(caught.value)
    assert "Data.fs" in str(caught.value)
    assert (tmp_path / "Data.fs").read_bytes() == content
    assert names(tmp_path) == {"Data.fs"}
    pack(storage, gc=False)
    assert storage.byte_size() < len(content)
    assert storage.load(pack_id(5))[0] == data


def test_one_at_a_time_and_never_read_only(storage: FileStorage, tmp_path: Path) -> None:
    until, _ = filled(storage)
    steps = storage.pack_steps(time_of(until))
    next(steps)
    with pytest.raises(StorageError, match="already"):
        pack(storage)
    with closing(FileStorage(tmp_path / "Data.fs", read_only=True)) as reader, pytest.raises(ReadOnlyError):
        pack(reader)
    steps.close()
    assert names(tmp_path) == {"Data.fs"}
    pack(storage, until)
    with pytest.raises(StorageError, match="time"):
        pack(storage, float("nan"))


def test_closing_the_storage_ends_the_pack(storage: FileStorage, tmp_path: Path) -> None:
    filled(storage)
    steps = storage.pack_steps(FUTURE_S)
    next(steps)
    storage.close()
    assert names(tmp_path) == {"Data.fs", "Data.fs.index"}
    with pytest.raises(StorageClosedError, match="closed"):
        list(steps)
    with pytest.raises(StorageClosedError):
        pack(storage)


def test_a_killed_packer_leaves_nothing(storage: FileStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(storage)
    steps = storage.pack_steps(FUTURE_S)
    next(steps)
    run = storage._pack_run
    assert run is not None
    assert run._packer is not None
    run._packer.kill()
    with pytest.raises(StorageError, match="packer ended"):
        list(steps)
    assert names(tmp_path) == {"Data.fs"}
    pack(storage)


def test_a_full_disk_leaves_nothing(storage: FileStorage, tmp_path: Path) -> None:
    commit(storage, {0: node(*range(1, 40))} | {number: node(text="x" * 90_000) for number in range(1, 40)})
    commit(storage, {0: node(*range(1, 40))})
    with file_size_limit(1_500_000), pytest.raises(StorageError, match="too large"):
        pack(storage)
    assert names(tmp_path) == {"Data.fs"}
    assert pack(storage)
    assert storage.load(pack_id(39))[0] == node(text="x" * 90_000)


@pytest.mark.parametrize("point", ["link", "unlink", "replace", "sync_directory", "tidy"])
def test_a_crash_at_any_point_of_the_switch(
    storage: FileStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """What the directory holds when the process dies there opens, with all that was committed; ZODB's may be empty."""
    until, _ = filled(storage)
    storage._index_saver.save()
    crashed = tmp_path / "crashed"

    def at(function: Callable[..., None], *, then: bool) -> Callable[..., None]:
        def call(*arguments: object) -> None:
            if then:
                function(*arguments)
            if not crashed.exists():
                copy_links(tmp_path, crashed)
            if not then:
                function(*arguments)

        return call

    if point == "sync_directory":
        monkeypatch.setattr(durable, "sync_directory", at(durable.sync_directory, then=True))
    elif point == "replace":
        monkeypatch.setattr(durable, "replace_file", at(durable.replace_file, then=False))
    elif point == "tidy":
        monkeypatch.setattr(durable, "replace_file", at(durable.replace_file, then=True))
    else:
        monkeypatch.setattr(os, point, at(getattr(os, point), then=True))
    pack(storage, until)
    monkeypatch.undo()
    assert crashed.exists()
    switched = point in ("sync_directory", "tidy")
    with closing(FileStorage(crashed / "Data.fs")) as reopened:
        assert names(crashed) <= {"Data.fs", "Data.fs.index"} | ({"Data.fs.old"} if switched else set())
        oids = [pack_id(number) for number in (0, 1, 2, 4)]
        assert state(reopened, oids) == state(storage, oids)
        assert (pack_id(3) in state(reopened, [pack_id(3)])) is not switched
        commit(reopened, {1: node()})


def copy_links(source: Path, target: Path) -> None:
    """Copy a directory so that two names of one file become two names of one copy."""
    target.mkdir()
    copies: dict[int, Path] = {}
    for path in source.iterdir():
        if path.is_dir() or path.suffix == ".lock":
            continue
        inode = path.stat().st_ino
        if inode in copies:
            os.link(copies[inode], target / path.name)
        else:
            copies[inode] = Path(shutil.copy(path, target / path.name))


def test_a_replaced_file_that_may_not_be_on_disk_takes_no_more_commits(
    storage: FileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    until, _ = filled(storage)

    def fail(_path: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(durable, "sync_directory", fail)
    pack(storage, until)
    monkeypatch.undo()
    with pytest.raises(StorageClosedError, match="on disk"):
        commit(storage, {1: node()})
    assert storage.load(pack_id(1))[0] == node(text="newest")


def test_a_failed_rename_leaves_the_database_as_it_was(
    storage: FileStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    until, _ = filled(storage)
    content = (tmp_path / "Data.fs").read_bytes()

    def fail(_source: str, _target: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(durable, "replace_file", fail)
    with pytest.raises(StorageError, match="Input/output"):
        pack(storage, until)
    monkeypatch.undo()
    assert (tmp_path / "Data.fs").read_bytes() == content
    assert names(tmp_path) == {"Data.fs"}
    commit(storage, {1: node()})
    pack(storage, until)


def test_leftovers_are_cleared_only_beside_a_file(tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    for suffix in (".pack", ".pack.index"):
        (tmp_path / f"Data.fs{suffix}").write_bytes(b"half")
    clear_leftovers(str(path))
    assert names(tmp_path) == {"Data.fs.pack", "Data.fs.pack.index"}
    with pytest.raises(StorageError, match="pack"):
        FileStorage(path)
    path.write_bytes(b"FS30")
    with closing(FileStorage(path)):
        assert names(tmp_path) == {"Data.fs"}


def test_loads_and_commits_go_on(storage: FileStorage) -> None:
    """Loads in threads during several packs always find the object whole; commits are all there afterwards."""
    commit(storage, {0: node(*range(1, 200))} | {number: node(text=str(number)) for number in range(1, 200)})
    done = threading.Event()
    faults: list[object] = []

    def load() -> None:
        while not done.is_set():
            for number in range(1, 200):
                try:
                    revision = storage.load_before(pack_id(number), MAX_TID)
                except Exception as error:  # noqa: BLE001 - whatever it is, the test must hear of it
                    faults.append(error)
                    return
                if revision is None or not revision.data.startswith(node()[:20]):
                    faults.append(revision)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    turn = 0
    committed: dict[int, bytes] = {}
    try:
        for _ in range(3):
            for _step in storage.pack_steps(FUTURE_S):
                turn += 1
                number, data = 1 + turn % 199, node(text=f"turn {turn}")
                commit(storage, {number: data})
                committed[number] = data
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert faults == []
    assert {number: storage.load(pack_id(number))[0] for number in committed} == committed


def test_a_packed_file_that_could_not_be_gone_over_to_takes_no_commits(
    storage: FileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    until, _ = filled(storage)
    monkeypatch.setattr(Generation, "scan_to", fail_to_read)
    with pytest.raises(StorageError, match="Input/output"):
        pack(storage, until)
    monkeypatch.undo()
    with pytest.raises(StorageClosedError, match="in use"):
        commit(storage, {1: node()})
    assert storage.load(pack_id(1))[0] == node(text="newest")


def fail_to_read(*_: object) -> None:
    raise OSError(5, "Input/output error")
