"""A client that nobody should trust: records that run code when they are unpickled, sent through every call there is.

Each record would make a directory of its own in `traps`. The server has the path to the module that one of them names,
so that to import it would spring it too.
"""

import contextlib
import io
import os
import pickle
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures_zeod import StartZeod, Zeod
from tests.server.raw_client import RawClient
from zeo_core.commit_marker import MARKER_BYTES
from zeo_core.errors import ConflictError, ZeodError
from zeo_core.ids import MAX_TID, ROOT_OID, ZERO_TID, Tid, pack_id
from zeo_core.wire.methods import CLIENT_CALLS

Make = Callable[[str], bytes]

LENGTH = b"\x80\x03cBTrees.Length\nLength\nq\x00."
TREE = b"\x80\x03cBTrees.OOBTree\nOOBucket\nq\x00."
PLAIN = b"\x80\x03cshop\nCart\nq\x00."


def _text(path: str) -> bytes:
    return b"X" + struct.pack("<I", len(path.encode())) + path.encode()


def _call(path: str) -> bytes:
    """Opcodes that make the directory `path`."""
    return b"cos\nmkdir\n" + _text(path) + b"\x85R"


RECORDS: dict[str, Make] = {
    "the class is a call": lambda path: b"\x80\x03" + _call(path) + b".\x80\x03}.",
    "the class has arguments that are a call": lambda path: (
        b"\x80\x03cshop\nCart\nq\x00" + _call(path) + b"\x85\x86.\x80\x03}."
    ),
    "the state is a call": lambda path: PLAIN + b"\x80\x03" + _call(path) + b".",
    "a call in the state": lambda path: PLAIN + b"\x80\x03}X\x01\x00\x00\x00a" + _call(path) + b"s.",
    "of a class whose conflicts are resolved": lambda path: LENGTH + b"\x80\x03" + _call(path) + b".",
    "a bucket with a call for a value": lambda path: (
        TREE + b"\x80\x03(X\x01\x00\x00\x00a" + _call(path) + b"t\x85\x85."
    ),
    "a call in protocol 0": lambda path: PLAIN + b"(S'" + path.encode() + b"'\nios\nmkdir\n.",
    "a call by OBJ": lambda path: PLAIN + b"(cos\nmkdir\n" + _text(path) + b"o.",
    "a call in protocol 4": lambda path: PLAIN + b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93" + _text(path) + b"\x85R.",
    "a call in a reference": lambda path: PLAIN + b"\x80\x03" + _call(path) + b"Q.",
    "a module": lambda _path: b"\x80\x03ctrap_module\nThing\nq\x00.\x80\x03ctrap_module\nThing\n.",
}
NAMES = {name: f"s{number}" for number, name in enumerate(RECORDS)}

Traps = Path


@pytest.fixture
def traps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Traps:
    directory = tmp_path / "traps"
    directory.mkdir()
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "trap_module.py").write_text(
        f"import os\nos.makedirs({str(directory / NAMES['a module'])!r}, exist_ok=True)\nclass Thing: pass\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{os.environ.get('PYTHONPATH', '')}:{modules}")
    monkeypatch.syspath_prepend(str(modules))
    monkeypatch.delitem(sys.modules, "trap_module", raising=False)
    return directory


def made(name: str, traps: Traps) -> bytes:
    return RECORDS[name](str(traps / NAMES[name]))


@pytest.mark.parametrize("name", RECORDS)
def test_the_traps_are_traps(name: str, traps: Traps) -> None:
    """What is unpickled without care makes the directory: otherwise the other tests could not fail."""

    class Careless(pickle._Unpickler):  # the one in C looks up names by itself
        def find_class(self, module: str, name: str) -> object:
            return dict if module == "shop" else super().find_class(module, name)

        def persistent_load(self, reference: object) -> None:
            return None

    data = io.BytesIO(made(name, traps))
    with contextlib.suppress(Exception):
        for _ in range(2):
            Careless(data).load()
    assert [path.name for path in traps.iterdir()] == [NAMES[name]]


