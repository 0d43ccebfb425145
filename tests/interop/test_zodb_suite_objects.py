"""ZODB's own tests of its object layer, from the installed ZODB, run on our DB, Connection, Blob and storages.

Our objects have ZODB's names while a test runs (zodb_face.py), so the tests are ZODB's own, down to the text of their
files. TERMS says, with a reason each, what is left out, and which of ZODB's private names are put into our words.
"""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import transaction
import ZODB.tests

from tests.interop.zodb_cases import Terms, cases
from tests.interop.zodb_face import Face
from tests.interop.zodb_words import OURS

pytestmark = pytest.mark.filterwarnings("ignore")  # what ZODB's tests leave open is theirs

_INSTANCES = "wants a storage that gives each connection an instance of its own (IMVCCStorage)"
_ZCONFIG = "expects ZConfig's error; ours names the file and the line too"
_WARNING = {"object you're saving is large.": "is large"}
_COMMIT = r"""    >>> transaction.commit()
    storing b'\x00\x00\x00\x00\x00\x00\x00\x00'
    storing b'\x00\x00\x00\x00\x00\x00\x00\x03'
"""
_STORE = "    >>> conn._storage.store = store\n\n    >>> conn.root.y = C()\n"

TERMS: dict[str, Terms] = {
    "testConnection": Terms(
        left_out={
            "SetstateErrorLoggingTests.test_closed_connection_wont_setstate": "wants a line in the log",
            "TestConnection.test_storage_afterCompletionCalled": _INSTANCES,
            "TestConnection.test_explicit_transactions_no_newTransactuon_on_afterCompletion": _INSTANCES,
            "ConnectionDotAdd.test__resetCacheResetsReader": "calls _resetCache",
            "InvalidationTests.test_mvccadapterNewTransactionVsInvalidations": "ZODB's MVCCAdapter has the lock",
        },
        examples={
            "cn._Connection__onCloseCallbacks": "private",
        },
        translated={
            # who passes invalidations on, and the view that hears of them
            "db._mvcc_storage": "db.hub",
            "mvcc_instance.poll_invalidations() == [p1._p_oid]": "cn._snapshot.advance() == {p1._p_oid}",
            "mvcc_instance._start": "cn._snapshot.start",
            # what our DB calls of a storage
            "db.storage.isReadOnly": "db.storage.read_only",
            "store.checkCurrentSerialInTransaction": "store.check_current",
            "from ZODB.POSException import ReadConflictError": "from zeo_core.errors import ReadConflictError",
            # our storages do not finish what they did not vote for
            "def tpc_vote(t):\n": "def tpc_vote(t, vote=store.tpc_vote):\n",
            "raise badness\n": "raise badness\n    ...     return vote(t)\n",
            "self.datamgr.tpc_finish(": "self.datamgr.tpc_vote(self.transaction); self.datamgr.tpc_finish(",
            # a connection of a real database instead of one whose DB and storage are stubs
            "from ZODB.Connection import Connection": "from ZODB.DB import recording_database",
            "self.db = StubDatabase()": "self.db = recording_database()",
            "self.datamgr = Connection(self.db)": "self.datamgr = self.db.open()",
            "self.datamgr.open()": "",
            "self.datamgr._storage._storage._stored": "self.db.storage.stored",
            "storage._stored": "storage.stored",
            "storage._finished": "storage.finished",
            "self.assertIsNone(self.datamgr._added_during_commit)": "",
            # where a savepoint stores
            "oldspstore = conn._storage.store": "from zeo_client.savepoint import Spool; oldspstore = Spool.store",
            "print('savepoint storing', repr(oid))": "print('savepoint storing', repr(args[0]))",
            _STORE: _STORE.replace("conn._storage.store", "Spool.store"),
            _COMMIT: "    >>> Spool.store = oldspstore\n" + _COMMIT,
        },
    ),
    "testConnectionSavepoint": Terms(),
    "testDB": Terms(
        left_out={
            "connectionDebugInfo": "depends on how often the clock is read, and on the order of a set",
            "DBTests.test_references": "asks for ZODB's function by identity",
            "connection_allows_empty_version_for_idiots": "versions are not accepted, also not with a warning",
        },
        examples={
            "_reader._factory": "private",
            "db.pool.available": "looks at what the left-out opening of c2 has done",
            "db.pool.pop()": "private",
            "historical_pool.pools": "private",
            "db.open() is c2": "ours lets go of every connection that has waited too long, also of the last",
            "db.storage # doctest": "the storage's repr",
        },
        translated={
            "db._mvcc_storage": "db.hub",
            **_WARNING,
            "ZODB.DB('t.fs', create=True, large_record_size": "ZODB.DB('t2.fs', create=True, large_record_size",
            "path t.fs": "path t3.fs",
        },
    ),
    "testZODB": Terms(left_out={"ZODBTests.testResetCache": "calls _resetCache"}),
    "testmvcc": Terms(
        translated={
            "cn1._storage._start = ts": "cn1._snapshot._start = ts",
            "._storage._start": "._snapshot.start",
            "cn.db()._mvcc_storage": "cn.db().hub",
            "._storage._invalidations": "._snapshot._pending",
        }
    ),
    "testCache": Terms(translated={"conn.root._root": "conn.root()"}),
    "testcrossdatabasereferences": Terms(),
    "testhistoricalconnections": Terms(
        translated={
            "import manuel.doctest\n": "import doctest\nimport manuel.doctest\n",
            "doctest.Manuel(": "doctest.Manuel(optionflags=doctest.IGNORE_EXCEPTION_DETAIL, ",
        }
    ),
    "testPersistentWeakref": Terms(translated={"db = ZODB.tests.util.DB()": "db = ZODB.DB('Data.fs')"}),
    "testPersistentMapping": Terms(),
    "testPersistentList": Terms(),
    "test_doctest_files": Terms(
        examples={
            "print(msg.name, msg.levelname": "the text of the log's line",
            "db.databases        #": "the repr of a DB",
            "cn                  #": "the repr of a connection",
            "cn.connections      #": "the repr of a connection",
            "cn2                  #": "the repr of a connection",
        },
        translated={
            "InstalledHandler('ZODB.DB')": "InstalledHandler('zeo_client.pool')",
        },
    ),
    "test_prefetch": Terms(
        left_out={
            "PrefetchTests.test_prefetch_optional_imvcc": _INSTANCES,
        },
        translated={
            "from .MVCCMappingStorage import MVCCMappingStorage": "",
            "conn._storage._start": "conn._snapshot.start",
        },
    ),
    "testSerialize": Terms(
        left_out={"SerializerTestCase.test_myhasattr": "a helper of ZODB's"},
        translated={"from ZODB.POSException import StorageError": "from zeo_core.errors import StorageError"},
    ),
    "testBroken": Terms(examples={"a3  # doctest": "the text of a broken object's repr"}),
    "testConfig": Terms(
        examples={
            "isinstance(db.classFactory": "what finds classes by default need not be a method",
            "_reader._factory": "private",
            "non_existent_class_factory": _ZCONFIG,
            "<zodb 1>": _ZCONFIG,
        },
        translated={"db._storage": "db.storage", "self.storage.cleanup()": "pass"},
    ),
    "testblob": Terms(
        examples={"open(blob.committed(), 'w')": "expects a PermissionError, which root does not get"},
        left_out={
            "blob_layout_txt": "about ZODB's BlobStorage and the tool that changes its layout",
            "blobstorage_packing_txt": "about ZODB's BlobStorage around a storage that cannot undo",
            "ZODBBlobConfigTest.test_blob_dir_needed": _ZCONFIG,
            "ZODBBlobConfigTest.test_map_config1": "our <blobstorage> gives a directory to a <filestorage> only",
            "BushyLayoutTests.testBushyLayoutOIDToPathUnicode": "about ZODB's own layouts",
            "is_blob_record": "about a function of ZODB's",
            "loadblob_tmpstore": "about the storage of ZODB's savepoints",
            "commit_from_wrong_partition": "waits for lines on a logger of ZODB's own",
        },
        translated={
            "import ZODB.utils\n": "import shutil\n",
            "ZODB.utils.cp": "shutil.copyfile",
            r"storeBlob(new_oid, '\0'*8": r"storeBlob(new_oid, b'\0'*8",  # a serial is bytes
        },
    ),
}
"""A module of ZODB.tests -> what is different in it for us."""

FACE = Face(OURS)
CASES = {module: dict(cases(FACE, module, terms)) for module, terms in TERMS.items()}
TO_RUN = [(module, name) for module, found in CASES.items() for name in found if name not in TERMS[module].left_out]


@pytest.fixture(autouse=True)
def a_thread_without_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    transaction.abort()
    transaction.manager.clearSynchs()
    yield
    transaction.abort()
    transaction.manager.clearSynchs()
    gc.collect()  # while the warnings of what ZODB's tests leave open are ignored


@pytest.mark.parametrize(("module", "name"), TO_RUN)
def test_zodbs_own_tests_pass(module: str, name: str) -> None:
    wrong = CASES[module][name].run(FACE)
    assert not wrong, wrong


@pytest.mark.parametrize("module", TERMS)
def test_the_terms_are_about_what_is_there(module: str) -> None:
    terms, found = TERMS[module], CASES[module]
    assert terms.left_out.keys() <= found.keys()
    examples = [source for case in found.values() for source in case.sources]
    assert [part for part in terms.examples if not any(part in source for source in examples)] == []
    text = Path(ZODB.tests.__path__[0], f"{module}.py").read_text("utf-8") + "".join(examples)
    assert [theirs for theirs in terms.translated if theirs not in text] == []
