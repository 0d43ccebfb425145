"""A storage whose loads take a while after they have found what they give: in the place of ZEO's LoadDelayedStorage.

What is committed and announced in between is what a server must not send before such an answer (lesson B2). zeod has
two ways of loading, in the loop from memory and in a thread from the disk: every other load goes to a thread here, and
takes its time there.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from zeo_core.ids import Oid, Tid
from zeo_core.storage import ServedStorage
from zeo_core.transaction import Revision
from zeo_server.config import StorageSection
from zeo_server.storages.file import FileStorage

__all__ = ["DELAY_S", "DelayedFileStorage", "delayed"]

DELAY_S = 0.01


class DelayedFileStorage(FileStorage):
    """A FileStorage every other load of which takes a while."""

    _turns: Iterator[bool] = itertools.cycle((True, False))

    def load_cached(self, oid: Oid, tid: Tid) -> Revision | None:
        """Load from memory, or say that the disk has to be waited for, in turns."""
        if next(self._turns):
            raise BlockingIOError
        return super().load_cached(oid, tid)

    def load_before(self, oid: Oid, tid: Tid) -> Revision | None:
        """Load, and wait before telling."""
        try:
            return super().load_before(oid, tid)
        finally:
            time.sleep(DELAY_S)

    def load_serial(self, oid: Oid, tid: Tid) -> bytes:
        """Load, and wait before telling."""
        try:
            return super().load_serial(oid, tid)
        finally:
            time.sleep(DELAY_S)


def delayed(section: StorageSection) -> StorageSection:
    """Return the section of a FileStorage as one of a delayed one."""
    path = section.what
    opens: Callable[[], ServedStorage] = lambda: DelayedFileStorage(path)  # noqa: E731
    return replace(section, open=opens)
