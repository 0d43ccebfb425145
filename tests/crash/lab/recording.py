"""A layer between the storages and the system that sees every change of a file: what it was, in which order.

While a Recording is active, the calls of `os` that change files, and `open` for writing, go through it. What concerns
the directory it was made for is done and then noted; a fault can be put in its place. Nothing of the storages' own code
is replaced.

Changes that other processes make are noted when their file is first met here: as there, and on disk.
"""

import builtins
import io
import itertools
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple, Self
from unittest.mock import patch

__all__ = ["Change", "Failing", "Files", "Recording"]


class Change(NamedTuple):
    """One change, or one sync.

    `kind` is "create", "write", "resize", "sync" (of a file), or "rename", "link", "remove", "mkdir", "rmdir",
    "sync names" (of a directory), or "mark". `file` is the number of a file, -1 if it is a directory; `path` and
    `target` are relative.
    """

    kind: str
    file: int = -1
    path: str = ""
    target: str = ""
    offset: int = 0
    data: bytes = b""


class Files(NamedTuple):
    """A tree of files as it is at some time: directories, names, and the contents by the files' numbers."""

    directories: frozenset[str]
    names: dict[str, int]
    contents: dict[int, bytes]


Failing = Callable[[int, str], "OSError | int | None"]
"""Asked before each change, with its number among all and its kind: an error to raise, or how many bytes to write."""


def _never(_number: int, _kind: str) -> None:
    return None


