"""ZODB's own tests of blob storages, on clients of a live zeod: ours, and ZEO's, for which ZEO runs them too.

Both streamed, and in a shared directory.
"""

import unittest
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ZEO.ClientStorage

from tests.interop.blob_servers import served_factory, stop_servers
from tests.interop.blob_suite import blob_cases, run_case
from zeo_client.storage import ClientStorage

pytestmark = pytest.mark.filterwarnings("ignore")  # what ZODB's tests leave open is theirs

LEFT_OUT = {
    "commit_from_wrong_partition": "it waits for lines on a logger of ZODB's own",
}
"""ZODB's tests of blob storages that cannot pass on ours -> why."""


@pytest.fixture(autouse=True)
def servers() -> Iterator[None]:
    """Stop the servers that a test's storages were on."""
    yield
    stop_servers()


CLIENTS: dict[str, Callable[..., Any]] = {"ours": ClientStorage, "ZEO": ZEO.ClientStorage.ClientStorage}

CASES = [
    pytest.param(case, id=f"{client}-{kind}-{case.id().rpartition('/')[2]}")
    for client, opens in CLIENTS.items()
    for kind in ("streamed", "shared")
    for case in blob_cases(client + kind, served_factory(opens, shared=kind == "shared"), LEFT_OUT)
]


@pytest.mark.parametrize("case", CASES)
def test_zodbs_own_tests_pass(case: unittest.TestCase) -> None:
    run_case(case)
