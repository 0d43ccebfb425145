"""A server in a thread of the test's process: its log is caught, its insides can be looked at."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from tests.server.raw_client import RawClient
from zeo_core.storage import ServedStorage
from zeo_server.access import AccessRules
from zeo_server.config import Configuration
from zeo_server.daemon import new_event_loop, serve
from zeo_server.limits import DEFAULT_LIMITS, Limits
from zeo_server.listener import Address
from zeo_server.service import Service
from zeo_server.storages.mapping import MappingStorage

__all__ = ["InProcess", "in_process"]

Result = TypeVar("Result")

LIMIT_S = 20


class InProcess:
    """A running server: its `address`, its `service`, and the loop in which everything has to be asked."""

    def __init__(self, loop: asyncio.AbstractEventLoop, address: Address, service: Service) -> None:
        self.address = address
        self.service = service
        self._loop = loop

    def client(self, storage: str = "1", *, read_only: bool = False, register: bool = True) -> RawClient:
        return RawClient(self.address, storage, read_only=read_only, register=register)

    def ask(self, function: Callable[[], Result]) -> Result:
        """Return what `function` returns in the server's loop."""

        async def call() -> Result:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(LIMIT_S)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition`, asked in the server's loop, is true."""

        async def wait() -> None:
            while not condition():
                await asyncio.sleep(0.001)

        asyncio.run_coroutine_threadsafe(asyncio.wait_for(wait(), LIMIT_S), self._loop).result(2 * LIMIT_S)


@contextmanager
def in_process(
    storages: Mapping[str, ServedStorage] | None = None,
    *,
    address: Address = ("127.0.0.1", 0),
    read_only: bool = False,
    uvloop: bool = True,
    access: AccessRules | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[InProcess]:
    """Serve `storages`, a MappingStorage named 1 by default."""
    served = dict(storages or {"1": MappingStorage()})
    configuration = Configuration(address, (), read_only=read_only, access=access, limits=limits)
    ready = threading.Event()
    started: list[InProcess] = []
    stop = threading.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        listener, service = await serve(configuration, served)
        started.append(InProcess(loop, listener.address, service))
        ready.set()
        await loop.run_in_executor(None, stop.wait)
        listener.close()
        await service.stop(grace_s=0)

    def run() -> None:
        with asyncio.Runner(loop_factory=new_event_loop() if uvloop else asyncio.new_event_loop) as runner:
            runner.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(LIMIT_S)
    try:
        yield started[0]
    finally:
        stop.set()
        thread.join(LIMIT_S)
        for storage in served.values():
            storage.close()
    assert not thread.is_alive()