@pytest.fixture
def server(start_zeod: StartZeod, tmp_path: Path, traps: Traps) -> Zeod:
    """A server with a storage for each record."""
    assert traps.exists()
    (tmp_path / "zeo.conf").write_text(
        "<zeo>\naddress 127.0.0.1:0\n</zeo>\n"
        + "".join(
            f"<filestorage {storage}>\npath {storage}.fs\nblob-dir {storage}.blobs\npack-gc yes\n</filestorage>\n"
            for storage in NAMES.values()
        )
    )
    return start_zeod("-C", "zeo.conf")


class Attacker(RawClient):
    """Sends one record in every way; what the server answers is its own matter, as long as it answers."""

    def __init__(self, server: Zeod, storage: str, record: bytes) -> None:
        self.record = record
        self.called: set[str] = set()
        self._txn = 0
        super().__init__(server.address, storage)

    def send(self, method: str, *args: object) -> int:
        self.called.add(method)
        return super().send(method, *args)

    def one_way(self, method: str, *args: object) -> None:
        self.called.add(method)
        super().one_way(method, *args)

    def transaction(self, *calls: tuple[object, ...], tid: Tid | None = None, resolves: bool = False) -> Tid | None:
        """Commit what the calls stage, each a method and its arguments but for the transaction; None if refused."""
        self._txn += 1
        self.one_way("tpc_begin", self._txn, "", "", {}, tid, " ")
        for method, *args in calls:
            self.one_way(str(method), *args, *(() if method in ("storeBlobStart", "storeBlobChunk") else (self._txn,)))
        try:
            conflicts = self.call("vote", self._txn, *((True,) if resolves else ()))
        except ZeodError:
            return None
        if conflicts and isinstance(conflicts[0], dict):
            self.call("tpc_abort", self._txn)
            return None
        done: Tid = self.call("tpc_finish", self._txn)
        return done

    def attempt(self, method: str, *args: object) -> object:
        try:
            return self.call(method, *args)
        except (ZeodError, ValueError, KeyError, TypeError):
            return None


OIDS = [pack_id(number) for number in range(1, 6)]
UNREFERRED = pack_id(6)
REFERRING = b"\x80\x03cpersistent.mapping\nPersistentMapping\nq\x00.\x80\x03](" + b"".join(
    b"C\x08" + oid + b"Q" for oid in OIDS
)


def commits(client: Attacker) -> None:
    """Store, conflict, restore and undo the record, with a blob and without."""
    record = client.record
    client.call("new_oids", 100)
    assert client.transaction(("storea", ROOT_OID, ZERO_TID, REFERRING + b"e."))
    first = client.transaction(*(("storea", oid, ZERO_TID, record) for oid in (*OIDS[:3], UNREFERRED)))
    assert first is not None
    second = client.transaction(("storea", OIDS[0], first, record))
    assert second is not None
    for resolves in (False, True):  # the server may resolve what it knows the class of; it must not load the state
        refused = client.transaction(("storea", OIDS[0], first, record), resolves=resolves)
        assert refused is None
    client.transaction(("checkCurrentSerialInTransaction", OIDS[1], first), ("storea", OIDS[2], first, record))
    client.transaction(("undoa", second))
    third = client.transaction(("storea", OIDS[1], first, b"c" + record))
    client.transaction(("storea", OIDS[1], third, record))
    client.transaction(("undoa", third))  # needs a resolution, which no class is there for
    client.transaction(("deleteObject", UNREFERRED, first))
    blob = client.transaction(
        ("storeBlobStart",), ("storeBlobChunk", record), ("storeBlobEnd", OIDS[3], ZERO_TID, record)
    )
    assert blob is not None
    client.attempt("sendBlob", OIDS[3], blob)
    client.transaction(("storeBlobShared", OIDS[4], ZERO_TID, record, "x.tmp"))
    last: Tid = client.call("lastTransaction")
    later = pack_id(int.from_bytes(last, "big") + 1)
    assert client.transaction(("restorea", OIDS[4], ZERO_TID, record, None), tid=later)
    later = pack_id(int.from_bytes(later, "big") + 1)
    blob_calls = ("storeBlobStart",), ("storeBlobChunk", record), ("restoreBlobEnd", OIDS[4], record, None)
    assert client.transaction(*blob_calls, tid=later)
    metadata(client)


