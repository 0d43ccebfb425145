"""ZODB's own tests of a MappingStorage, from the installed ZODB, run on ours; and those of undo, which ZODB's lacks."""

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
    TransactionalUndoStorage,
)

from zeo_core.classes import import_class
from zeo_server.storages.mapping import MappingStorage


@pytest.mark.filterwarnings("ignore")  # what ZODB's tests leave open is theirs
class TestMappingStorage(
    StorageTestBase.StorageTestBase,
    BasicStorage.BasicStorage,
    ConflictResolution.ConflictResolvingStorage,
    ConflictResolution.ConflictResolvingTransUndoStorage,
    HistoryStorage.HistoryStorage,
    IteratorStorage.ExtendedIteratorStorage,
    IteratorStorage.IteratorStorage,
    MTStorage.MTStorage,
    PackableStorage.PackableStorageWithOptionalGC,
    PackableStorage.PackableUndoStorage,
    RevisionStorage.RevisionStorage,
    Synchronization.SynchronizedStorage,
    TransactionalUndoStorage.TransactionalUndoStorage,
):
    """All that ZODB asks of a storage that keeps its revisions, in memory."""

    use_extension_bytes = True

    # for storages with several clients
    test_race_load_vs_external_invalidate = None
    test_race_external_invalidate_vs_disconnect = None

    def setUp(self) -> None:
        super().setUp()
        self._storage = MappingStorage()
        self._storage.resolve_conflicts(import_class)  # ZODB's tests expect it without a DB
