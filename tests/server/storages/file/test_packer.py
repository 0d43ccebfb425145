"""The packer's side of the conversation, in this process; test_pack.py has the program itself."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.server.storages.file.build import File
from tests.server.storages.file.graphs import node
from tests.server.storages.file.test_kept import objects
from zeo_core.errors import StorageError
from zeo_core.ids import pack_id
from zeo_server.storages.file.packer import Packing


class Owner:
    """Plays the owner: answers each question with the end of the file, after letting it grow."""

    def __init__(self, path: Path, file: File, grow: Callable[[int], None]) -> None:
        self.path, self.file, self.grow = path, file, grow
        self.said: list[tuple[Any, ...]] = []
        self.questions = 0

    def say(self, *line: Any) -> None:
        if line[0] != "progress":
            self.said.append(line)

    def ask(self, *line: Any) -> int:
        self.said.append(line)
        self.questions += 1
        self.grow(self.questions)
        self.path.write_bytes(self.file.content)
        return len(self.file.content)

    def pack(self, tid: int) -> list[str]:
        """Pack, and return what the packer said."""
        self.path.write_bytes(self.file.content)
        Packing(str(self.path), pack_id(tid), gc=True, say=self.say, ask=self.ask).run(len(self.file.content))
        return [line[0] for line in self.said]


def linked_and_not() -> File:
    return File().add(*objects((0, node(1)), (1, node()))).add(*objects((0, node())))


def test_it_catches_up_and_finishes(tmp_path: Path) -> None:
    file = linked_and_not()
    owner = Owner(tmp_path / "Data.fs", file, lambda turn: void(file.add(*objects((turn + 5, node(0))))))
    assert owner.pack(2) == ["end?", "ready", "done"]
    distance = owner.said[1][1]
    assert (tmp_path / "Data.fs.pack").stat().st_size == len(file.content) - distance
    assert (tmp_path / "Data.fs.pack.index").exists()


def test_large_rests_take_rounds(tmp_path: Path) -> None:
    file = linked_and_not()

    def grow(turn: int) -> None:
        file.add(*objects((0, node(text="x" * (600_000 >> turn)))))

    assert Owner(tmp_path / "Data.fs", file, grow).pack(2) == ["end?", "end?", "ready", "done"]


def void(*_: object) -> None:
    """Take anything and return nothing."""


@pytest.mark.parametrize("turn", [1, 2])
def test_it_copies_anew_for_an_object_that_is_put_to_use_again(tmp_path: Path, turn: int) -> None:
    file = linked_and_not()

    def grow(question: int) -> None:
        if question == turn:
            file.add(*objects((0, node(1))))

    owner = Owner(tmp_path / "Data.fs", file, grow)
    assert owner.pack(2) == [*["end?", "ready"][:turn], "again", "end?", "ready", "done"]
    assert node(1) in (tmp_path / "Data.fs.pack").read_bytes()


def test_it_gives_up_if_that_never_ends(tmp_path: Path) -> None:
    file = File().add(*objects((0, node()), *[(number, node()) for number in range(1, 9)])).add(*objects((0, node())))
    owner = Owner(tmp_path / "Data.fs", file, lambda turn: void(file.add(*objects((0, node(turn))))))
    with pytest.raises(StorageError, match="out of use"):
        owner.pack(2)


def test_another_packers_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "Data.fs.pack").write_bytes(b"theirs")
    with pytest.raises(FileExistsError):
        Owner(tmp_path / "Data.fs", linked_and_not(), void).pack(2)
    assert (tmp_path / "Data.fs.pack").read_bytes() == b"theirs"


@pytest.mark.parametrize("heard", [b"", b'["pack", "Data.fs'])
def test_the_program_ends_quietly_with_its_owner(heard: bytes) -> None:
    command = [sys.executable, "-m", "zeo_server.storages.file.packer"]
    ended = subprocess.run(command, input=heard, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_the_program_says_what_went_wrong(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "zeo_server.storages.file.packer"]
    line = f'["pack", "{tmp_path}{os.sep}none", "0000000000000001", true, 4]\n'
    ended = subprocess.run(command, input=line.encode(), capture_output=True, check=False)
    assert ended.stdout.startswith(b'["error", "StorageError", ["')
    assert b"No such file" in ended.stdout
    assert ended.stderr == b""


def test_an_orphan_removes_its_files_but_no_others(tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    path.write_bytes(linked_and_not().content)
    for replaced in (False, True):

        def gone(*_: object) -> int:
            if replaced:  # noqa: B023 - called before the next turn
                (tmp_path / "Data.fs.pack").unlink()
                (tmp_path / "Data.fs.pack").write_bytes(b"another packer's")
            raise EOFError

        packing = Packing(str(path), pack_id(2), gc=True, say=void, ask=gone)
        with pytest.raises(EOFError):
            packing.run(path.stat().st_size)
        packing.discard()
        assert {name.name for name in tmp_path.iterdir()} == {"Data.fs"} | ({"Data.fs.pack"} if replaced else set())
