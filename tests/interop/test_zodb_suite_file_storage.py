"""ZODB's own tests of a FileStorage, from the installed ZODB, run on ours; and on ZODB's, to see that they tell.

The tests are ZODB's classes: basic, undo, revisions, pack, synchronization, conflict resolution, history, iteration,
persistence, threads, read-only, races, and what it asks of FileStorage in particular; then recovery by copying. What is
here only opens the storage under test. `LEFT_OUT` names every test of those classes that is not run on ours, with the
reason.
"""

from typing import Any

import pytest
import ZODB.FileStorage
from ZODB.tests import RecoveryStorage, StorageTestBase, testFileStorage

from zeo_core.classes import import_class
from zeo_server.storages.file import FileStorage

pytestmark = pytest.mark.filterwarnings("ignore")  # what ZODB's tests leave open is theirs

SEVERAL_CLIENTS = (
    "test_race_external_invalidate_vs_disconnect",
    "test_race_load_vs_external_invalidate",
)
"""For storages with several clients; ZODB skips them for a FileStorage, and here they would count as skipped."""

LEFT_OUT = {
    "test_use_fsIndex": "looks at _index, ZODB's own index object",
    "test_conversion_to_fsIndex": "looks at _index; the index file is the same, see test_data_fs.py",
    "test_conversion_to_fsIndex_readonly": "looks at _index",
    "test_conversion_from_dict_to_btree_data_in_fsIndex": "replaces data inside _index",
    "test_save_after_load_with_no_index": "looks at _saved; when ours saves, see test_storage.py",
    "testStoreBumpsOid": "looks at _oid; what it is about, see tests/contract/test_commit.py",
    "testRestoreBumpsOid": "looks at _oid; what it is about, see tests/contract/test_undo.py",
    "testRestoreCopy": "reads records by _lookup_pos; what it is about, see tests/interop/test_undo.py",
    "testFlushNeededAfterTruncate": "breaks _files, the pool of buffers that ours does not have (lesson B26)",
    "testCorruptionInPack": "expects the class and the text of ZODB's error; ours is a FileFormatError",
}
"""Test -> why it cannot pass on our storage."""


def open_ours(path: str, **options: Any) -> FileStorage:
    """Open as ZODB's tests do; they resolve conflicts without a DB, which ours does only when told to."""
    storage = FileStorage(path, **{**options, "create": bool(options.get("create"))})
    storage.resolve_conflicts(import_class)
    return storage


class OnZODBs(testFileStorage.FileStorageTests):
    """ZODB's storage."""

    locals().update(dict.fromkeys(SEVERAL_CLIENTS))


class OnOurs(testFileStorage.FileStorageTests):
    """Our storage."""

    locals().update(dict.fromkeys([*SEVERAL_CLIENTS, *LEFT_OUT]))

    def open(self, **options: Any) -> None:
        self._storage = open_ours("FileStorageTests.fs", **options)


class _Recovery(RecoveryStorage.RecoveryStorage, StorageTestBase.StorageTestBase):
    """What ZODB asks of a storage that is copied to another."""

    __test__ = False
    opener: Any

    def setUp(self) -> None:
        super().setUp()
        self._storage = self.opener("Source.fs", create=True)
        self._dst = self.opener("Dest.fs", create=True)

    def tearDown(self) -> None:
        self._dst.close()
        super().tearDown()


class RecoveryOnZODBs(_Recovery):
    """ZODB's storages."""

    __test__ = True
    opener = staticmethod(ZODB.FileStorage.FileStorage)


class RecoveryOnOurs(_Recovery):
    """Our storages."""

    __test__ = True
    opener = staticmethod(open_ours)
