"""Every method, called by a client on a socket."""

from collections.abc import Iterator
from datetime import UTC, datetime

import msgpack
import pytest
from BTrees.Length import Length

from tests.core.test_resolve import record, state_of
from tests.server.in_process import InProcess, in_process
from tests.server.raw_client import RawClient
from zeo_core.errors import (
    ConflictError,
    MultipleUndoErrors,
    POSKeyError,
    ReadConflictError,
    ReadOnlyError,
    StorageError,
    UndoError,
)
from zeo_core.ids import MAX_TID, ROOT_OID, ZERO_TID, pack_id, successor
from zeo_core.wire.frames import FrameDecoder, encode_frame
from zeo_core.wire.methods import CLIENT_CALLS
from zeo_server.handlers import HANDLERS, NEW_OIDS_MAX
from zeo_server.session import ServerSession
from zeo_server.storages.mapping import MappingStorage

A, B = pack_id(1), pack_id(2)


@pytest.fixture(scope="module")
def shared() -> Iterator[InProcess]:
    with in_process() as server:
        yield server


@pytest.fixture
def client(shared: InProcess) -> Iterator[RawClient]:
    with shared.client() as connected:
        yield connected


@pytest.fixture
def fresh() -> Iterator[InProcess]:
    with in_process() as server:
        yield server


def test_there_is_a_handler_for_each_method_and_no_other() -> None:
    assert set(HANDLERS) == set(CLIENT_CALLS)


def test_register_tells_the_last_tid(fresh: InProcess) -> None:
    with fresh.client() as client:
        assert client.last_tid == ZERO_TID
        tid = client.commit({ROOT_OID: (ZERO_TID, b"one")})
    with fresh.client() as client:
        assert client.last_tid == tid
        assert client.call("lastTransaction") == tid


def test_register_for_an_unknown_storage_can_be_repeated(shared: InProcess) -> None:
    with shared.client(register=False) as client:
        with pytest.raises(ValueError, match="unknown storage: 2"):
            client.call("register", "2", False)
        client.call("register", b"1", False)


def test_load_before(client: RawClient) -> None:
    first = client.commit({A: (ZERO_TID, b"one")})
    second = client.commit({A: (first, b"two")})
    assert client.load(A) == (b"two", second, None)
    assert client.load(A, second) == (b"one", first, second)
    assert client.load(A, successor(second)) == (b"two", second, None)
    assert client.load(A, first) is None
    with pytest.raises(POSKeyError) as caught:
        client.load(pack_id(99))
    assert caught.value.oid == pack_id(99)
    assert client.call("loadSerial", A, first) == b"one"
    assert client.call("getTid", A) == second
    with pytest.raises(POSKeyError):
        client.call("getTid", pack_id(99))
    for wrong in (pack_id(1), successor(first), MAX_TID):
        with pytest.raises(POSKeyError):
            client.call("loadSerial", A, wrong)
    with pytest.raises(POSKeyError):
        client.call("loadSerial", pack_id(99), first)


def test_message_ids_come_back_as_they_are(client: RawClient) -> None:
    tid = client.commit({B: (ZERO_TID, b"zeo")})
    # ZEO's client uses the pair of oid and tid as the id of a load; others may use whatever msgpack knows
    frames = FrameDecoder(10_000)
    for message_id in ((B, MAX_TID), "text", None, -7, {"a": (1.5, b"x")}, msgpack.ExtType(5, b"ext")):
        client.sock.sendall(encode_frame(msgpack.packb((message_id, False, "loadBefore", (B, MAX_TID)))))
        while (payload := frames.take()) is None:
            frames.feed(client.sock.recv(10_000))
        reply = msgpack.unpackb(payload, use_list=False)
        assert reply == (message_id, 0, ".reply", (b"zeo", tid, None))


def test_get_info(fresh: InProcess) -> None:
    with fresh.client() as client:
        client.commit({A: (ZERO_TID, b"one"), B: (ZERO_TID, b"two")})
        info = client.call("get_info")
        assert info["length"] == 2
        assert info["size"] == client.call("getSize") > 0
        assert info["name"] == "Mapping Storage"
        assert ("ZODB.interfaces", "IStorageIteration") in info["interfaces"]
        assert info["supports_record_iternext"] is True


def test_get_invalidations(fresh: InProcess) -> None:
    with fresh.client() as client:
        assert client.call("getInvalidations", ZERO_TID) == (ZERO_TID, ())
        first = client.commit({A: (ZERO_TID, b"one")})
        second = client.commit({B: (ZERO_TID, b"two")})
        assert client.call("getInvalidations", first) == (second, (B,))
        assert client.call("getInvalidations", second) == (second, ())
        assert client.call("getInvalidations", successor(first)) is None


