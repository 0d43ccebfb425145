"""Servers with blobs for ZODB's own tests of blob storages, which ask for a storage by name."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fixtures_zeod import Zeod, launch

__all__ = ["served_factory", "stop_servers"]

_CONF = """
<zeo>
  address ./zeod.sock
</zeo>
<filestorage>
  path Data.fs
  blob-dir {blobs}
</filestorage>
"""

SERVERS: list[Zeod] = []


def stop_servers() -> None:
    """Stop the servers that a test's storages were on."""
    while SERVERS:
        SERVERS.pop().stop()


def served_factory(client: Callable[..., Any], *, shared: bool) -> Callable[[str, str], Any]:
    """Return what makes a `client`, ours or ZEO's, on a server of its own, of a name and a directory for blobs."""

    def open_storage(name: str, blob_dir: str) -> Any:
        directory = Path(f"{name}-server-{len(SERVERS)}").absolute()
        directory.mkdir()
        blobs = os.path.abspath(blob_dir)
        (directory / "zeo.conf").write_text(_CONF.format(blobs=blobs if shared else "blobs"))
        server = launch(directory, directory / "log", "-C", "zeo.conf")
        SERVERS.append(server)
        return client(server.address, blob_dir=blobs, shared_blob_dir=shared, wait_timeout=20)

    return open_storage