def metadata(client: Attacker) -> None:
    """Begin transactions whose extension is the record, as bytes and inside of a map."""
    for number, extension in enumerate((client.record, {"x": client.record})):
        txn = 1000 + number
        client.one_way("tpc_begin", txn, client.record, "", extension, None, " ")
        client.one_way("storea", pack_id(50 + number), ZERO_TID, client.record, txn)
        if client.attempt("vote", txn) is not None:
            client.attempt("tpc_finish", txn)
    client.one_way("set_client_label", "attacker")


def reads(client: Attacker) -> None:
    """Ask for what is there in every way."""
    for oid in (ROOT_OID, *OIDS):
        client.attempt("loadBefore", oid, MAX_TID)
        client.attempt("history", oid, 10)
        serial = client.attempt("getTid", oid)
        if isinstance(serial, bytes):
            client.attempt("loadSerial", oid, serial)
    client.attempt("load_many", (ROOT_OID,), MAX_TID, 3, 1_000_000, "persistent.mapping.PersistentMapping")
    client.attempt("load_many", tuple(OIDS), MAX_TID, 3, 1_000_000, "os.mkdir")
    client.attempt("getInvalidations", ZERO_TID)
    client.attempt("transaction_outcome", b"x" * MARKER_BYTES, ZERO_TID)
    for call in ("get_info", "getSize", "server_status", "clients", "ping", "lastTransaction"):
        client.call(call)
    client.attempt("undoLog", 0, 100)
    client.attempt("undoInfo", 0, 100, {"user_name": client.record})
    place: object = ROOT_OID
    while place is not None:
        found = client.attempt("record_iternext", place)
        place = found[3] if isinstance(found, tuple) else None
    walk = client.call("iterator_start", None, None, True)
    while (transaction := client.attempt("iterator_next", walk)) is not None:
        assert isinstance(transaction, tuple)
        records = client.call("iterator_record_start", walk, transaction[0])
        while client.attempt("iterator_record_next", records) is not None:
            pass
    client.one_way("iterator_gc", (walk,))


def test_nothing_runs_whatever_is_called(server: Zeod, traps: Traps) -> None:
    packed = 0
    for name, storage in NAMES.items():
        with Attacker(server, storage, made(name, traps)) as client:
            commits(client)
            reads(client)
            size = client.call("getSize")
            client.attempt("pack", time.time(), True)
            packed += client.call("getSize") < size
            reads(client)
            assert client.called == set(CLIENT_CALLS), "a call that is not tried"
    assert packed, "the references in some of these records can be read"
    assert server.stop() == 0
    assert [path.name for path in traps.iterdir()] == []
    assert " failed\nTraceback" not in server.log_text()  # as for a bug


def test_nothing_runs_when_the_files_are_opened_again(server: Zeod, start_zeod: StartZeod, traps: Traps) -> None:
    for name, storage in NAMES.items():
        with Attacker(server, storage, made(name, traps)) as client:
            commits(client)
    server.kill()  # so that the next opening reads the records again
    again = start_zeod("-C", "zeo.conf")
    for name, storage in NAMES.items():
        with Attacker(again, storage, made(name, traps)) as client:
            reads(client)
    assert again.stop() == 0
    assert [path.name for path in traps.iterdir()] == []


def test_conflicts_of_listed_classes_do_not_run_what_is_in_a_state(server: Zeod, traps: Traps) -> None:
    record = made("of a class whose conflicts are resolved", traps)
    good = LENGTH + b"\x80\x03K\x05."
    with Attacker(server, NAMES["of a class whose conflicts are resolved"], record) as client:
        for base, committed, mine in ((good, good, record), (good, record, good), (record, good, good)):
            oid = client.call("new_oids", 1)[0]
            first = client.transaction(("storea", oid, ZERO_TID, base))
            assert client.transaction(("storea", oid, first, committed))
            client.begin(500, {oid: (first or ZERO_TID, mine)})
            with pytest.raises(ConflictError):
                client.call("vote", 500)
        oid = client.call("new_oids", 1)[0]
        first = client.transaction(("storea", oid, ZERO_TID, good))
        client.transaction(("storea", oid, first, good))
        assert client.transaction(("storea", oid, first, good)), "what is harmless is resolved"
    assert [path.name for path in traps.iterdir()] == []