def test_new_oids(client: RawClient) -> None:
    first = client.call("new_oids")
    assert len(first) == NEW_OIDS_MAX
    second = client.call("new_oids", 3)
    assert len(client.call("new_oids", 10_000)) == NEW_OIDS_MAX
    assert len(client.call("new_oids", 0)) == 1
    assert len(set(first) | set(second)) == NEW_OIDS_MAX + 3


def test_a_conflict_names_the_object_and_the_serials(fresh: InProcess) -> None:
    with fresh.client() as client:
        tid = client.commit({A: (ZERO_TID, b"one")})
        client.begin(1, {A: (ZERO_TID, b"two")})
        with pytest.raises(ConflictError) as caught:
            client.call("vote", 1)
        assert (caught.value.oid, caught.value.serials) == (A, (tid, ZERO_TID))
        client.begin(2, {B: (ZERO_TID, b"two")}, {A: ZERO_TID})
        with pytest.raises(ReadConflictError):
            client.call("vote", 2)
        assert client.call("tpc_abort", 2) is None


def test_a_serial_of_a_time_before_bytes_is_that_of_a_new_object(client: RawClient) -> None:
    client.one_way("tpc_begin", 1, "", "", {}, None, " ")
    client.one_way("storea", pack_id(60), "\0" * 8, b"data", 1)
    client.call("vote", 1)
    tid = client.call("tpc_finish", 1)
    assert client.load(pack_id(60)) == (b"data", tid, None)


def test_abort_forgets(fresh: InProcess) -> None:
    with fresh.client() as client:
        client.begin(1, {A: (ZERO_TID, b"one")})
        assert client.call("vote", 1) == ()
        assert client.call("tpc_abort", 1) is None
        with pytest.raises(POSKeyError):
            client.load(A)
        client.commit({A: (ZERO_TID, b"two")})


