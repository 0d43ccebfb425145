"""Having a storage packed at a client's wish: in a thread, in which the work is waited for that is done elsewhere."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator

from zeo_core.errors import StorageClosedError, StorageError
from zeo_core.storage import Packs, Progress, ServedStorage
from zeo_server.commit.transaction import Answer

__all__ = ["Packing"]

_log = logging.getLogger("ZEO.StorageServer")


class Packing:
    """The packing of one storage; `packed` is called when one is done."""

    def __init__(
        self, storage: ServedStorage, loop: asyncio.AbstractEventLoop, name: str, packed: Callable[[], None]
    ) -> None:
        self._storage = storage
        self._loop = loop
        self._name = name
        self._packed = packed
        self._closed = threading.Event()
        self._running = 0
        self.progress: Progress | None = None
        """How far the pack is that is going on, None if there is none. Its thread replaces it, whole."""

    def start(self, until_s: float, answer: Answer) -> None:
        """Pack; `answer` gets None, or the error. StorageError if it is no storage that can be packed."""
        storage = self._storage
        if not isinstance(storage, Packs):
            raise StorageError(f"storage {self._name} cannot be packed")

        def packed(future: "asyncio.Future[None]") -> None:
            error = future.exception()
            self._running -= 1
            if not self._running:  # one that is refused, since there is one, ends before that one
                self.progress = None
            if error is None:
                _log.info("%s: packed, %d bytes now", self._name, storage.byte_size())
                self._packed()
            else:
                _log.error("%s: not packed: %s", self._name, error)
            answer(error)

        _log.info("%s: packing %d bytes", self._name, storage.byte_size())
        steps = storage.pack_steps(until_s)
        self._running += 1
        self._loop.run_in_executor(None, self._walk, steps).add_done_callback(packed)

    def close(self) -> None:
        """Give up what is going on: a server that stops must not wait for it."""
        self._closed.set()

    def _walk(self, steps: Iterator[Progress]) -> None:
        for step in steps:
            self.progress = step
            if self._closed.is_set():
                raise StorageClosedError("the server is stopping")