class Recording:
    """Use as a context manager; afterwards `changes` has what happened to `directory`, and `before` what was there."""

    def __init__(self, directory: str | os.PathLike[str], failing: Failing = _never) -> None:
        self.directory = os.path.realpath(directory)
        self.changes: list[Change] = []
        self._failing = failing
        self._numbers: dict[int, int] = {}  # by inode, as long as the file has a name
        self._fresh = itertools.count()
        self._system = {name: getattr(os, name) for name in _PATCHED}
        self._builtin_open = builtins.open
        self._patches = ExitStack()
        self.before = self._look()

    def __enter__(self) -> Self:
        for name in _PATCHED:
            self._patches.enter_context(patch.object(os, name, getattr(self, f"_{name}")))
        self._patches.enter_context(patch.object(builtins, "open", self._open_file))
        self._patches.enter_context(patch.object(io, "open", self._open_file))
        return self

    def __exit__(self, *_error: object) -> None:
        self._patches.close()

    def mark(self, path: str) -> None:
        """Note that something is promised from here on."""
        self.changes.append(Change("mark", path=path))

    # -- names and numbers ------------------------------------------------------------------------------------------

    def _look(self) -> Files:
        directories, names, contents = set(), {}, {}
        for place, _directories, files in os.walk(self.directory):
            directories.add(os.path.relpath(place, self.directory))
            for name in files:
                path = os.path.join(place, name)
                if stat.S_ISREG(os.lstat(path).st_mode):
                    number = self._number(os.lstat(path).st_ino)
                    names[os.path.relpath(path, self.directory)] = number
                    with self._builtin_open(path, "rb") as file:
                        contents[number] = file.read()
        return Files(frozenset(directories), names, contents)

    def _number(self, inode: int) -> int:
        if inode not in self._numbers:
            self._numbers[inode] = next(self._fresh)
        return self._numbers[inode]

    def _inside(self, path: Any, dir_fd: int | None = None) -> str | None:
        """Return a path relative to the directory, None if it is elsewhere."""
        if isinstance(path, int):
            return None
        text = os.fsdecode(path)
        base = os.getcwd() if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
        text = os.path.join(base, text)
        # Only the directory's own name may be a link: the last part is what the call is about.
        text = os.path.join(os.path.realpath(os.path.dirname(text)), os.path.basename(text))
        return os.path.relpath(text, self.directory) if text.startswith(self.directory + os.sep) else None

    def _file(self, fd: int) -> int | None:
        """Return the number of an open file, None if it is no file of ours; one made elsewhere is noted as it is."""
        found = os.fstat(fd)
        if not found.st_nlink:
            return None  # nothing that is written to it will ever be found
        if found.st_ino in self._numbers:
            return self._numbers[found.st_ino]
        path = os.readlink(f"/proc/self/fd/{fd}")
        if not stat.S_ISREG(found.st_mode) or not path.startswith(self.directory + os.sep):
            return None
        self._meet(os.path.relpath(path, self.directory))
        return self._numbers[found.st_ino]

    def _meet(self, path: str) -> None:
        """Note a file that another process has made: there, and on disk."""
        place = os.path.join(self.directory, path)
        inode = os.lstat(place).st_ino
        if inode in self._numbers or not os.path.isfile(place):
            return
        number = self._number(inode)
        with self._builtin_open(place, "rb") as file:
            content = file.read()
        self.changes += [
            Change("create", number, path),
            Change("write", number, data=content),
            Change("sync", number),
            Change("sync names", path=os.path.dirname(path) or "."),
        ]

    def _forget(self, path: str, successor: int = -1) -> None:
        """Forget a file that is about to lose its last name: another one may get its inode."""
        place = os.path.join(self.directory, path)
        if os.path.isfile(place):
            found = os.lstat(place)
            if found.st_nlink == 1 and found.st_ino != successor:
                self._numbers.pop(found.st_ino, None)

    def _created(self, path: str) -> None:
        inode = os.lstat(os.path.join(self.directory, path)).st_ino
        self._numbers[inode] = next(self._fresh)
        self.changes.append(Change("create", self._numbers[inode], path))

    def _fail(self, kind: str) -> int | None:
        fault = self._failing(len(self.changes), kind)
        if isinstance(fault, OSError):
            raise fault
        return fault

    # -- calls of the system ----------------------------------------------------------------------------------------

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        inside = self._inside(path, dir_fd)
        if inside is None or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            fd: int = self._system["open"](path, flags, mode, dir_fd=dir_fd)
            return fd
        place = os.path.join(self.directory, inside)
        is_new = not os.path.lexists(place)
        if is_new and flags & os.O_CREAT:
            self._fail("create")
        fd = self._system["open"](path, flags, mode, dir_fd=dir_fd)
        if is_new:
            self._created(inside)
        else:
            self._meet(inside)
            if flags & os.O_TRUNC:
                self.changes.append(Change("resize", self._numbers[os.fstat(fd).st_ino]))
        return fd

    def _open_file(self, file: Any, mode: str = "r", buffering: int = -1, *args: Any, **named: Any) -> Any:
        writes = any(letter in mode for letter in "wax+")
        if not writes or (not isinstance(file, int) and self._inside(file) is None):
            return self._builtin_open(file, mode, buffering, *args, **named)
        raw = _Raw(self, file, mode)
        if "b" in mode and buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *args, **named)

    def written(self, fd: int, data: Any, offset: int | None) -> int:
        """Write to an open file, at its own position if `offset` is None, and note it."""
        number = self._file(fd)
        if number is None:
            count: int = self._system["write"](fd, data) if offset is None else self._system["pwrite"](fd, data, offset)
            return count
        limit = self._fail("write")
        data = bytes(data)[:limit]
        at = os.lseek(fd, 0, os.SEEK_CUR) if offset is None else offset
        count = self._system["write"](fd, data) if offset is None else self._system["pwrite"](fd, data, offset)
        self.changes.append(Change("write", number, offset=at, data=data[:count]))
        return count

    def _write(self, fd: int, data: Any) -> int:
        return self.written(fd, data, None)

    def _pwrite(self, fd: int, data: Any, offset: int) -> int:
        return self.written(fd, data, offset)

    def _sendfile(self, out_fd: int, in_fd: int, offset: int | None, count: int) -> int:
        if self._file(out_fd) is None:
            sent: int = self._system["sendfile"](out_fd, in_fd, offset, count)
            return sent
        data = os.read(in_fd, count) if offset is None else os.pread(in_fd, count, offset)
        return self.written(out_fd, data, None) if data else 0

    def _ftruncate(self, fd: int, length: int) -> None:
        number = self._file(fd)
        if number is not None:
            self._fail("resize")
            self.changes.append(Change("resize", number, offset=length))
        self._system["ftruncate"](fd, length)

    def _sync(self, name: str, fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            path = os.readlink(f"/proc/self/fd/{fd}")
            if path == self.directory or path.startswith(self.directory + os.sep):
                self._fail("sync names")
                self.changes.append(Change("sync names", path=os.path.relpath(path, self.directory)))
            return
        number = self._file(fd)
        if number is None:
            self._system[name](fd)
        else:
            # Not really: whether the disk has it is what the recording decides, and the machine's own disk is slow.
            self._fail("sync")
            self.changes.append(Change("sync", number))

    def _fsync(self, fd: int) -> None:
        self._sync("fsync", fd)

    def _fdatasync(self, fd: int) -> None:
        self._sync("fdatasync", fd)

    def _named(self, kind: str, source: Any, target: Any, **named: Any) -> None:
        path, goal = self._inside(source), self._inside(target)
        if path is not None and goal is not None:
            self._meet(path)
            self._fail(kind)
            found = os.lstat(source)
            number = -1 if stat.S_ISDIR(found.st_mode) else self._numbers[found.st_ino]
            self._forget(goal, found.st_ino)
            self._system[kind](source, target, **named)
            self.changes.append(Change(kind if kind == "link" else "rename", number, path, goal))
        else:
            self._system[kind](source, target, **named)

    def _rename(self, source: Any, target: Any, **named: Any) -> None:
        self._named("rename", source, target, **named)

    def _replace(self, source: Any, target: Any, **named: Any) -> None:
        self._named("replace", source, target, **named)

    def _link(self, source: Any, target: Any, **named: Any) -> None:
        self._named("link", source, target, **named)

    def _one(self, kind: str, call: str, path: Any, dir_fd: int | None, *args: Any) -> None:
        inside = self._inside(path, dir_fd)
        if inside is not None and kind == "remove" and os.path.lexists(os.path.join(self.directory, inside)):
            self._meet(inside)
        if inside is not None:
            self._fail(kind)
            self._forget(inside)
        self._system[call](path, *args, dir_fd=dir_fd)
        if inside is not None:
            self.changes.append(Change(kind, path=inside))

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._one("remove", "unlink", path, dir_fd)

    def _remove(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._one("remove", "remove", path, dir_fd)

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self._one("mkdir", "mkdir", path, dir_fd, mode)

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._one("rmdir", "rmdir", path, dir_fd)


class _Raw(io.RawIOBase):
    """A file opened for writing by `open`, whose every write is seen."""

    def __init__(self, recording: Recording, file: Any, mode: str) -> None:
        super().__init__()
        self._recording = recording
        flags = os.O_RDWR if "+" in mode else os.O_WRONLY
        flags |= {"w": os.O_CREAT | os.O_TRUNC, "x": os.O_CREAT | os.O_EXCL, "a": os.O_CREAT}.get(mode[0], 0)
        self._fd = file if isinstance(file, int) else os.open(file, flags | os.O_CLOEXEC, 0o666)
        self.name = file
        self.mode = mode
        if mode[0] == "a":
            os.lseek(self._fd, 0, os.SEEK_END)

    def fileno(self) -> int:
        return self._fd

    def readable(self) -> bool:
        return "+" in self.mode

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return os.readv(self._fd, [buffer])

    def write(self, data: Any) -> int:
        return self._recording.written(self._fd, data, None)

    def seek(self, offset: int, whence: int = 0) -> int:
        return os.lseek(self._fd, offset, whence)

    def truncate(self, size: int | None = None) -> int:
        length = os.lseek(self._fd, 0, os.SEEK_CUR) if size is None else size
        os.ftruncate(self._fd, length)
        return length

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._fd)


_PATCHED = (
    "fdatasync",
    "fsync",
    "ftruncate",
    "link",
    "mkdir",
    "open",
    "pwrite",
    "remove",
    "rename",
    "replace",
    "rmdir",
    "sendfile",
    "unlink",
    "write",
)
