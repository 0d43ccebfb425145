"""What a power cut may leave on the disk of a recorded run, at each moment of it.

What was synced is there: a file's bytes and length after a sync of the file, a name after a sync of its directory. Of
what came later the disk may have any part, in any order: single sectors of a write, a length without its bytes, a
rename without the bytes of what was renamed. Names within one directory come in their order, as file systems with a
journal have it; those of different directories do not wait for each other.
"""

import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.crash.lab.recording import Change, Files

__all__ = ["Crash", "crashes", "write_out"]

_SECTOR_BYTES = 512
_PARTS_MAX = 12
"""Of one write: a longer one is torn at fewer places."""

_SINGLE_MAX = 16

_NAME_KINDS = {"create", "rename", "link", "remove", "mkdir", "rmdir"}
_DATA_KINDS = {"write", "resize"}


class Crash(NamedTuple):
    """A moment, how the disk was chosen to look, the files, and what had been promised by then."""

    moment: int
    choice: str
    files: Files
    marks: list[str]


class _Part(NamedTuple):
    """Something of a file that the disk has or has not: bytes, or a length."""

    file: int
    change: int
    offset: int
    data: bytes
    length: int | None  # a length that is set; `at_least` if only grown to
    grows: bool = False


def crashes(
    before: Files, changes: Sequence[Change], moment: int, chance: random.Random, samples: int
) -> Iterator[Crash]:
    """Walk what a power cut after `moment` changes may leave: the extremes, single losses, and `samples` by chance."""
    past = changes[:moment]
    marks = [change.path for change in past if change.kind == "mark"]
    firm, loose = _by_file(before, past)
    names = _Names(before, past)
    seen: set[int] = set()

    def crash(choice: str, kept: Callable[[int], bool], cuts: dict[str, int]) -> Iterator[Crash]:
        contents = _contents(firm, [part for number, part in enumerate(loose) if kept(number)])
        directories, named = names.cut(cuts)
        files = Files(directories, named, {number: contents.get(number, b"") for number in named.values()})
        mark = hash((files.directories, tuple(sorted(files.names.items())), tuple(sorted(files.contents.items()))))
        if mark not in seen:
            seen.add(mark)
            yield Crash(moment, choice, files, marks)

    none, whole = names.least(), names.most()
    yield from crash("nothing that was not synced", lambda _: False, none)
    yield from crash("everything", lambda _: True, whole)
    yield from crash("names only", lambda _: False, whole)
    yield from crash("data only", lambda _: True, none)
    singles = list(range(len(loose)))
    if len(singles) > _SINGLE_MAX:
        singles = chance.sample(singles, _SINGLE_MAX)
    for one in singles:
        yield from crash(f"all but part {one}", lambda number, one=one: number != one, whole)  # type: ignore[misc]
        yield from crash(f"only part {one}", lambda number, one=one: number == one, whole)  # type: ignore[misc]
    for number in range(samples if loose or none != whole else 0):
        kept = {part for part in range(len(loose)) if chance.random() < 0.5}
        cuts = {place: chance.randint(none[place], whole[place]) for place in whole}
        yield from crash(f"sample {number}", kept.__contains__, cuts)


def write_out(files: Files, directory: Path) -> None:
    """Make `directory`, which must not be there, hold these files."""
    directory.mkdir(parents=True)
    for name in sorted(files.directories):
        (directory / name).mkdir(parents=True, exist_ok=True)
    made: dict[int, Path] = {}
    for name, number in files.names.items():
        path = directory / name
        if number in made:
            os.link(made[number], path)
        else:
            path.write_bytes(files.contents[number])
            made[number] = path


def _by_file(before: Files, past: Sequence[Change]) -> tuple[dict[int, bytearray], list[_Part]]:
    """Return the contents that are on disk for sure, and the parts that may be there beside."""
    synced = {change.file: number for number, change in enumerate(past) if change.kind == "sync"}
    firm: dict[int, bytearray] = {number: bytearray(content) for number, content in before.contents.items()}
    lengths: dict[int, int] = {number: len(content) for number, content in firm.items()}
    loose: list[_Part] = []
    for number, change in enumerate(past):
        if change.kind == "create":
            firm[change.file], lengths[change.file] = bytearray(), 0
        elif change.kind in _DATA_KINDS:
            is_firm = number < synced.get(change.file, -1)
            parts = list(_parts(number, change, lengths[change.file]))
            lengths[change.file] = (
                change.offset
                if change.kind == "resize"
                else max(lengths[change.file], change.offset + len(change.data))
            )
            if is_firm:
                for part in parts:
                    _apply(firm[change.file], part)
            else:
                loose += parts
    return firm, loose


