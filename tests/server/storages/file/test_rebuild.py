"""Making an index anew: the one that ZODB would save."""

from pathlib import Path

import pytest
import zc.lockfile

from tests.server.storages.file.build import File
from tests.server.storages.file.damaged import zodb_file
from zeo_core.errors import FileFormatError, FileLockedError
from zeo_core.ids import pack_id
from zeo_server.storages.file.index import Index
from zeo_server.storages.file.rebuild import Rebuild

A = pack_id(1)


def test_it_is_the_index_that_zodb_saves(tmp_path: Path) -> None:
    zodb_file(tmp_path / "Data.fs", 40)
    path = tmp_path / "Data.fs.index"
    theirs, end = Index.load(str(path))
    path.write_bytes(b"damaged")
    rebuild = Rebuild(str(tmp_path / "Data.fs"))
    steps = list(rebuild.steps())
    assert steps[-1].done_bytes == steps[-1].total_bytes
    ours, our_end = Index.load(str(path))
    assert list(ours.saved(our_end)) == list(theirs.saved(end))
    assert rebuild.objects == len(theirs)


def test_a_tail_is_left_out_and_damage_refused(tmp_path: Path) -> None:
    file = File().add((A, b"1")).add((A, b"2"))
    path = tmp_path / "Data.fs"
    path.write_bytes(file.patched(file.starts[1] + 16, b"c"))
    list(Rebuild(str(path)).steps())
    index, end = Index.load(str(path) + ".index")
    assert (index.position(A), end) == (file.records[0][0], file.starts[1])
    path.write_bytes(file.patched(file.starts[0] + 16, b"x"))
    with pytest.raises(FileFormatError, match="at byte 4"):
        list(Rebuild(str(path)).steps())


def test_a_file_in_use_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    path.write_bytes(File().add((A, b"1")).content)
    lock = zc.lockfile.LockFile(str(path) + ".lock")
    with pytest.raises(FileLockedError):
        list(Rebuild(str(path)).steps())
    lock.close()
    assert not (tmp_path / "Data.fs.index").exists()
