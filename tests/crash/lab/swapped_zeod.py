"""A zeod that is broken on purpose: it tells the clients of a commit first, and shows it to them a moment later."""

import asyncio

from zeo_core.storage import Announce, WrittenGroup
from zeo_server.cli.zeod import main
from zeo_server.storages.file import FileStorage
from zeo_server.storages.file.writer import FileGroup

_LATER_S = 0.004

_publish = FileStorage.publish


def _told_first(self: FileStorage, group: WrittenGroup, announce: Announce | None = None) -> None:
    if announce is not None and isinstance(group, FileGroup):
        for tid, oids in zip(group.tids, group.oids, strict=True):
            announce(tid, oids)
    asyncio.get_event_loop().call_later(_LATER_S, _publish, self, group)


if __name__ == "__main__":
    FileStorage.publish = _told_first  # type: ignore[method-assign]
    main()
