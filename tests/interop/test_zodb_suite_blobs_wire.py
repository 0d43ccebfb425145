"""ZODB's own tests of blob storages, on clients of a live zeod: ours, and ZEO's, for which ZEO runs them too.

Both streamed, and in a shared directory.
"""

import os
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ZEO.ClientStorage

from tests.fixtures_zeod import Zeod, launch
from tests.interop.blob_suite import blob_cases, run_case
from zeo_client.storage import ClientStorage

pytestmark = pytest.mark.filterwarnings("ignore")  # what ZODB's tests leave open is theirs

LEFT_OUT = {
    "commit_from_wrong_partition": "it waits for lines on a logger of ZODB's own",
}
"""ZODB's tests of blob storages that cannot pass on ours -> why."""

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


@pytest.fixture(autouse=True)
def servers() -> Iterator[None]:
    """Stop the servers that a test's storages were on."""
    yield
    while SERVERS:
        SERVERS.pop().stop()


def _factory(client: Callable[..., Any], *, shared: bool) -> Callable[[str, str], Any]:
    def open_storage(name: str, blob_dir: str) -> Any:
        directory = Path(f"{name}-server-{len(SERVERS)}").absolute()
        directory.mkdir()
        blobs = os.path.abspath(blob_dir)
        (directory / "zeo.conf").write_text(_CONF.format(blobs=blobs if shared else "blobs"))
        server = launch(directory, directory / "log", "-C", "zeo.conf")
        SERVERS.append(server)
        return client(server.address, blob_dir=blobs, shared_blob_dir=shared, wait_timeout=20)

    return open_storage


CLIENTS: dict[str, Callable[..., Any]] = {"ours": ClientStorage, "ZEO": ZEO.ClientStorage.ClientStorage}

CASES = [
    pytest.param(case, id=f"{client}-{kind}-{case.id().rpartition('/')[2]}")
    for client, opens in CLIENTS.items()
    for kind in ("streamed", "shared")
    for case in blob_cases(client + kind, _factory(opens, shared=kind == "shared"), LEFT_OUT)
]


@pytest.mark.parametrize("case", CASES)
def test_zodbs_own_tests_pass(case: unittest.TestCase) -> None:
    run_case(case)
