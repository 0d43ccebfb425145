"""ZODB's own tests of blobs, from the installed ZODB, with our DB, our Blob and our storages in the place of ZODB's."""

import doctest
import os
import shutil
import unittest
from collections.abc import Iterator
from typing import Any

import pytest
import transaction

import zeo_client
from tests.interop.zodb_face import Face
from tests.interop.zodb_words import OURS
from zeo_client import blob, blob_file
from zeo_core import errors
from zeo_server.storages.file import FileStorage
from zeo_server.storages.mapping import MappingStorage

pytestmark = pytest.mark.filterwarnings("ignore")  # ZODB's tests leave files to the garbage collector


def blob_storage(blob_dir: str, base: Any) -> Any:
    """Return a storage of ours for ZODB's BlobStorage, which adds blobs to another."""
    if isinstance(base, FileStorage):
        base.close()
        return FileStorage(base.name(), blob_dir=blob_dir)
    return FileStorage(blob_dir + ".fs", blob_dir=blob_dir)


def database(storage: Any, blob_dir: str | None = None) -> zeo_client.DB:
    """Make a database as ZODB.DB does, of a file's name too."""
    return zeo_client.DB(FileStorage(storage, blob_dir=blob_dir) if isinstance(storage, str) else storage)


def connection(storage: Any) -> Any:
    """Open a connection as ZODB.connection does."""
    return database(storage).open()


FACE = Face(
    {
        **OURS,
        "": {"DB": database, "connection": connection},
        "DB": {"DB": database},
        "MappingStorage": {"MappingStorage": lambda name="": MappingStorage()},
        "blob": {
            "Blob": blob.Blob,
            "BlobError": errors.BlobError,
            "BlobFile": blob_file.BlobFile,
            "BlobStorage": blob_storage,
            "valid_modes": ("r", "w", "r+", "a", "c"),
        },
    }
)
TESTS: Any = FACE.test_module("testblob", {})

LEFT_OUT = {
    "commit_from_wrong_partition": "it waits for lines on a logger of ZODB's own",
    "loadblob_tmpstore": "it is about the storage of ZODB's savepoints",
    "is_blob_record": "it is about a function of ZODB's",
    "blob_layout_txt": "it is about ZODB's own layouts; ours are tested with tests/interop/test_blobs.py",
    "blobstorage_packing_txt": "ZODB's BlobStorage over a storage without history; ours are tested in blob_packing.txt",
    "ZODBBlobConfigTest": "ZODB's configuration",
    "BushyLayoutTests": "ZODB's own layouts",
}
"""ZODB's tests that are not about blobs as programs see them -> what they are about."""

_EXAMPLES = {
    # The text of an example, or the error it expects -> what is in its place.
    r"blob_storage.storeBlob(new_oid, '\0'*8": r"blob_storage.storeBlob(new_oid, b'\0'*8",  # a serial is bytes
    "ValueError: Can't commit with opened blobs.": "OpenedBlobError: it is open",  # is a ValueError too
    "TypeError: ...": "UnpicklableError: ...",  # is a TypeError too
    "TypeError: Blobs do not support subclassing.": "TypeError: Blob cannot be subclassed",
    "ZODB.utils.cp": "shutil.copyfile",  # what copies where a file cannot be renamed
    "import ZODB.utils": "import shutil",
}

_AS_ROOT = "open(blob.committed(), 'w')"
"""An example that expects a PermissionError, which root does not get: the file would be emptied."""


def factory(name: str, blob_dir: str) -> FileStorage:
    return FileStorage(f"{name}.fs", blob_dir=blob_dir)


def suites() -> list[Any]:
    with FACE.worn():
        ours = TESTS.storage_reusable_suite("Ours", factory, test_blob_storage_recovery=True, test_packing=True)
        return [ours, TESTS.test_suite()]


def cases(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from cases(test)
        elif not any(part in LEFT_OUT for part in (test.id().rpartition(".")[2], test.id(), type(test).__name__)):
            yield test


SUITES = suites()
CASES = {case.id().rpartition("/")[2]: case for suite in SUITES for case in cases(suite)}


def adapt(case: Any) -> None:
    """Let a doctest's errors be in another module than ZODB's, and say in our words what ours say differently."""
    if not isinstance(case, doctest.DocTestCase):
        return
    case._dt_optionflags |= doctest.IGNORE_EXCEPTION_DETAIL  # type: ignore[attr-defined]
    examples = case._dt_test.examples  # type: ignore[attr-defined]
    for example in examples:
        for text, instead in _EXAMPLES.items():
            example.source = example.source.replace(text, instead)
            if example.exc_msg is not None:
                example.exc_msg = example.exc_msg.replace(text, instead)
    if os.geteuid() == 0:
        examples[:] = [example for example in examples if _AS_ROOT not in example.source]


@pytest.fixture(autouse=True)
def a_thread_without_transaction() -> Iterator[None]:
    transaction.abort()
    transaction.manager.clearSynchs()
    with FACE.worn():
        yield
    transaction.abort()
    transaction.manager.clearSynchs()


def test_the_tests_have_ours() -> None:
    assert TESTS.Blob is blob.Blob
    assert TESTS.DB is database
    assert shutil.copyfile.__module__ == "shutil"  # a test of ZODB's puts its own there for a while


@pytest.mark.parametrize("name", CASES)
def test_zodbs_own_tests_pass(name: str) -> None:
    case = CASES[name]
    adapt(case)
    layer = SUITES[0].layer
    result = unittest.TestResult()
    layer.testSetUp()
    try:
        case.run(result)
    finally:
        layer.testTearDown()
    assert result.testsRun == 1
    assert not result.skipped
    assert result.wasSuccessful(), "\n".join(text for _case, text in result.errors + result.failures)
