"""Where a blob directory keeps which blob: ZODB's two layouts, and how to tell which one a directory has.

    .layout                                     the layout's name, `bushy` or `lawn`
    tmp/                                        files that belong to no committed transaction
    0x00/0x00/0x00/0x00/0x00/0x00/0x12/0x34/    bushy: the object's directory, one level for each byte of its oid
    0x1234/                                     lawn: the oid without leading zero bytes
        0x03c8b1a2b3c4d5e6.blob                 the revision that transaction 0x03c8b1a2b3c4d5e6 wrote

A directory without `.layout` is bushy if it is missing or has nothing in it but names that start with a dot, else lawn,
which is what ZODB before 3.9 wrote.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from zeo_core.errors import StorageError
from zeo_core.ids import Oid, Tid, oid_repr

__all__ = ["BUSHY", "LAWN", "LAYOUTS", "MARKER", "SUFFIX", "Layout", "chosen", "file_name", "tid_of"]

MARKER = ".layout"
"""The file that names the layout."""

SUFFIX = ".blob"
"""How the names of committed blob files end."""

_BYTE = re.compile(r"0x[0-9a-f]{2}", re.ASCII)
_NUMBER = re.compile(r"0x([0-9a-f]{2}){1,8}", re.ASCII)


class Layout(NamedTuple):
    """One way to name the directories of objects. `depth` is how many levels of names lead to one."""

    name: str
    depth: int
    level: re.Pattern[str]
    directory: Callable[[Oid], str]

    def oid_of(self, names: tuple[str, ...]) -> Oid | None:
        """Return the oid whose directory is at `names` below the blob directory, None if that is no such directory."""
        if len(names) != self.depth or not all(self.level.fullmatch(name) for name in names):
            return None
        return bytes.fromhex("".join(name[2:] for name in names).rjust(16, "0"))


def _bushy_directory(oid: Oid) -> str:
    return "/".join(f"0x{byte:02x}" for byte in oid)


BUSHY = Layout("bushy", 8, _BYTE, _bushy_directory)
"""One level of directories for each byte of the oid: no directory ever has more than 256 others."""

LAWN = Layout("lawn", 1, _NUMBER, oid_repr)
"""One directory for each object, all side by side."""

LAYOUTS = {layout.name: layout for layout in (BUSHY, LAWN)}
"""The layouts by name."""


def file_name(tid: Tid) -> str:
    """Return the name of the file of the revision that `tid` wrote."""
    return oid_repr(tid) + SUFFIX  # ZODB prints both kinds of ids one way


def tid_of(name: str) -> Tid | None:
    """Return the tid of the revision that is in the file `name`, None if that is no blob file."""
    number = name.removesuffix(SUFFIX)
    if number == name or not _NUMBER.fullmatch(number):
        return None
    return bytes.fromhex(number[2:].rjust(16, "0"))


def chosen(path: str, marked: str | None, *, in_use: bool, wanted: str | None = None) -> Layout:
    """Return the layout of the blob directory at `path`, given the name in its marker and whether anything is in it.

    `wanted` decides where there is no marker. StorageError if the marker names another layout than `wanted`, or none
    that we know.
    """
    if marked is not None and wanted not in (None, marked):
        raise StorageError(f"{path}: its layout is {marked}, not {wanted}")
    name = marked or wanted or ("lawn" if in_use else "bushy")
    layout = LAYOUTS.get(name)
    if layout is None:
        raise StorageError(f"{path}: unknown blob layout {name!r:.50}, it must be one of {', '.join(sorted(LAYOUTS))}")
    return layout
