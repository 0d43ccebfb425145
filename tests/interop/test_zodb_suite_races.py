"""ZODB's races, from the installed ZODB: our DB on our storages, in one process and with several clients of a zeod."""

import gc
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import transaction

import zeo_client
from tests.fixtures_zeod import StartZeod
from tests.interop.zodb_face import Face
from tests.interop.zodb_words import OURS
from zeo_server.storages.demo import DemoStorage
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

pytestmark = pytest.mark.filterwarnings("ignore")  # ZODB's racers leave connections to the garbage collector

FACE = Face(OURS)
RACES: Any = FACE.test_module("racetest", {})
MODELS = [RACES.T2ObjectsInc, RACES.T2ObjectsInc2Phase]


class Racers(RACES.RaceTests):
    """ZODB's races for one storage; what they need of a TestCase is `fail` and `skipTest`."""

    def __init__(self, storage: Any, new_client: Callable[[], Any] | None = None) -> None:
        self._storage = storage
        self._new_client = new_client

    def _new_storage_client(self) -> Any:
        assert self._new_client is not None
        return self._new_client()

    def fail(self, message: str) -> None:
        raise AssertionError(message)


@pytest.fixture(autouse=True)
def a_thread_without_transaction() -> Iterator[None]:
    transaction.abort()
    transaction.manager.clearSynchs()
    with FACE.worn():
        yield
    transaction.abort()
    transaction.manager.clearSynchs()
    gc.collect()  # while the warnings of what ZODB's racers leave open are ignored


def test_the_racers_have_our_db() -> None:
    assert RACES.DB is zeo_client.DB


def mapping(_directory: Path) -> Any:
    return MappingStorage()


def file(directory: Path) -> Any:
    return FileStorage(directory / "Data.fs")


def demo(directory: Path) -> Any:
    return DemoStorage(base=FileStorage(directory / "Data.fs"))


@pytest.mark.parametrize("make", [mapping, file, demo])
@pytest.mark.parametrize("model", MODELS)
def test_opening_and_loading_race_with_commits_of_the_same_process(
    tmp_path: Path, make: Callable[[Path], Any], model: Any
) -> None:
    with closing(make(tmp_path)) as storage:
        Racers(storage)._check_race_loadopen_vs_local_invalidate(model())


@pytest.fixture
def racers(start_zeod: StartZeod) -> Iterator[Racers]:
    """Racers with a client of a zeod, and new clients whenever they want one."""
    address = start_zeod("-f", "Data.fs").address
    storage = zeo_client.ClientStorage(address)
    yield Racers(storage, lambda: zeo_client.ClientStorage(address))
    storage.close()


@pytest.mark.parametrize("model", MODELS)
def test_opening_and_loading_race_with_commits_over_one_client(racers: Racers, model: Any) -> None:
    racers._check_race_loadopen_vs_local_invalidate(model())


@pytest.mark.parametrize("model", MODELS)
def test_loads_race_with_the_invalidations_of_other_clients(racers: Racers, model: Any) -> None:
    racers._check_race_load_vs_external_invalidate(model())


@pytest.mark.slow
def test_invalidations_race_with_clients_that_come_and_go(racers: Racers) -> None:
    racers._check_race_external_invalidate_vs_disconnect(RACES.T2ObjectsInc2Phase())
