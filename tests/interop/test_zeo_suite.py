"""ZEO's own tests of its client, from the installed ZEO, run with zeod as the server process.

Storages of all kinds under the tests that ZEO takes from ZODB, connections lost and found, invalidations, threads,
iteration, blobs, TLS, and those doctests for which a server is started. What is here only puts zeod in the place of
runzeo. `LEFT_OUT` names the cases that are not run, with the reason.
"""

import doctest
import itertools
import re
import unittest
from collections.abc import Iterator
from typing import Any

import pytest
from ZEO.tests import test_client_side_conflict_resolution, test_sync, testConfig, testConnection, testssl, testZEO

from tests.interop.zeo_servers import zeod_for_runzeo

pytestmark = pytest.mark.filterwarnings("ignore")  # what ZEO's tests leave open is theirs

LEFT_OUT = {
    r"testZEO\.test_(ruok|server_status)": "compares all figures, and ours has more; see tests/server/test_status.py",
    # no zeod is asked: the test has ZEO's server in its own process, or none
    r"testZEO\.Test_convenience_functions\..*": "mocks in the place of a server",
    r"testZEO\.ClientDisconnected_errors_are_TransientErrors": "compares classes of ZEO's",
    r"testZEO\.(getInvalidationsAfterServerRestart|multiple_storages_invalidation_queue_is_not_insane)": (
        "calls the methods of ZEO's server object"
    ),
    r"testZEO\.runzeo_.*|zdoptions_test": "is about the program runzeo; for ours see tests/server/cli/test_zeod.py",
    r"dynamic_server_ports_test": "takes ZEO's server object out of its module",
    r"testssl\.SSLConfigTestMockiavellian\..*": "mocks in the place of ssl",
    r"test_sync\..*": "looks into ZEO's server object",
    r"test_client_side_conflict_resolution\..*\.test_server_side": "calls the methods of ZEO's server object",
    r"util\.AAAA_Test_Runner_Hack\.testNothing": "tests nothing",
    # run elsewhere
    r"blob_.*|testblob\..*": "test_zodb_suite_blobs_wire.py runs it, with ZEO's client too",
    # passes with runzeo, not with zeod
    r"protocols_test|testZEO\.test_runzeo_msgpack_support": "wants Z4 and Z5, which carry pickles; zeod speaks M5 only",
    r"zeo-fan-out_test": "writes through a server to another one; zeod serves another one's storage to readers",
    r"IExternalGC_test": "wants deletions gone after a pack without garbage collection; see storages/file/packed.py",
    r"testZEO\.ZRPCConnectionTests\.checkExceptionLogsAtError": (
        "sends None for a number: a message that does not fit ends the connection to zeod"
    ),
    r"testZEO\.invalidate_client_cache_entry_on_server_commit_error": (
        "wants a cache believed whose last transaction was never committed; zeod has it dropped (lesson B12)"
    ),
}
"""A pattern of cases -> why they are not run."""

QUICK = (
    r"testConnection\.FileStorageConnectionTests\.check(BadMessage|BasicP|CrossDB|ReadOnly|Verification).*",
    r"testConnection\.FileStorageReconnectionTests\.check(DisconnectedAbort|NoVerification|ReconnectSwitch|Reconnection).*",
    r"testConnection\.FileStorageInvqTests\..*",
    r"testConnection\.FileStorageTimeoutTests\.checkTimeout",
    r"testConnection\.SSLConnectionTests\.checkBasicPersistence",
    r"testZEO\.FileStorageLoadDelayedTests\.test_race_load_vs_external_invalidate",
    r"testZEO\.FileStorageTests\.check(CommitLock|Disconnected|Interface|Iterator|SecondBegin).*",
    r"testZEO\.Blob(AdaptedFileStorage|WritableCache)Tests\.check(Load|Store)Blob",
    r"testZEO\.(quick_close_doesnt_kill_server|test_prefetch|client_labels|unix_domain_sockets)",
    r"testConfig\..*\.test_default_zeo_config|testssl\.SSLConfigTest\.test_ssl_hostname_check",
    r"invalidation-age_txt|nagios_rst",
)
"""Patterns of the cases that are run with every run of the tests; the others are slow, together."""


def _suites() -> Iterator[unittest.TestSuite]:
    for module in (testZEO, testConnection):
        yield module.test_suite()
    for module in (testConfig, testssl, test_sync, test_client_side_conflict_resolution):
        yield unittest.defaultTestLoader.loadTestsFromModule(module)
    for prefix in ("test", "check"):
        loader = unittest.TestLoader()
        loader.testMethodPrefix = prefix
        yield loader.loadTestsFromTestCase(testZEO.FileStorageTests)  # which ZEO leaves out to save time


def _flat(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from _flat(each)
        else:
            yield each


def _name(case: unittest.TestCase) -> str:
    return re.sub(r"^.*/|^ZEO\.tests\.|^ZODB\.tests\.", "", case.id())


def _chosen() -> Iterator[Any]:
    cases = {_name(case): case for case in itertools.chain.from_iterable(map(_flat, _suites()))}
    for name, case in sorted(cases.items()):
        if not any(re.fullmatch(pattern, name) for pattern in LEFT_OUT):
            quick = any(re.fullmatch(pattern, name) for pattern in QUICK)
            yield pytest.param(case, id=name, marks=() if quick else pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    with zeod_for_runzeo():
        yield


@pytest.mark.parametrize("case", list(_chosen()))
def test_zeos_own_tests_pass(case: unittest.TestCase) -> None:
    if isinstance(case, doctest.DocTestCase):
        vars(case)["_dt_optionflags"] |= doctest.IGNORE_EXCEPTION_DETAIL
    result = unittest.TestResult()
    case.run(result)
    vars(case).clear()  # what it left open goes now, and not at the end of all tests
    assert not result.skipped
    assert result.wasSuccessful(), "\n".join(text for _case, text in result.errors + result.failures)
