"""The undo log as clients get it."""

import pytest

from tests.contract.storages import Txn, commit
from zeo_core.errors import StorageClosedError
from zeo_core.ids import pack_id
from zeo_server.storages.mapping import MappingStorage
from zeo_server.undo_lines import LINES_MAX, UndoLines

A = pack_id(1)


@pytest.fixture
def storage() -> MappingStorage:
    storage = MappingStorage()
    for number in range(30):
        commit(storage, {A: b"%d" % number}, txn=Txn(f"user {number % 3}", str(number)))
    return storage


def test_lines_by_number_and_by_kind(storage: MappingStorage) -> None:
    lines = UndoLines(storage)
    assert [line["description"] for line in lines.read(0, -20)] == [b"%d" % (29 - number) for number in range(20)]
    assert [line["description"] for line in lines.read(28, 100)] == [b"1", b"0"]
    assert [line["description"] for line in lines.read(1, 3, {"user_name": b"user 0"})] == [b"24", b"21"]
    assert lines.read(5, 5) == lines.read(5, 0) == lines.read(5, 2) == []


def test_the_number_of_lines_is_bounded(storage: MappingStorage) -> None:
    asked: list[int] = []

    class Endless(MappingStorage):
        def undo_log(self):  # type: ignore[no-untyped-def]
            entry = next(storage.undo_log())
            while True:
                asked.append(1)
                yield entry

    assert len(UndoLines(Endless()).read(0, 2**62)) == LINES_MAX
    assert len(asked) <= LINES_MAX + 1


def test_a_stopping_server_gives_up(storage: MappingStorage) -> None:
    lines = UndoLines(storage)
    lines.close()
    with pytest.raises(StorageClosedError):
        lines.read(0, -20, {"user_name": b"nobody"})
