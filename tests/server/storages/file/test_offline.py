from contextlib import closing
from pathlib import Path

import pytest

from tests.server.storages.file.graphs import commit, node, state
from tests.server.storages.file.test_pack import FUTURE_S
from zeo_core.errors import FileLockedError, StorageError
from zeo_core.ids import pack_id
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file.offline import pack


def test_a_file_is_packed_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    with closing(FileStorage(path)) as storage:
        commit(storage, {0: node(1), 1: node(), 2: node()})
        with pytest.raises(FileLockedError):
            list(pack(str(path), FUTURE_S))
    steps = list(pack(str(path), FUTURE_S, keep_old=False))
    assert {step.phase for step in steps} == {"scan", "mark", "copy"}
    assert all(0 <= step.done_bytes <= step.total_bytes for step in steps)
    assert not (tmp_path / "Data.fs.old").exists()
    with closing(FileStorage(path)) as storage:
        assert set(state(storage, map(pack_id, range(3)))) == {pack_id(0), pack_id(1)}


def test_no_file_is_made_to_be_packed(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such file"):
        list(pack(str(tmp_path / "Data.fs"), FUTURE_S))
    assert list(tmp_path.iterdir()) == []
