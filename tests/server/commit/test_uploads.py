"""Blobs that come in from clients: kept, limited, and gone with their transaction or connection."""

import os
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.server.blob_server import A, B, begin, blob_storage, commit, files, loaded, send
from tests.server.in_process import InProcess, in_process
from tests.server.raw_client import RawClient
from zeo_core.errors import ConflictError, StorageError
from zeo_core.ids import ZERO_TID, successor
from zeo_core.wire.methods import BLOB_CHUNK_MAX_BYTES
from zeo_server.commit.uploads import THREADS, SharedFile, Upload
from zeo_server.limits import DEFAULT_LIMITS, Limits
from zeo_server.storages.blobs import BlobDirectory
from zeo_server.storages.demo_blobs import BlobDemoStorage

CHUNK = os.urandom(59_000)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcess]:
    with in_process({"1": blob_storage(tmp_path)}) as started:
        yield started


@pytest.fixture
def client(server: InProcess) -> Iterator[RawClient]:
    with closing(server.client()) as connected:
        yield connected


@pytest.mark.parametrize("chunks", [[], [b"one"], [CHUNK] * 50, [b"a" * BLOB_CHUNK_MAX_BYTES, b"b"]])
def test_a_blob_is_committed_with_its_transaction(
    server: InProcess, client: RawClient, chunks: list[bytes], tmp_path: Path
) -> None:
    tid = commit(client, A, chunks)
    assert loaded(client, A, tid) == b"".join(chunks)
    assert client.load(A) == (b"a record", tid, None)
    server.until(lambda: files(tmp_path) == [f"0x{tid.hex()}.blob"])  # what was staged goes in a thread


def test_several_blobs_and_objects_in_one_transaction(client: RawClient) -> None:
    begin(client)
    # ZEO's clients send the record twice, the first time without its blob
    client.one_way("storea", A, ZERO_TID, b"a record", 1)
    send(client, A, [b"first"])
    send(client, B, [b"other"])
    send(client, A, [b"second"])
    client.call("vote", 1)
    tid = client.call("tpc_finish", 1)
    assert (loaded(client, A, tid), loaded(client, B, tid)) == (b"second", b"other")


def test_a_conflict_leaves_no_file(server: InProcess, client: RawClient, tmp_path: Path) -> None:
    tid = commit(client, A, [b"one"])
    begin(client)
    send(client, A, [b"two"])
    with pytest.raises(ConflictError):
        client.call("vote", 1)
    server.until(lambda: files(tmp_path) == [f"0x{tid.hex()}.blob"])


@pytest.mark.parametrize("when", ["in the middle", "at the end", "voted"])
@pytest.mark.parametrize("how", ["abort", "cut"])
def test_what_is_not_finished_leaves_no_file_and_no_lock(
    server: InProcess, client: RawClient, tmp_path: Path, when: str, how: str
) -> None:
    other = server.client()
    begin(other)
    other.one_way("storeBlobStart")
    other.one_way("storeBlobChunk", CHUNK)
    if when != "in the middle":
        other.one_way("storeBlobEnd", A, ZERO_TID, b"a record", 1)
    if when == "voted":
        other.call("vote", 1)
    server.until(lambda: bool(files(tmp_path)))
    if how == "abort":
        other.call("tpc_abort", 1)
    if how == "cut" or when == "in the middle":
        other.close()
    server.until(lambda: not files(tmp_path))
    commit(client, A, [b"mine"])
    other.close()


def test_an_abort_while_the_vote_waits_for_the_disk(server: InProcess, client: RawClient, tmp_path: Path) -> None:
    free = threading.Event()
    _occupy(server, free)
    other = server.client()
    begin(other)
    send(other, A, [CHUNK])
    other.send("vote", 1)
    other.close()
    server.until(lambda: len(server.service.connections) == 1)
    free.set()
    server.until(lambda: not files(tmp_path))
    commit(client, A, [b"mine"])


def test_a_client_that_is_faster_than_the_disk_is_not_read_from(server: InProcess, client: RawClient) -> None:
    free = threading.Event()
    _occupy(server, free)
    chunks = [os.urandom(1024 * 1024)] * 4 * (DEFAULT_LIMITS.blob_queue_max_bytes >> 20)
    begin(client)
    sending = threading.Thread(target=send, args=(client, A, chunks))
    sending.start()
    transport = server.ask(lambda: next(iter(server.service.connections)))._transport  # type: ignore[attr-defined]
    server.until(lambda: not transport.is_reading())
    free.set()
    sending.join()
    client.call("vote", 1)
    assert loaded(client, A, client.call("tpc_finish", 1)) == b"".join(chunks)


