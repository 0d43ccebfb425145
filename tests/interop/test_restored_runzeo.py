"""Lesson B12 with ZEO's own server: our client outlives it, and it comes back from a backup and goes on from there.

ZEO's server tells what is later than any tid, also than one that it does not have any more. ZEO's client then serves
revisions that exist nowhere (test_lessons.py); ours looks for its last transaction in the server's log.
"""

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from tests.client.peer import until
from tests.fixtures_runzeo import RunZEO, StartRunZEO
from tests.proxy import Proxy
from tests.server.raw_client import RawClient
from zeo_client.storage import ClientStorage
from zeo_core.ids import ZERO_TID, pack_id, successor

X, Y = pack_id(1), pack_id(2)


def come_back(start_runzeo: StartRunZEO, server: RunZEO, proxy: Proxy, copy: Path | None, path: Path) -> None:
    """Stop the server, put a copy in the place of its file, and commit something else on the new one."""
    proxy.refusing = True
    server.stop()
    proxy.cut()
    if copy is not None:
        for left in path.parent.glob("Data.fs*"):
            left.unlink()
        shutil.copy(copy, path)
    proxy.target = start_runzeo(path).address
    with RawClient(proxy.target) as writer:
        writer.commit({Y: (ZERO_TID, b"later")})
    proxy.refusing = False


@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize("restored", [False, True])
def test_a_cache_is_believed_only_by_the_history_that_it_is_of(
    start_runzeo: StartRunZEO, tmp_path: Path, restored: bool, disk: bool
) -> None:
    path, copy = tmp_path / "Data.fs", tmp_path / "backup"
    server = start_runzeo(path)
    options = {"cache": tmp_path / "cache"} if disk else {}
    with (
        Proxy(server.address) as proxy,
        closing(ClientStorage(proxy.address, reconnect_timeout=20, **options)) as client,  # type: ignore[arg-type]
    ):
        with RawClient(proxy.target) as writer:
            first = writer.commit({X: (ZERO_TID, b"as backed up")})
            shutil.copy(path, copy)
            second = writer.commit({X: (first, b"after the backup")})
        until(lambda: client.last_tid() == second)
        assert client.load_before(X, successor(second)) == (b"after the backup", second, None)
        come_back(start_runzeo, server, proxy, copy if restored else None, path)
        until(lambda: client.is_connected() and client.last_tid() > second)
        last = successor(client.last_tid())
        known = client._cache.load_before(X, last)
        if restored:
            assert known is None
            assert client.load_before(X, last) == (b"as backed up", first, None)
        else:
            assert known == (b"after the backup", second, None)
