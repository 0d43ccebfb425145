"""ZEO's own tests of its client, from the installed ZEO, run on our client, with zeod as the server process.

What is here only puts our ClientStorage in the place of ZEO's; test_zeo_suite.py runs the same tests with ZEO's client.
`LEFT_OUT` names the cases that are not run, with the reason: mostly that they look into ZEO's client.
"""

import itertools
import re
import unittest
from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from ZEO.tests import ConnectionTests, testConnection, testZEO

from tests.client.peer import until
from tests.interop.test_zeo_suite import _flat, _name
from tests.interop.zeo_servers import zeod_for_runzeo
from zeo_client.storage import ClientStorage

pytestmark = pytest.mark.filterwarnings("ignore")  # what ZEO's tests leave open is theirs

LEFT_OUT = {
    r".*\.checkBadMessage.*": "sends bytes by the protocol object of ZEO's client",
    r".*\.check(NoVerification|QuickVerification|Verification).*": "looks at what ZEO's client notes of a verification",
    r".*\.check(Iterator(GC|Exhaustion)).*": "looks at the iterators that ZEO's client keeps",
    r".*\.checkSortKey": "compares with attributes of ZEO's client",
    r".*\.check(BasicPersistence|DisconnectedCache.*)": (
        "wants a cache read before any server has vouched for it (lesson B10)"
    ),
    r".*\.checkInterfaceFromRemoteStorage": "wants interfaces declared for the object and not for its class",
    r".*\.testTransactionExtensionFromIterator": "wants the bytes of an extension changed, as ZEO does",
    r".*\.checkCommitLock.*|.*\.invalidations_while_connecting": "calls the server by methods of ZEO's client",
    r".*\.checkTimeoutAfterVote": "looks into the cache of ZEO's client",
    r".*\.check(DisconnectedOnThread2Close|SecondBeginFails)": "stores with a serial that is a text",
    r".*\.checkCheckForOutOfDateServer": (
        "wants no connection to a server that was restored from a backup; our clients drop their caches (B12)"
    ),
    r".*\.checkReconnectReadOnly": "wants ReadOnlyError of a client that is not connected; ours is ClientDisconnected",
}
"""A pattern of cases -> why they are not run."""

QUICK = (
    r"testConnection\.FileStorageConnectionTests\.check(CrossDB|MultipleAddresses|ReadOnly).*",
    r"testConnection\.FileStorageReconnectionTests\.checkReconnect(Fallback|Switch|Upgrade)",
    r"testZEO\.FileStorageTests\.check(Conflicts|LargeUpdate|ZEOInvalidation).*",
)
"""Patterns of the cases that are run with every run of the tests; the others are slow, together."""


class OurClientStorage(ClientStorage):
    """Ours, with what ZEO's tests need beside the storage's methods."""

    test_connection = False
    _connection_generation = 1

    def __init__(self, addr: Any, storage: str = "1", **options: Any) -> None:
        # ZEO's tests let calls fail soon while the server is away; here another argument says when.
        options["reconnect_timeout"] = 4
        self._addr = addr  # for clients to the same server
        self._server = SimpleNamespace(timeout=4)  # which some set while they expect calls to fail
        super().__init__(addr, storage, **options)

    def server_status(self, timeout: float = 0.0) -> dict[str, Any]:
        """Wait for a server for so long, and return what it says of itself."""
        if timeout:
            until(self.is_connected, timeout)
        return super().server_status()


def _chosen() -> Iterator[Any]:
    loader = unittest.TestLoader()
    suites = [testConnection.test_suite()]
    for prefix in ("test", "check"):
        loader.testMethodPrefix = prefix
        suites.append(loader.loadTestsFromTestCase(testZEO.FileStorageTests))
    cases = {_name(case): case for case in itertools.chain.from_iterable(map(_flat, suites))}
    for name, case in sorted(cases.items()):
        if not any(re.fullmatch(pattern, name) for pattern in LEFT_OUT):
            quick = any(re.fullmatch(pattern, name) for pattern in QUICK)
            yield pytest.param(case, id=name, marks=() if quick else pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def _servers() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(zeod_for_runzeo())
        stack.enter_context(patch.object(ConnectionTests, "TestClientStorage", OurClientStorage))
        stack.enter_context(patch.object(testZEO, "ClientStorage", OurClientStorage))
        stack.enter_context(patch("ZEO.ClientStorage.ClientStorage", OurClientStorage))
        yield


@pytest.mark.parametrize("case", list(_chosen()))
def test_zeos_own_tests_pass(case: unittest.TestCase) -> None:
    result = unittest.TestResult()
    case.run(result)
    vars(case).clear()  # what it left open goes now, and not at the end of all tests
    assert not result.skipped
    assert result.wasSuccessful(), "\n".join(text for _case, text in result.errors + result.failures)
