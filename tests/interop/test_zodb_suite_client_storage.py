"""ZODB's own tests of a storage, from the installed ZODB, run on clients of a live zeod: ours, and ZEO's.

The tests are ZODB's classes, the same that it runs on a FileStorage: basic, undo, revisions, pack, synchronization,
conflict resolution, history, iteration, persistence, threads, read-only; then recovery by copying. All of them pass;
what is here only opens the storage under test: a fresh storage of one server for each.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ZEO.ClientStorage
from ZODB.tests import (
    BasicStorage,
    ConflictResolution,
    HistoryStorage,
    IteratorStorage,
    MTStorage,
    PackableStorage,
    PersistentStorage,
    ReadOnlyStorage,
    RecoveryStorage,
    RevisionStorage,
    StorageTestBase,
    Synchronization,
    TransactionalUndoStorage,
)

from tests.fixtures_zeod import Zeod, launch
from zeo_client.storage import ClientStorage

pytestmark = pytest.mark.filterwarnings("ignore")  # what ZODB's tests leave open is theirs

STORAGES = 250
"""More than there are tests."""

RACES = (
    "test_race_external_invalidate_vs_disconnect",
    "test_race_load_vs_external_invalidate",
    "test_race_loadopen_vs_local_invalidate",
)
"""These run in test_zodb_suite_races.py and, with ZEO's client, in test_zeo_suite.py."""

_CONF = """
<zeo>
  address ./zeod.sock
  conflict-resolution-classes default ZODB.tests.ConflictResolution.*
</zeo>
"""


class _Server:
    """One zeod with many storages, each used once."""

    def __init__(self, directory: Path) -> None:
        sections = [f"<filestorage {number}>\n  path {number}.fs\n</filestorage>\n" for number in range(STORAGES)]
        (directory / "zeo.conf").write_text(_CONF + "".join(sections))
        self.process: Zeod = launch(directory, directory / "zeod.log", "-C", "zeo.conf")
        self._names = map(str, itertools.count())

    def fresh(self) -> str:
        return next(self._names)


@pytest.fixture(scope="module", autouse=True)
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    _Served.server = _Server(tmp_path_factory.mktemp("served"))
    yield
    assert _Served.server.process.stop() == 0


class _Served(StorageTestBase.StorageTestBase):
    """Opens what ZODB's tests ask for."""

    __test__ = False
    server: _Server
    client: Any

    def setUp(self) -> None:
        super().setUp()
        self._name = self.server.fresh()
        self._others: list[Any] = []
        self.open()

    def tearDown(self) -> None:
        for other in self._others:
            other.close()
        super().tearDown()

    def open(self, **options: Any) -> None:
        self._storage = self._connect(self._name, **options)

    def _connect(self, name: str, **options: Any) -> Any:
        return self.client(self.server.process.address, name, wait_timeout=20, **options)

    def _new_storage_client(self) -> Any:
        self._others.append(self._connect(self._name))
        return self._others[-1]


class _Suite(
    _Served,
    BasicStorage.BasicStorage,
    TransactionalUndoStorage.TransactionalUndoStorage,
    RevisionStorage.RevisionStorage,
    PackableStorage.PackableStorage,
    PackableStorage.PackableUndoStorage,
    Synchronization.SynchronizedStorage,
    ConflictResolution.ConflictResolvingStorage,
    ConflictResolution.ConflictResolvingTransUndoStorage,
    HistoryStorage.HistoryStorage,
    IteratorStorage.IteratorStorage,
    IteratorStorage.ExtendedIteratorStorage,
    PersistentStorage.PersistentStorage,
    MTStorage.MTStorage,
    ReadOnlyStorage.ReadOnlyStorage,
):
    """What ZODB asks of a FileStorage."""

    # The server's clock is its own: the test does not need ZODB's, which runs ahead.
    testPackUndoLog = PackableStorage.PackableUndoStorage.testPackUndoLog.__wrapped__  # noqa: N815


class _Recovery(_Served, RecoveryStorage.RecoveryStorage):
    """What ZODB asks of a storage that is copied to another."""

    def setUp(self) -> None:
        super().setUp()
        self._dst = self._connect(self.server.fresh())
        self._others.append(self._dst)


class OnOurs(_Suite):
    """Our client."""

    __test__ = True
    client = ClientStorage
    use_extension_bytes = True  # what a log has is not pickled anew on its way
    locals().update(dict.fromkeys(RACES))


class RecoveryOnOurs(_Recovery):
    """Our client."""

    __test__ = True
    client = ClientStorage


@pytest.mark.slow
class OnZEOs(_Suite):
    """ZEO's client."""

    __test__ = True
    client = ZEO.ClientStorage.ClientStorage
    locals().update(dict.fromkeys(RACES))


@pytest.mark.slow
class RecoveryOnZEOs(_Recovery):
    """ZEO's client."""

    __test__ = True
    client = ZEO.ClientStorage.ClientStorage
