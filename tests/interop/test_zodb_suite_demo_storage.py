"""ZODB's own tests of a DemoStorage, from the installed ZODB, run on ours."""

from collections.abc import Iterator

import pytest
from ZODB.tests import (
    BasicStorage,
    ConflictResolution,
    HistoryStorage,
    IteratorStorage,
    MTStorage,
    PackableStorage,
    RevisionStorage,
    StorageTestBase,
    Synchronization,
)

from zeo_core.classes import import_class
from zeo_server.storages.demo import DemoStorage
from zeo_server.storages.file import FileStorage


@pytest.mark.filterwarnings("ignore")  # what ZODB's tests leave open is theirs
class Suite(
    StorageTestBase.StorageTestBase,
    BasicStorage.BasicStorage,
    ConflictResolution.ConflictResolvingStorage,
    HistoryStorage.HistoryStorage,
    IteratorStorage.ExtendedIteratorStorage,
    IteratorStorage.IteratorStorage,
    MTStorage.MTStorage,
    PackableStorage.PackableStorage,
    RevisionStorage.RevisionStorage,
    Synchronization.SynchronizedStorage,
):
    """What ZODB asks of its DemoStorage; of packs, which here keep all objects, see tests/contract/test_pack.py."""

    use_extension_bytes = True

    # for storages with several clients
    test_race_load_vs_external_invalidate = None
    test_race_external_invalidate_vs_disconnect = None

    def setUp(self) -> None:
        super().setUp()
        self._storage = self.open()
        self._storage.resolve_conflicts(import_class)  # ZODB's tests expect it without a DB

    def open(self) -> DemoStorage:
        raise NotImplementedError

    def testBaseHistory(self) -> None:  # noqa: N802 - unittest's
        """Of an object's history a part may be the base's, or all."""
        for layer_after in range(4):

            def commits(layer_after: int = layer_after) -> Iterator[int]:
                for number in range(3):
                    if number == layer_after:
                        self._storage = self._storage.push()
                    yield 11 + number
                if layer_after == 3:
                    self._storage = self._storage.push()

            below = self._storage
            self._checkHistory(commits())
            assert self._storage.pop() is below
            self._storage = below


class TestInMemory(Suite):
    """Changes in memory over a base in memory."""

    def open(self) -> DemoStorage:
        return DemoStorage()


class TestOnFiles(Suite):
    """Changes in a file over a base in a file."""

    def open(self) -> DemoStorage:
        return DemoStorage(base=FileStorage("Base.fs"), changes=FileStorage("Changes.fs"))


del Suite  # it is no test of its own
