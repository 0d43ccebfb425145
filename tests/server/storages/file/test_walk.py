"""Walks through whole files and damaged ones."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.storages.file.build import File
from zeo_core.errors import FileFormatError, StorageError
from zeo_core.ids import pack_id
from zeo_server.storages.file.log import TransactionHeader
from zeo_server.storages.file.walk import Damage, Walk, open_reader

A, B = pack_id(1), pack_id(2)


def parts_of(directory: Path, content: bytes) -> list[TransactionHeader | Damage]:
    path = directory / "Data.fs"
    path.write_bytes(content)
    return list(Walk(open_reader(str(path))).parts())


def starts(parts: list[TransactionHeader | Damage]) -> list[int]:
    return [part.position for part in parts if isinstance(part, TransactionHeader)]


def three() -> File:
    return File().add((A, b"one")).add((A, b"two" * 50), (B, b"other")).add((B, b"three"), metadata=(b"u", b"d", b""))


def test_a_whole_file(tmp_path: Path) -> None:
    file = three()
    parts = parts_of(tmp_path, file.content)
    assert starts(parts) == file.starts
    assert len(parts) == 3


def test_it_goes_on_behind_damage(tmp_path: Path) -> None:
    file = three()
    first, second, third = file.starts
    for content in (
        file.patched(second + 8, bytes(8)),
        file.patched(second + 16, b"x"),
        file.patched(third - 8, bytes(8)),
        file.patched(second, b"\xff" * 80),
    ):
        parts = parts_of(tmp_path, content)
        assert starts(parts) == [first, third]
        damage = parts[1]
        assert isinstance(damage, Damage)
        assert (damage.start, damage.end, damage.tail) == (second, third, False)


def test_an_unfinished_transaction_at_the_end_is_a_tail(tmp_path: Path) -> None:
    file = three()
    parts = parts_of(tmp_path, file.patched(file.starts[2] + 16, b"c"))
    assert parts[-1] == Damage(file.starts[2], len(file.content), "an unfinished transaction", tail=True)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_damaged_the_parts_cover_the_file(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = three()
    at = data.draw(st.integers(4, len(file.content) - 1))
    content = file.patched(at, data.draw(st.binary(min_size=1, max_size=40)))[: len(file.content)]
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(4, len(content)))]
    position = 4
    for part in parts_of(tmp_path_factory.mktemp("walk"), content):
        start = part.start if isinstance(part, Damage) else part.position
        assert start == position
        position = part.end
    assert position == len(content)


def test_no_file_and_no_data_fs(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nothing.fs: No such file"):
        open_reader(str(tmp_path / "nothing.fs"))
    (tmp_path / "text").write_text("hello")
    with pytest.raises(FileFormatError, match=r"text: damaged at byte 0: no Data.fs"):
        open_reader(str(tmp_path / "text"))