def _occupy(server: InProcess, free: threading.Event) -> None:
    """Keep all threads for blobs busy until `free`."""
    uploads = server.service.storages["1"].uploads
    for _ in range(THREADS):
        server.ask(lambda: uploads.run(free.wait) and None)


@pytest.mark.parametrize(
    "calls",
    [
        [("storeBlobStart",), ("storeBlobStart",)],
        [("storeBlobChunk", b"x")],
        [("storeBlobEnd", A, ZERO_TID, b"a record", 1)],
        [("storeBlobStart",), ("storeBlobEnd", A, ZERO_TID, b"a record", 7)],
        [("storeBlobShared", A, ZERO_TID, b"a record", "../x.tmp", 1)],
        [("storeBlobShared", A, ZERO_TID, b"a record", "x.tmp-", 7)],
        [("storeBlobStart",), ("storeBlobChunk", b"x" * (BLOB_CHUNK_MAX_BYTES + 1))],
    ],
)
def test_a_call_that_makes_no_sense_ends_the_connection(
    client: RawClient, calls: list[tuple[object, ...]], server: InProcess, tmp_path: Path
) -> None:
    with closing(server.client()) as wrong:
        begin(wrong)
        for method, *args in calls:
            wrong.one_way(str(method), *args)
        wrong.wait_closed()
    server.until(lambda: not files(tmp_path))
    commit(client, A, [b"mine"])


def test_a_storage_without_blobs_says_so_at_the_vote() -> None:
    with in_process() as server, closing(server.client()) as client:
        assert ("ZODB.interfaces", "IBlobStorage") not in client.call("get_info")["interfaces"]
        begin(client)
        send(client, A, [b"x"])
        with pytest.raises(StorageError, match="storage 1 has no directory for blobs"):
            client.call("vote", 1)
        begin(client)
        client.one_way("storeBlobShared", A, ZERO_TID, b"a record", "x.tmp-", 1)
        with pytest.raises(StorageError, match="storage 1 has no directory for blobs"):
            client.call("vote", 1)
        with pytest.raises(StorageError, match="has no directory for blobs"):
            client.call("sendBlob", A, ZERO_TID)


def test_a_storage_that_shares_no_directory_says_so_at_the_vote() -> None:
    with in_process({"1": BlobDemoStorage()}) as server, closing(server.client()) as client:
        begin(client)
        client.one_way("storeBlobShared", A, ZERO_TID, b"a record", "x.tmp-", 1)
        with pytest.raises(StorageError, match="storage 1 shares no directory for blobs"):
            client.call("vote", 1)
        assert loaded(client, A, commit(client, A, [b"sent"])) == b"sent"


def test_it_is_told_that_there_are_blobs(client: RawClient) -> None:
    assert ("ZODB.interfaces", "IBlobStorage") in client.call("get_info")["interfaces"]


# -- one upload -------------------------------------------------------------------------------------------------------


def test_a_blob_that_is_too_large(tmp_path: Path) -> None:
    upload = Upload(str(tmp_path), 10)
    upload.add(b"12345")
    upload.write()
    upload.add(b"1234567")
    with pytest.raises(StorageError, match="larger than 10 bytes"):
        upload.complete()
    assert not os.listdir(tmp_path)
    upload.discard()


def test_a_disk_that_fails(tmp_path: Path) -> None:
    upload = Upload(str(tmp_path / "missing"), 10)
    upload.add(b"1")
    upload.write()
    with pytest.raises(StorageError, match="missing: No such file or directory"):
        upload.complete()


def test_what_comes_after_a_discard_is_not_kept(tmp_path: Path) -> None:
    upload = Upload(str(tmp_path), 10)
    upload.add(b"1")
    upload.write()
    assert os.listdir(tmp_path)
    upload.discard()
    upload.add(b"2")
    upload.write()
    assert not os.listdir(tmp_path)
    assert not upload.queued_bytes()


# -- shared directories ---------------------------------------------------------------------------------------------


@pytest.fixture
def shared(tmp_path: Path) -> BlobDirectory:
    directory = BlobDirectory(tmp_path / "blobs")
    os.makedirs(directory.getPathForOID(A))
    return directory


def _file(shared: BlobDirectory, name: str) -> SharedFile:
    return SharedFile(shared.base_dir, shared.getPathForOID(A), name)


@pytest.mark.parametrize("name", ["x.tmp", "x.tmp-"])
def test_a_shared_file_is_taken_over(server: InProcess, client: RawClient, tmp_path: Path, name: str) -> None:
    directory = server.service.storages["1"].storage.fshelper.getPathForOID(A)  # type: ignore[attr-defined]
    os.makedirs(directory)
    Path(directory, name).write_bytes(b"shared")
    begin(client)
    client.one_way("storeBlobShared", A, ZERO_TID, b"a record", name, 1)
    client.call("vote", 1)
    tid = client.call("tpc_finish", 1)
    assert loaded(client, A, tid) == b"shared"
    server.until(lambda: files(tmp_path) == [f"0x{tid.hex()}.blob"])


