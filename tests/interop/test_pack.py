"""Packs of random histories, ours and ZODB's own on copies of one file: the same is left, and ours is never less."""

import contextlib
import os
import shutil
import tempfile
from contextlib import closing
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from ZODB.FileStorage import FileStorage as ZODBFileStorage
from ZODB.FileStorage.fspack import PackError
from ZODB.scripts import fstest
from ZODB.serialize import referencesf

from tests.server.storages.file.graphs import commit, node, repeat, state
from zeo_core.ids import ROOT_OID, Oid, pack_id, successor, tid_to_time
from zeo_core.record import references
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file.check import Check
from zeo_server.storages.file.pack import clear_leftovers
from zeo_server.storages.file.packer import Packing

OBJECTS = 6
OIDS = [pack_id(number) for number in range(OBJECTS)]

targets = st.lists(st.integers(0, OBJECTS - 1), max_size=2)
changes = st.dictionaries(st.integers(0, OBJECTS - 1), targets, min_size=1, max_size=3)
undone = st.tuples(st.integers(0, OBJECTS - 1), st.integers(0, 9))
histories = st.lists(st.one_of(changes, changes, undone), min_size=1, max_size=10)


def write_history(storage: FileStorage, history: list[dict[int, list[int]] | tuple[int, int]]) -> list[bytes]:
    """Commit a first state in which everything is there, then the history: changes, and old records repeated."""
    tids = [commit(storage, {number: node(text="first") for number in range(OBJECTS)} | {0: node(1, 2)})]
    for turn, change in enumerate(history):
        if isinstance(change, dict):
            objects = {number: node(*to, text=f"turn {turn}") for number, to in change.items()}
            tids.append(commit(storage, objects))
        else:
            number, back = change
            entries = storage.revisions(pack_id(number), 99)
            tids.append(repeat(storage, number, entries[back % len(entries)].tid))
    return tids


def reachable(data: dict[Oid, bytes], roots: set[Oid]) -> dict[Oid, bytes]:
    """Return the part of a state that can be reached."""
    found: set[Oid] = set()
    todo = list(roots)
    while todo:
        oid = todo.pop()
        if oid not in found and oid in data:
            found.add(oid)
            todo += references(data[oid])
    return {oid: data[oid] for oid in found}


def pack_here(path: Path, until: bytes, *, gc: bool) -> None:
    """Pack a file that nobody has open, in this process: to start another takes longer than all the rest."""
    said: list[object] = []
    Packing(str(path), until, gc=gc, say=lambda *line: said.append(line[0]), ask=lambda *_: path.stat().st_size).run(
        path.stat().st_size
    )
    if "redundant" not in said:
        os.replace(f"{path}.pack", path)
        os.replace(f"{path}.pack.index", f"{path}.index")
    clear_leftovers(str(path))


def pack_with_zodb(path: Path, until: bytes, *, gc: bool) -> dict[Oid, bytes] | None:
    """Pack with ZODB and return what is left, None where its packer gives up: it does on some back pointers."""
    with closing(ZODBFileStorage(str(path))) as zodb:
        try:
            zodb.pack(tid_to_time(until) + 1e-6, referencesf, gc=gc)
        except (PackError, AssertionError):
            return None
    return zodb_state(path)


def zodb_state(path: Path) -> dict[Oid, bytes]:
    with closing(ZODBFileStorage(str(path))) as zodb:
        found = {}
        for oid in OIDS:
            with contextlib.suppress(KeyError):
                found[oid] = zodb.load(oid, "")[0]
        return found


@settings(max_examples=60, deadline=None)
@given(history=histories, at=st.integers(0, 10), gc=st.booleans(), again=st.integers(0, 10))
def test_what_zodb_keeps_and_what_it_should_have_kept(
    history: list[dict[int, list[int]] | tuple[int, int]], at: int, gc: bool, again: int
) -> None:
    directory = Path(tempfile.mkdtemp())
    try:
        check(directory, history, at, again, gc)
    finally:
        shutil.rmtree(directory)


def check(
    directory: Path, history: list[dict[int, list[int]] | tuple[int, int]], at: int, again: int, gc: bool
) -> None:
    path = directory / "Data.fs"
    with closing(FileStorage(path)) as storage:
        tids = write_history(storage, history)
        # A time just after a transaction's: as a float it would often be just before.
        until = tids[at % len(tids)]
        before = {tid: state(storage, OIDS, successor(tid)) for tid in tids}
        current = state(storage, OIDS)
        written_later = [record for t in storage.transactions(successor(until)) for record in t.records]
        shutil.copy(path, directory / "zodb.fs")
    pack_here(path, until, gc=gc)
    with closing(FileStorage(path)) as storage:
        ours = state(storage, OIDS)
        # What snapshots from the pack time on can reach, and all that is referred to later, with what that leads to.
        roots = {ROOT_OID} | {oid for record in written_later for oid in references(record.data or b"")}
        for tid in tids:
            if tid >= until:
                seen = reachable(before[tid], {ROOT_OID})
                assert state(storage, seen, successor(tid)) == seen
        assert reachable(before[until], roots).items() <= state(storage, OIDS, successor(until)).items()
        assert all(current[oid] == data for oid, data in ours.items())
        assert gc or ours == current
        # A second pack, further on, of what the first has left.
        storage.close()
        pack_here(path, max(until, tids[again % len(tids)]), gc=gc)
    with closing(FileStorage(path)) as storage:
        expected = reachable(current, {ROOT_OID})
        assert state(storage, expected) == expected
        left = state(storage, OIDS)
        last_tid = storage.last_tid()
    theirs = pack_with_zodb(directory / "zodb.fs", until, gc=gc)
    if theirs is not None:
        assert theirs.items() <= ours.items()
        assert theirs == ours or (written_later and gc)
    # Our file is ZODB's as well: without our index it finds the same.
    (directory / "Data.fs.index").unlink(missing_ok=True)
    fstest.main([str(path)])
    found = Check(str(path), read_records=not gc)
    list(found.steps())
    assert found.faults == []
    assert zodb_state(path) == left
    with closing(FileStorage(path, read_only=True)) as reopened:
        assert reopened.last_tid() == last_tid == tids[-1]
        assert state(reopened, OIDS) == left
