"""Several databases at once, written by one of ZODB's DB and ours and read by the other."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZODB
import ZODB.FileStorage
from persistent.wref import WeakRef

from tests.client.objects import Node, WithNewArgs
from zeo_client.db import DB
from zeo_server.storages.file import FileStorage

Databases = dict[str, Any]


def ours(directory: Path) -> Databases:
    databases: Databases = {}
    for name in "12":
        DB(FileStorage(directory / f"{name}.fs"), database_name=name, databases=databases)
    return databases


def zodbs(directory: Path) -> Databases:
    databases: Databases = {}
    for name in "12":
        ZODB.DB(ZODB.FileStorage.FileStorage(str(directory / f"{name}.fs")), database_name=name, databases=databases)
    return databases


@pytest.fixture(autouse=True)
def _importable() -> Iterator[None]:
    """ZODB finds the classes by their module."""
    importlib.import_module(Node.__module__)
    assert Node.__module__ in sys.modules
    yield
    transaction.abort()


@pytest.mark.parametrize(("write", "read"), [(ours, zodbs), (zodbs, ours)], ids=["ours first", "zodb first"])
def test_references_across_databases(
    write: Callable[[Path], Databases], read: Callable[[Path], Databases], tmp_path: Path
) -> None:
    databases = write(tmp_path)
    first = databases["1"].open()
    second = first.get_connection("2")
    first.root.node, first.root.named = Node(value=1), WithNewArgs("key")
    transaction.commit()
    second.root.found = [first.root.node, first.root.named, WeakRef(first.root.node)]
    transaction.commit()
    first.close()
    for db in databases.values():
        db.close()

    databases = read(tmp_path)
    second = databases["2"].open()
    node, named, weak = second.root.found
    first = second.get_connection("1")
    assert node is first.root.node is weak()
    assert named is first.root.named
    assert (node.value, named.note) == (1, "keykey")
    node.value = 2
    second.root.found = [weak, named, node]
    transaction.commit()
    second.close()
    for db in databases.values():
        db.close()

    databases = write(tmp_path)
    second = databases["2"].open()
    weak, named, node = second.root.found
    assert weak() is node
    assert node.value == 2
    for db in databases.values():
        db.close()