def test_the_shared_file_of_an_aborted_transaction_goes(server: InProcess, client: RawClient, tmp_path: Path) -> None:
    directory = server.service.storages["1"].storage.fshelper.getPathForOID(A)  # type: ignore[attr-defined]
    os.makedirs(directory)
    Path(directory, "x.tmp-").write_bytes(b"shared")
    begin(client)
    client.one_way("storeBlobShared", A, ZERO_TID, b"a record", "x.tmp-", 1)
    client.call("tpc_abort", 1)
    server.until(lambda: not files(tmp_path))


@pytest.mark.parametrize("name", ["x", "", "../x.tmp", "/etc/x.tmp", "x.tmp\0", "x.tmp--", "0x01.blob", ".."])
def test_a_name_that_is_none_of_a_temporary_file(shared: BlobDirectory, name: str) -> None:
    with pytest.raises(StorageError, match="no name of a temporary file"):
        _file(shared, name)


def test_a_link_to_a_file_elsewhere_is_refused(shared: BlobDirectory, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    os.symlink(secret, os.path.join(shared.getPathForOID(A), "x.tmp"))
    linked = _file(shared, "x.tmp")
    with pytest.raises(StorageError, match="not a file of the shared blob directory"):
        linked.complete()
    linked.discard()
    assert secret.exists()


def test_a_directory_that_is_a_link_is_refused(shared: BlobDirectory, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    secret = tmp_path / "elsewhere" / "x.tmp"
    secret.write_text("secret")
    os.rmdir(shared.getPathForOID(A))
    os.symlink(tmp_path / "elsewhere", shared.getPathForOID(A))
    linked = _file(shared, "x.tmp")
    with pytest.raises(StorageError, match="not a file of the shared blob directory"):
        linked.complete()
    linked.discard()
    assert secret.exists()


def test_a_blob_directory_behind_a_link_is_as_good_as_any(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    os.symlink(tmp_path / "there", tmp_path / "blobs")
    shared = BlobDirectory(tmp_path / "blobs")
    os.makedirs(shared.getPathForOID(A))
    Path(shared.getPathForOID(A), "x.tmp").write_text("data")
    assert Path(_file(shared, "x.tmp").complete()).read_text() == "data"


def test_a_file_that_is_not_there(server: InProcess, client: RawClient) -> None:
    begin(client)
    client.one_way("storeBlobShared", A, ZERO_TID, b"a record", "x.tmp-", 1)
    with pytest.raises(StorageError, match="No such file"):
        client.call("vote", 1)


def test_the_size_of_a_blob_is_limited(tmp_path: Path) -> None:
    with in_process({"1": blob_storage(tmp_path)}, limits=Limits(blob_max_bytes=1000)) as server:
        with closing(server.client()) as client:
            begin(client)
            send(client, A, [b"x" * 600, b"x" * 600])
            with pytest.raises(StorageError, match="the blob is larger than 1000 bytes"):
                client.call("vote", 1)
            commit(client, A, [b"x" * 1000])
        server.until(lambda: len(files(tmp_path)) == 1)


def test_the_size_of_all_blobs_of_a_transaction_is_limited(tmp_path: Path) -> None:
    limits = Limits(blob_max_bytes=1000, transaction_blobs_max_bytes=1500)
    with in_process({"1": blob_storage(tmp_path)}, limits=limits) as server, closing(server.client()) as client:
        begin(client)
        send(client, A, [b"x" * 1000])
        send(client, B, [b"x" * 1000])
        with pytest.raises(StorageError, match="the blobs of the transaction are larger than 1500 bytes"):
            client.call("vote", 1)
        server.until(lambda: not files(tmp_path))
        commit(client, A, [b"x" * 1000])


def test_a_restored_object_brings_its_blob(client: RawClient) -> None:
    first = commit(client, A, [b"one"])
    tid = successor(successor(first))
    client.one_way("tpc_begin", 1, "", "", {}, tid, "p")
    client.one_way("storeBlobStart")
    client.one_way("storeBlobChunk", b"restored")
    client.one_way("restoreBlobEnd", A, b"a record", None, 1)
    assert client.call("vote", 1) == ()
    assert client.call("tpc_finish", 1) == tid
    assert client.load(A) == (b"a record", tid, None)
    assert (loaded(client, A, first), loaded(client, A, tid)) == (b"one", b"restored")