def _parts(number: int, change: Change, length: int) -> Iterator[_Part]:
    if change.kind == "resize":
        yield _Part(change.file, number, 0, b"", change.offset)
        return
    end = change.offset + len(change.data)
    if end > length:
        yield _Part(change.file, number, 0, b"", end, grows=True)
    sectors = range(change.offset // _SECTOR_BYTES, -(-end // _SECTOR_BYTES))
    step = max(1, -(-len(sectors) // _PARTS_MAX))
    for first in sectors[::step]:
        start = max(change.offset, first * _SECTOR_BYTES)
        stop = min(end, (first + step) * _SECTOR_BYTES)
        yield _Part(change.file, number, start, change.data[start - change.offset : stop - change.offset], None)


def _contents(firm: dict[int, bytearray], parts: Sequence[_Part]) -> dict[int, bytes]:
    contents: dict[int, bytearray | bytes] = dict(firm)
    for part in parts:
        content = contents[part.file]
        if content is firm[part.file]:
            content = contents[part.file] = bytearray(content)
        if isinstance(content, bytearray):
            _apply(content, part)
    return {number: bytes(content) for number, content in contents.items()}


def _apply(content: bytearray, part: _Part) -> None:
    if part.length is None:
        end = part.offset + len(part.data)
        if end > len(content):
            content.extend(bytes(end - len(content)))
        content[part.offset : end] = part.data
    elif len(content) < part.length:
        content.extend(bytes(part.length - len(content)))
    elif not part.grows:
        del content[part.length :]


class _Names:
    """The changes of names, and how many of each directory's are on disk for sure."""

    def __init__(self, before: Files, past: Sequence[Change]) -> None:
        self._before = before
        self._changes: list[tuple[Change, dict[str, int]]] = []  # with its place among the changes of its directories
        counts: dict[str, int] = defaultdict(int)
        self._firm: dict[str, int] = defaultdict(int)
        for change in past:
            if change.kind in _NAME_KINDS:
                places = {os.path.dirname(path) or "." for path in (change.path, change.target) if path}
                self._changes.append((change, {place: counts[place] for place in places}))
                for place in places:
                    counts[place] += 1
            elif change.kind == "sync names":
                self._firm[change.path] = counts[change.path]
        self._counts = dict(counts)

    def least(self) -> dict[str, int]:
        """Return how many changes each directory has at least."""
        return {place: self._firm.get(place, 0) for place in self._counts}

    def most(self) -> dict[str, int]:
        """Return how many it may have."""
        return dict(self._counts)

    def cut(self, cuts: dict[str, int]) -> tuple[frozenset[str], dict[str, int]]:
        """Return directories and names if each directory has so many of its changes."""
        directories, names = set(self._before.directories), dict(self._before.names)
        for change, places in self._changes:
            # A rename between directories is one change of the journal: it is there if either of them has it.
            if any(number < cuts[place] for place, number in places.items()):
                _rename(change, directories, names)
        return frozenset(directories), names


def _rename(change: Change, directories: set[str], names: dict[str, int]) -> None:
    goal = change.target or change.path
    if change.kind != "rmdir" and (os.path.dirname(goal) or ".") not in directories:
        return  # the directory itself is not there
    if change.kind == "create":
        names[change.path] = change.file
    elif change.kind == "mkdir":
        directories.add(change.path)
    elif change.kind == "rmdir":
        if not any(os.path.dirname(name) == change.path for name in [*names, *directories]):
            directories.discard(change.path)
    elif change.kind == "remove":
        names.pop(change.path, None)
    elif change.file >= 0:  # a name leads to the file itself, whatever became of its other name
        names[goal] = change.file
        if change.kind == "rename":
            names.pop(change.path, None)
    elif change.path in directories:
        _rename_directory(change.path, goal, directories, names)


def _rename_directory(source: str, goal: str, directories: set[str], names: dict[str, int]) -> None:
    for directory in [each for each in directories if each == source or each.startswith(source + "/")]:
        directories.remove(directory)
        directories.add(goal + directory[len(source) :])
    for name in [each for each in names if each.startswith(source + "/")]:
        names[goal + name[len(source) :]] = names.pop(name)
