"""Packing at a client's wish; tests/integration/test_pack_served.py has it with real clients."""

import asyncio
import threading
from collections.abc import Generator
from typing import Any

import pytest

from zeo_core.errors import StorageClosedError, StorageError
from zeo_core.storage import Progress, ServedStorage
from zeo_server.commit.coordinator import Coordinator
from zeo_server.packing import Packing
from zeo_server.storages.mapping import MappingStorage

LIMIT_S = 20


class Slow(MappingStorage):
    """Its packs take as many steps as the test wants, and may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.goes_on, self.ends = threading.Event(), threading.Event(), threading.Event()
        self.fails = self.refuses = False

    def pack_steps(self, until_s: float, *, gc: bool | None = None) -> Generator[Progress, None, None]:
        if self.refuses:
            raise StorageError("is being packed already")
        while not self.ends.is_set():
            self.began.set()
            yield Progress("pack", 1, 2)
            self.goes_on.set()
        if self.fails:
            raise StorageError("no room")


async def outcome_of(storage: Slow, packing: Packing, *, close: bool = False) -> object:
    outcome: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    packing.start(0.0, outcome.set_result)
    assert await asyncio.to_thread(storage.began.wait, LIMIT_S)
    if close:
        packing.close()
    else:
        storage.ends.set()
    return await asyncio.wait_for(outcome, LIMIT_S)


async def test_a_pack_that_is_done_is_told() -> None:
    storage, told = Slow(), list[int]()
    packing = Packing(storage, asyncio.get_running_loop(), "1", lambda: told.append(1))
    assert packing.progress is None
    assert await outcome_of(storage, packing) is None
    assert told == [1]
    storage.fails = True
    assert str(await outcome_of(storage, packing)) == "no room"
    assert told == [1]


async def test_a_stopping_server_gives_it_up() -> None:
    storage = Slow()
    packing = Packing(storage, asyncio.get_running_loop(), "1", lambda: None)
    assert isinstance(await outcome_of(storage, packing, close=True), StorageClosedError)


async def test_it_tells_how_far_it_is_and_a_second_one_that_is_refused_changes_nothing() -> None:
    storage, refused = Slow(), asyncio.Event()
    packing = Packing(storage, asyncio.get_running_loop(), "1", lambda: None)
    outcome: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    packing.start(0.0, outcome.set_result)
    assert await asyncio.to_thread(storage.goes_on.wait, LIMIT_S)
    assert packing.progress == Progress("pack", 1, 2)
    storage.refuses = True
    packing.start(0.0, lambda _error: refused.set())
    await asyncio.wait_for(refused.wait(), LIMIT_S)
    assert packing.progress == Progress("pack", 1, 2)
    storage.ends.set()
    await asyncio.wait_for(outcome, LIMIT_S)
    assert packing.progress is None


async def test_a_storage_that_cannot_be_packed_says_so() -> None:
    """One that others have made need not be able to."""

    class Foreign:
        def __init__(self, storage: MappingStorage) -> None:
            for name in (*dir(ServedStorage), "check_room"):
                if not name.startswith("_"):
                    setattr(self, name, getattr(storage, name))

    foreign: Any = Foreign(MappingStorage())
    coordinator = Coordinator(foreign, asyncio.get_running_loop())
    with pytest.raises(StorageError, match="storage 1 cannot be packed"):
        coordinator.packing.start(0.0, lambda _outcome: None)
    await coordinator.close()
