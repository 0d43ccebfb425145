"""Classes of ours that records call by the names of ZODB's, so that each reads what the other wrote.

ZODB need not be installed for that, and where it is, its own classes are not what a connection of ours can use.
"""

from io import BytesIO
from pickletools import genops
from typing import Any, Final

from zeo_client.blob import Blob
from zeo_client.persistent_class import PersistentMetaClass

__all__ = ["OWN", "stored_names", "written_by_zodb"]

OWN: Final[dict[tuple[str, str], Any]] = {
    ("ZODB.blob", "Blob"): Blob,
    ("ZODB.persistentclass", "PersistentMetaClass"): PersistentMetaClass,
}
"""Ours, by ZODB's module and name."""

_RENAMED: Final = {f"{cls.__module__} {cls.__qualname__}": name for name, cls in OWN.items()}
_MARKS: Final = [b"c" + name.replace(" ", "\n").encode() + b"\n" for name in _RENAMED]


def stored_names(cls: type) -> tuple[str, str]:
    """Return the module and the name by which records know a class."""
    return _RENAMED.get(f"{cls.__module__} {cls.__qualname__}", (cls.__module__, cls.__name__))


def written_by_zodb(record: bytes) -> bytes:
    """Return the record with ZODB's names in the place of ours; they have no other one, since pickles hold no lengths.

    The fast pickler cannot be told to write another name than that by which the class can be imported.
    """
    for mark in _MARKS:
        if mark in record:
            return _renamed(record)
    return record


def _renamed(record: bytes) -> bytes:
    """Rename what really is the name of a class; the same bytes may stand in a string."""
    source, pieces, done = BytesIO(record), [], 0
    for _ in range(2):
        for opcode, argument, position in genops(source):
            if opcode.name == "GLOBAL" and argument in _RENAMED and position is not None:
                module, name = _RENAMED[argument]
                pieces += [record[done:position], f"c{module}\n{name}\n".encode()]
                done = position + len(argument) + 2  # the opcode before it, and the end of its second line
    return b"".join([*pieces, record[done:]])