@pytest.mark.parametrize(
    ("metadata", "error", "text"),
    [
        (("", "", {1: 2}, None, " "), TypeError, "no text"),
        (("", "x" * 70_000, {}, None, " "), StorageError, "transaction description: 70000 bytes"),
        (("", "", b"c\nno pickle", None, " "), TypeError, "extension"),
        (("", "", b"cos\nsystem\n.", None, " "), TypeError, "os.system"),
        (("", "", b"\x80\x03]q\x00.", None, " "), TypeError, "a list instead of"),
        (("", "", {}, ZERO_TID, " "), StorageError, "cannot restore transaction"),
        (("", "", {}, MAX_TID, " "), StorageError, "cannot restore transaction"),
        (("", "", {}, None, "u"), StorageError, "status 'u' is not"),
    ],
)
def test_a_transaction_that_cannot_be_kept_is_refused_at_the_vote(
    client: RawClient,
    metadata: tuple[object, ...],
    error: type[Exception],
    text: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client.one_way("tpc_begin", 1, *metadata)
    client.one_way("storea", pack_id(50), ZERO_TID, b"data", 1)
    with pytest.raises(error, match=text):
        client.call("vote", 1)
    with pytest.raises(POSKeyError):
        client.load(pack_id(50))
    assert not [line for line in caplog.records if line.exc_info], "the client's fault is no bug"


def test_history(fresh: InProcess) -> None:
    with fresh.client() as client:
        first = client.commit({A: (ZERO_TID, b"one")})
        second = client.commit({A: (first, b"three")})
        newest, oldest = client.call("history", A, 10)
        assert (newest["tid"], oldest["tid"]) == (second, first)
        assert (newest["size"], oldest["size"]) == (5, 3)
        assert newest["user_name"] == b"user"
        assert newest["description"] == b"description"
        assert abs(newest["time"] - datetime.now(UTC).timestamp()) < 60
        assert len(client.call("history", A)) == 1
        with pytest.raises(POSKeyError):
            client.call("history", B, 1)


def test_server_status(fresh: InProcess) -> None:
    with fresh.client() as client, fresh.client():
        tid = client.commit({A: (ZERO_TID, b"one")})
        client.load(A)
        status = client.call("server_status")
        assert (status["commits"], status["stores"], status["loads"], status["connections"]) == (1, 1, 1, 2)
        assert status["last-transaction"] == tid.hex()


def test_labels_cannot_forge_log_lines(client: RawClient, caplog: pytest.LogCaptureFixture) -> None:
    client.one_way("set_client_label", "worker\n2026-01-01 CRITICAL all is lost" + "x" * 1000)
    assert client.call("ping") is None
    client.sock.sendall(b"\0\0\0\1\xc0")
    client.wait_closed()
    [line] = [record.getMessage() for record in caplog.records if "not an M5 message" in record.getMessage()]
    assert line.startswith("(worker?2026-01-01 CRITICAL")
    assert "127.0.0.1:" in line
    assert len(line) < 300


def test_a_reader_cannot_write(fresh: InProcess) -> None:
    with fresh.client(read_only=True) as client, fresh.client() as writer:
        with pytest.raises(ReadOnlyError):
            client.call("new_oids")
        client.begin(1, {A: (ZERO_TID, b"one")})
        for method in ("vote", "tpc_finish", "tpc_abort"):
            with pytest.raises(ReadOnlyError):
                client.call(method, 1)
        tid = writer.commit({A: (ZERO_TID, b"one")})
        assert client.load(A) == (b"one", tid, None)
        assert client.invalidations() == [(tid, (A,))]


def test_a_read_only_server_takes_readers_only() -> None:
    with in_process({"1": MappingStorage()}, read_only=True) as server, server.client(register=False) as client:
        with pytest.raises(ReadOnlyError):
            client.call("register", "1", False)
        client.call("register", "1", True)
        with pytest.raises(ReadOnlyError):
            client.call("new_oids")


def test_iteration(fresh: InProcess) -> None:
    with fresh.client() as client:
        tid = client.commit({A: (ZERO_TID, b"one"), B: (ZERO_TID, b"two")})
        number = client.call("iterator_start", None, None)
        assert client.call("iterator_next", number) == (tid, " ", b"user", b"description", {})
        records = client.call("iterator_record_start", number, tid)
        assert client.call("iterator_record_next", records) == (A, tid, b"one", None)
        client.one_way("iterator_gc", (records,))
        with pytest.raises(KeyError):
            client.call("iterator_record_next", records)
        assert client.call("iterator_next", number) is None
        with pytest.raises(KeyError):
            client.call("iterator_next", number)
        assert client.call("record_iternext", None) == (A, tid, b"one", B)
        assert client.call("record_iternext", B) == (B, tid, b"two", None)
        with pytest.raises(ValueError, match="no object"):
            client.call("record_iternext", pack_id(3))


def test_walks_are_freed_when_their_client_leaves(fresh: InProcess) -> None:
    with fresh.client() as client:
        client.call("iterator_start", None, None)
        (session,) = fresh.ask(lambda: list(fresh.service.connections))
        assert isinstance(session, ServerSession)
        assert len(session.iterators) == 1
    fresh.until(lambda: len(session.iterators) == 0)


def test_restore(fresh: InProcess) -> None:
    with fresh.client() as client, fresh.client() as other:
        first = client.commit({A: (ZERO_TID, b"one")})
        later = successor(first)
        client.one_way("tpc_begin", 1, b"u", b"d", {"k": "v"}, later, "p")
        client.one_way("restorea", A, later, b"two", None, 1)
        client.one_way("restorea", B, later, b"new", pack_id(5), 1)
        assert client.call("vote", 1) == ()
        assert client.call("tpc_finish", 1) == later
        assert other.invalidations()[-1] == (later, (A, B))
        number = client.call("iterator_start", later, None)
        assert client.call("iterator_next", number) == (later, "p", b"u", b"d", {"k": "v"})
        records = client.call("iterator_record_start", number, later)
        assert client.call("iterator_record_next", records) == (A, later, b"two", None)
        client.one_way("tpc_begin", 2, b"", b"", {}, later, " ")
        client.one_way("restorea", A, later, None, None, 2)
        with pytest.raises(StorageError, match="cannot restore transaction"):
            client.call("vote", 2)


def test_delete_object(fresh: InProcess) -> None:
    with fresh.client() as client:
        first = client.commit({A: (ZERO_TID, b"one")})
        for serial, oid, error in ((ZERO_TID, A, ConflictError), (first, B, POSKeyError)):
            client.one_way("tpc_begin", 1, b"", b"", {}, None, " ")
            client.one_way("deleteObject", oid, serial, 1)
            with pytest.raises(error):
                client.call("vote", 1)
        client.one_way("tpc_begin", 2, b"", b"", {}, None, " ")
        client.one_way("deleteObject", A, first, 2)
        assert client.call("vote", 2) == ()
        client.call("tpc_finish", 2)
        with pytest.raises(POSKeyError):
            client.load(A)


def length(value: int) -> bytes:
    return record(Length, value)


def test_undo(fresh: InProcess) -> None:
    with fresh.client() as client, fresh.client() as other:
        first = client.commit({A: (ZERO_TID, b"one"), B: (ZERO_TID, b"b")})
        second = client.commit({A: (first, b"two")})
        newest, oldest = client.call("undoLog", 0, -20)
        assert newest["user_name"] == b"user"
        assert client.call("undoInfo", 0, 5, {"id": oldest["id"]}) == (oldest,)
        assert client.call("get_info")["supportsUndo"] is True
        client.one_way("tpc_begin", 1, b"", b"", {}, None, " ")
        client.one_way("undoa", newest["id"], 1)
        client.one_way("undoa", first, 1)
        assert set(client.call("vote", 1)) == {A, B}
        third = client.call("tpc_finish", 1)
        assert third > second
        assert {*other.invalidations()[-1][1]} == {A, B}
        with pytest.raises(POSKeyError):
            client.load(A)


def test_an_undo_that_cannot_be_is_told_at_the_vote(fresh: InProcess) -> None:
    with fresh.client() as client:
        first = client.commit({A: (ZERO_TID, b"one")})
        second = client.commit({A: (first, b"two")})
        client.one_way("tpc_begin", 1, b"", b"", {}, None, " ")
        client.one_way("undoa", first, 1)
        with pytest.raises(MultipleUndoErrors):
            client.call("vote", 1)
        client.one_way("tpc_begin", 2, b"", b"", {}, None, " ")
        client.one_way("undoa", b"no id at all", 2)
        with pytest.raises(UndoError):
            client.call("vote", 2)
        client.one_way("tpc_begin", 3, b"", b"", {}, None, " ")
        client.one_way("undoa", second, 3)
        client.one_way("storea", B, ZERO_TID, b"b", 3)
        with pytest.raises(StorageError, match="after an undo"):
            client.call("vote", 3)
        assert client.load(A) == (b"two", second, None)


def test_conflicts_of_btrees_are_resolved_here(fresh: InProcess) -> None:
    with fresh.client() as client:
        first = client.commit({A: (ZERO_TID, length(10))})
        second = client.commit({A: (first, length(15))})
        client.begin(1, {A: (first, length(12)), B: (ZERO_TID, b"b")})
        assert client.call("vote", 1) == (A,)
        third = client.call("tpc_finish", 1)
        assert state_of(client.load(A)[0]) == 17
        assert client.load(A, third)[:2] == (length(15), second)
        assert client.call("server_status")["conflicts_resolved"] == 1


@pytest.mark.parametrize("more", [False, True])
def test_a_client_that_resolves_votes_twice_and_meets_no_third_conflict(fresh: InProcess, more: bool) -> None:
    with fresh.client() as client, fresh.client() as other:
        first = client.commit({A: (ZERO_TID, b"one")})
        second = client.commit({A: (first, b"two")})
        client.begin(1, {A: (first, b"mine")})
        told = {"oid": A, "serials": (second, first), "data": b"mine", "committed": b"two"}
        assert client.call("vote", 1, True) == (told,)
        other.begin(7, {A: (second, b"three")})
        waiting = other.send("vote", 7)
        assert not other.answered(waiting)
        client.one_way("storea", A, second, b"both", 1)
        if more:  # then the locks are asked for anew, behind the one who waits
            client.one_way("storea", B, ZERO_TID, b"b", 1)
            vote = client.send("vote", 1, True)
            assert other.wait(waiting) == ()
            third = other.call("tpc_finish", 7)
            assert client.wait(vote)[0]["serials"] == (third, second)
            client.call("tpc_abort", 1)
            return
        assert client.call("vote", 1, True) == ()
        third = client.call("tpc_finish", 1)
        with pytest.raises(ConflictError):
            other.wait(waiting)
        assert client.load(A) == (b"both", third, None)


def test_a_client_that_leaves_while_it_resolves_frees_its_locks(fresh: InProcess) -> None:
    with fresh.client() as other:
        with fresh.client() as client:
            first = client.commit({A: (ZERO_TID, b"one")})
            second = client.commit({A: (first, b"two")})
            client.begin(1, {A: (first, b"mine")})
            assert len(client.call("vote", 1, True)) == 1
        other.commit({A: (second, b"three")})


def test_without_being_asked_a_client_gets_no_conflicts_to_resolve(fresh: InProcess) -> None:
    with fresh.client() as client:
        first = client.commit({A: (ZERO_TID, b"one")})
        client.commit({A: (first, b"two")})
        client.begin(1, {A: (first, b"mine")})
        with pytest.raises(ConflictError):
            client.call("vote", 1)


def test_no_serial_stands_for_a_new_object_and_a_deleted_one_has_no_tid(fresh: InProcess) -> None:
    with fresh.client() as client:
        client.one_way("tpc_begin", 1, b"", b"", {}, None, " ")
        client.one_way("storea", A, None, b"one", 1)
        assert client.call("vote", 1) == ()
        first = client.call("tpc_finish", 1)
        assert client.call("getTid", A) == first
        client.one_way("tpc_begin", 2, b"", b"", {}, None, " ")
        client.one_way("undoa", first, 2)
        client.call("vote", 2)
        client.call("tpc_finish", 2)
        with pytest.raises(POSKeyError):
            client.call("getTid", A)
