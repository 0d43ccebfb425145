"""ZODB's own tests of blob storages, from the installed ZODB, with our DB and Blob: on a DemoStorage and over a zeod.

Those of blobs alone and on a FileStorage are in test_zodb_suite_objects.py.
"""

import unittest
from collections.abc import Iterator
from typing import Any

import pytest
import transaction

import zeo_client
from tests.interop.blob_servers import served_factory, stop_servers
from tests.interop.blob_suite import blob_cases, run_case
from tests.interop.zodb_face import Face
from tests.interop.zodb_words import OURS
from zeo_client.storage import ClientStorage
from zeo_server.storages.demo import DemoStorage
from zeo_server.storages.file import FileStorage

pytestmark = pytest.mark.filterwarnings("ignore")  # ZODB's tests leave files to the garbage collector


FACE = Face(OURS)
TESTS: Any = FACE.test_module("testblob", {})

LEFT_OUT = {
    "commit_from_wrong_partition": "it waits for lines on a logger of ZODB's own",
    "loadblob_tmpstore": "it is about the storage of ZODB's savepoints",
    "is_blob_record": "it is about a function of ZODB's",
    "lp440234_Setting__p_changed_of_a_Blob_w_no_uncomitted_changes_is_noop": "it is about a FileStorage",
}
"""ZODB's tests that are not about blobs as programs see them -> what they are about."""

IN_OUR_WORDS = {
    # The text of an example, or the error it expects -> what is in its place.
    "ValueError: Can't commit with opened blobs.": "OpenedBlobError: it is open",  # is a ValueError too
    "TypeError: ...": "UnpicklableError: ...",  # is a TypeError too
}


def on_a_demo_storage(name: str, blob_dir: str) -> Any:
    changes = FileStorage(f"{name}.fs", blob_dir=blob_dir)
    return DemoStorage(base=FileStorage(f"{name}.base.fs"), changes=changes)


def all_cases() -> Iterator[Any]:
    with FACE.worn():
        suites = {
            "demo": blob_cases("Demo", on_a_demo_storage, LEFT_OUT, TESTS),
            "streamed": blob_cases("Streamed", served_factory(ClientStorage, shared=False), LEFT_OUT, TESTS),
            "shared": blob_cases("Shared", served_factory(ClientStorage, shared=True), LEFT_OUT, TESTS),
        }
    for kind, cases in suites.items():
        for case in cases:
            yield pytest.param(case, id=f"{kind}-{case.id().rpartition('/')[2]}")


@pytest.fixture(autouse=True)
def a_thread_without_transaction() -> Iterator[None]:
    transaction.abort()
    transaction.manager.clearSynchs()
    with FACE.worn():
        yield
    transaction.abort()
    transaction.manager.clearSynchs()
    stop_servers()


def test_the_tests_have_ours() -> None:
    assert TESTS.Blob is zeo_client.Blob
    assert TESTS.DB is OURS["DB"]["DB"]


@pytest.mark.parametrize("case", list(all_cases()))
def test_zodbs_own_tests_pass(case: unittest.TestCase) -> None:
    run_case(case, IN_OUR_WORDS)
