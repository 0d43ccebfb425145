"""Saving the index from time to time, beside loads and commits, so that no opening has to scan more than a little.

The copy of the index is taken under the lock under which transactions are published: 8 bytes an object, copied by C, a
millisecond for half a million objects. Writing and syncing it waits for nobody. It is put in place only if the storage
still reads from the file that it describes: a pack may have gone over to another one meanwhile.
"""

import contextlib
import logging
import os
from collections.abc import Callable
from threading import Lock, Thread

from zeo_server.storages import durable
from zeo_server.storages.file.generation import Generation

__all__ = ["IndexSaver"]

logger = logging.getLogger(__name__)


class IndexSaver:
    """Keeps `path` (the index file) near the storage's end: what is saved describes the file up to `saved_end`.

    `current` returns the storage's generation, None once it is closed, and `lock` is held by whoever changes it. A save
    that fails is a warning: without it the next opening is slow, not wrong.
    """

    def __init__(
        self, path: str, saved_end: int, every_bytes: int, lock: Lock, current: Callable[[], Generation | None]
    ) -> None:
        self.saved_end = saved_end
        self._path = path
        self._temporary = path + "_tmp"
        self._every_bytes = every_bytes
        self._lock = lock
        self._current = current
        self._saving = Lock()
        self._begun_at = saved_end

    def forget(self) -> None:
        """Take note that no index is saved: another file has taken the place of the one it described."""
        self.saved_end = self._begun_at = 0

    def grown(self, end: int) -> None:
        """Take note of the storage's end; save the index in a thread if much has been added since the last time."""
        if end - max(self.saved_end, self._begun_at) > self._every_bytes:
            self._begun_at = end  # also a save that fails is tried again only after as much more
            Thread(target=self.save, name=f"zeod saves {self._path}", daemon=True).start()

    def save(self) -> None:
        """Save the index as of now, unless it is saved; waits for a save in progress."""
        with self._saving:
            with self._lock:
                generation = self._current()
                if generation is None or generation.end == self.saved_end:
                    return
                end, blocks = generation.end, list(generation.index.saved(generation.end))
            try:
                durable.write_new(self._temporary, blocks)
                self._put_in_place(generation, end)
            except OSError as error:
                logger.warning("%s: the index could not be saved: %s", self._path, error)

    def _put_in_place(self, generation: Generation, end: int) -> None:
        with self._lock:
            if self._current() is not generation:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._temporary)
                return
            os.replace(self._temporary, self._path)
            self.saved_end = end
        durable.sync_directory(self._path)
