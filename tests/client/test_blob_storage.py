"""ClientStorage with blobs against a scripted server: sent at the vote, cached after the finish, fetched once."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import ZODB.interfaces
from zope.interface.verify import verifyObject

from tests.client.peer import Background, Link, Peer, in_threads, until
from tests.client.storages import Open, away
from tests.contract.storages import Txn
from zeo_client.blob_storage import BlobClientStorage
from zeo_client.storage import ClientStorage
from zeo_core.errors import (
    ClientDisconnected,
    CommitInDoubtError,
    ConflictError,
    POSKeyError,
    StorageError,
    Unsupported,
)
from zeo_core.ids import ZERO_TID, Oid, Tid, pack_id
from zeo_core.storage import TransactsBlobs
from zeo_core.wire.session import Request

pytestmark = pytest.mark.usefixtures("nothing_left")

A, B = pack_id(1), pack_id(2)
LARGE = os.urandom(1_000_000)

OpenBlobs = Callable[..., BlobClientStorage]


@pytest.fixture
def open_blobs(opened: Open, peer: Peer, tmp_path: Path) -> OpenBlobs:
    peer.interfaces = (("ZODB.interfaces", "IBlobStorage"),)

    def open_blobs(directory: str = "cache", **options: object) -> BlobClientStorage:
        storage = opened(blob_dir=tmp_path / directory, **options)
        assert isinstance(storage, BlobClientStorage)
        return storage

    return open_blobs


@pytest.fixture
def storage(open_blobs: OpenBlobs) -> BlobClientStorage:
    return open_blobs()


def begin(storage: BlobClientStorage, *blobs: tuple[Oid, bytes], serial: Tid = ZERO_TID) -> Txn:
    txn = Txn()
    storage.tpc_begin(txn)
    for number, (oid, data) in enumerate(blobs):
        path = Path(storage.temporaryDirectory(), f"new-{number}")
        path.write_bytes(data)
        storage.storeBlob(oid, serial, b"a record", str(path), "", txn)
        assert not path.exists()
    return txn


def commit(storage: BlobClientStorage, *blobs: tuple[Oid, bytes], serial: Tid = ZERO_TID) -> Tid:
    txn = begin(storage, *blobs, serial=serial)
    storage.tpc_vote(txn)
    return storage.tpc_finish(txn)


def left(storage: BlobClientStorage) -> list[str]:
    return os.listdir(storage.temporaryDirectory())


def test_only_with_a_directory_are_there_blobs(opened: Open, storage: BlobClientStorage) -> None:
    assert isinstance(storage, TransactsBlobs)
    assert verifyObject(ZODB.interfaces.IBlobStorage, storage)
    plain = opened()
    assert type(plain) is ClientStorage
    assert not isinstance(plain, TransactsBlobs)
    with pytest.raises(StorageError, match="needs a directory"):
        BlobClientStorage("x", blob_dir=None)


def test_a_blob_goes_to_the_server_at_the_vote_and_into_the_cache_after_the_finish(
    storage: BlobClientStorage, peer: Peer
) -> None:
    txn = begin(storage, (A, LARGE), (B, b""))
    assert not peer.link().calls("storeBlobStart")
    storage.tpc_vote(txn)
    methods = [request.method for request in peer.link().requests]
    assert methods.index("tpc_begin") < methods.index("storeBlobStart") < methods.index("vote")
    assert len(left(storage)) == 2
    tid = storage.tpc_finish(txn)
    assert peer.blobs == {(A, tid): LARGE, (B, tid): b""}
    assert peer.revisions[A][-1] == (tid, b"a record")
    assert Path(storage.loadBlob(A, tid)).read_bytes() == LARGE
    with storage.openCommittedBlobFile(B, tid) as file:
        assert file.read() == b""
    assert not peer.link().calls("sendBlob")
    assert left(storage) == []


def test_the_later_of_two_blobs_of_one_object_counts(storage: BlobClientStorage, peer: Peer) -> None:
    tid = commit(storage, (A, b"first"), (A, b"second"))
    assert peer.blobs == {(A, tid): b"second"}
    assert left(storage) == []


@pytest.mark.parametrize("voted", [False, True])
def test_an_aborted_transaction_leaves_no_file(storage: BlobClientStorage, voted: bool) -> None:
    txn = begin(storage, (A, b"data"))
    if voted:
        storage.tpc_vote(txn)
    storage.tpc_abort(txn)
    assert left(storage) == []
    storage.tpc_abort(txn)


def test_a_conflict_leaves_no_file(storage: BlobClientStorage) -> None:
    commit(storage, (A, b"data"))
    txn = begin(storage, (A, b"other"))
    with pytest.raises(ConflictError):
        storage.tpc_vote(txn)
    storage.tpc_abort(txn)
    assert left(storage) == []


def test_a_commit_in_doubt_caches_nothing(storage: BlobClientStorage, peer: Peer) -> None:
    txn = begin(storage, (A, b"data"))
    storage.tpc_vote(txn)
    peer.script["tpc_finish"] = lambda link, _request: link.cut()
    with pytest.raises(CommitInDoubtError):
        storage.tpc_finish(txn)
    assert left(storage) == []
    assert not list(Path(storage.blob_dir).rglob("*.blob"))


def test_a_server_that_goes_away_during_the_upload(storage: BlobClientStorage, peer: Peer) -> None:
    txn = begin(storage, (A, LARGE * 10))
    peer.script["storeBlobStart"] = lambda link, _request: link.cut()
    with pytest.raises(ClientDisconnected):
        storage.tpc_vote(txn)
    storage.tpc_abort(txn)
    assert left(storage) == []
    del peer.script["storeBlobStart"]
    until(storage.is_connected)
    commit(storage, (A, b"data"))


def test_blobs_of_several_threads_do_not_mix(storage: BlobClientStorage, peer: Peer) -> None:
    peer.extensions = ("concurrent-transactions",)
    number = len(peer.links)
    peer.link().cut()
    until(lambda: len(peer.links) > number and storage.is_connected())

    def store(oid: Oid) -> Callable[[], None]:
        def run() -> None:
            txn = Txn()
            storage.tpc_begin(txn)
            path = Path(storage.temporaryDirectory(), oid.hex())
            path.write_bytes(oid * 200_000)
            storage.storeBlob(oid, ZERO_TID, b"a record", str(path), "", txn)
            storage.tpc_vote(txn)
            storage.tpc_finish(txn)

        return run

    oids = [pack_id(number) for number in range(1, 6)]
    in_threads(*map(store, oids))
    assert sorted((oid, data) for (oid, _), data in peer.blobs.items()) == [(oid, oid * 200_000) for oid in oids]


def test_a_server_without_blobs_is_told_of_at_the_store(opened: Open, tmp_path: Path) -> None:
    storage = opened(blob_dir=tmp_path / "cache")
    assert isinstance(storage, BlobClientStorage)
    with pytest.raises(Unsupported, match="keeps no blobs"):
        begin(storage, (A, b"data"))


def test_a_file_that_is_not_there(storage: BlobClientStorage, tmp_path: Path) -> None:
    txn = begin(storage)
    with pytest.raises(StorageError, match="missing: cannot be taken over"):
        storage.storeBlob(A, ZERO_TID, b"a record", str(tmp_path / "missing"), "", txn)


# -- loading ----------------------------------------------------------------------------------------------------------


def test_a_blob_is_fetched_once(storage: BlobClientStorage, peer: Peer) -> None:
    peer.blobs[A, ZERO_TID] = LARGE
    path = storage.loadBlob(A, ZERO_TID)
    assert Path(path).read_bytes() == LARGE
    assert storage.loadBlob(A, ZERO_TID) == path
    assert len(peer.link().calls("sendBlob")) == 1
    assert left(storage) == []


def test_many_threads_and_clients_of_one_cache_fetch_a_blob_once(open_blobs: OpenBlobs, peer: Peer) -> None:
    peer.blobs[A, ZERO_TID] = LARGE
    storages = [open_blobs(), open_blobs()]

    def read(storage: BlobClientStorage) -> Callable[[], bytes]:
        def run() -> bytes:
            with storage.openCommittedBlobFile(A, ZERO_TID) as file:
                return file.read()

        return run

    assert in_threads(*map(read, storages * 4)) == [LARGE] * 8
    assert sum(len(link.calls("sendBlob")) for link in peer.links) == 1


def test_a_blob_that_the_server_does_not_have(storage: BlobClientStorage, peer: Peer) -> None:
    with pytest.raises(POSKeyError):
        storage.loadBlob(A, ZERO_TID)
    peer.script["sendBlob"] = lambda link, request: link.send(link.reply(request, None))
    with pytest.raises(POSKeyError):
        storage.loadBlob(A, ZERO_TID)
    assert left(storage) == []


def test_a_download_that_is_cut_leaves_nothing_and_begins_anew(storage: BlobClientStorage, peer: Peer) -> None:
    peer.blobs[A, ZERO_TID] = LARGE

    def half(link: Link, _request: Request) -> None:
        link.send(
            link.push("receiveBlobStart", A, ZERO_TID), link.push("receiveBlobChunk", A, ZERO_TID, LARGE[:500_000])
        )
        link.cut()

    peer.script["sendBlob"] = half
    with pytest.raises(ClientDisconnected):
        storage.loadBlob(A, ZERO_TID)
    assert left(storage) == []
    del peer.script["sendBlob"]
    until(storage.is_connected)
    assert Path(storage.loadBlob(A, ZERO_TID)).read_bytes() == LARGE


@pytest.mark.parametrize(
    "pushes",
    [
        [("receiveBlobChunk", A, ZERO_TID, b"x")],
        [("receiveBlobStart", B, ZERO_TID)],
        [("receiveBlobStart", A, ZERO_TID), ("receiveBlobStart", A, ZERO_TID)],
        [("receiveBlobStop", A, ZERO_TID)],
    ],
)
def test_what_makes_no_sense_ends_the_connection(
    storage: BlobClientStorage, peer: Peer, pushes: list[tuple[object, ...]]
) -> None:
    peer.script["sendBlob"] = lambda link, request: link.send(
        *(link.push(str(method), *args) for method, *args in pushes), link.reply(request, None)
    )
    with pytest.raises(ClientDisconnected):
        storage.loadBlob(A, ZERO_TID)
    assert left(storage) == []


def test_a_client_without_blobs_is_sent_none(opened: Open, peer: Peer) -> None:
    storage = opened()
    number = len(peer.links)
    peer.link().send(peer.link().push("receiveBlobStart", A, ZERO_TID))
    until(lambda: len(peer.links) > number and storage.is_connected())


def test_a_blob_that_is_removed_between_its_name_and_its_opening(
    storage: BlobClientStorage, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.blobs[A, ZERO_TID] = LARGE
    load = storage.loadBlob

    def removed(oid: Oid, serial: Tid) -> str:
        path = load(oid, serial)
        os.unlink(path)
        return path

    monkeypatch.setattr(storage, "loadBlob", removed)
    with storage.openCommittedBlobFile(A, ZERO_TID) as file:
        assert file.read() == LARGE


def test_a_cached_blob_needs_no_server(storage: BlobClientStorage, peer: Peer) -> None:
    tid = commit(storage, (A, b"data"))
    away(peer, storage)
    assert Path(storage.loadBlob(A, tid)).read_bytes() == b"data"


class _Blob:
    def __init__(self) -> None:
        self.files: list[object] = []

    def closed(self, file: object) -> None:
        self.files.append(file)


def test_a_blob_hears_that_its_file_is_closed(storage: BlobClientStorage) -> None:
    tid = commit(storage, (A, b"data"))
    blob = _Blob()
    with storage.openCommittedBlobFile(A, tid, blob) as file:
        assert file.read() == b"data"
    assert blob.files == [file]


def test_the_cache_is_kept_to_its_size(open_blobs: OpenBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeo_client.blob_cache.GRACE_S", -1.0)
    storage = open_blobs(blob_cache_size=5000, blob_cache_size_check=10)
    for number in range(1, 30):
        commit(storage, (pack_id(number), b"x" * 1000))
    until(lambda: len(list(Path(storage.blob_dir).rglob("*.blob"))) <= 5)
    Background(storage.close).result()


# -- a shared directory -----------------------------------------------------------------------------------------------


def test_a_shared_file_is_named_to_the_server(open_blobs: OpenBlobs, peer: Peer) -> None:
    storage = open_blobs("blobs", shared_blob_dir=True)
    taken: list[str] = []

    def shared(link: Link, request: Request) -> None:
        oid, serial, data, name, txn = request.args
        peer._storea(link, oid, serial, data, txn)
        taken.append(name)

    peer.script["storeBlobShared"] = shared
    txn = begin(storage, (A, b"data"))
    storage.tpc_vote(txn)
    [path] = Path(storage.blob_dir).rglob("*.tmp")
    assert taken == [path.name]
    assert path.read_bytes() == b"data"
    path.rename(path.with_name("0x07.blob"))  # as the server does
    storage.tpc_finish(txn)
    assert storage.loadBlob(A, pack_id(7)) == str(path.with_name("0x07.blob"))
    with storage.openCommittedBlobFile(A, pack_id(7)) as file:
        assert file.read() == b"data"
    assert not peer.link().calls("storeBlobStart")


def test_a_shared_file_of_an_aborted_transaction_goes(open_blobs: OpenBlobs) -> None:
    storage = open_blobs("blobs", shared_blob_dir=True)
    txn = begin(storage, (A, b"data"))
    storage.tpc_abort(txn)
    assert not list(Path(storage.blob_dir).rglob("*.tmp"))
    with pytest.raises(POSKeyError):
        storage.loadBlob(A, pack_id(7))


def test_a_server_that_cannot_restore_blobs_is_not_asked_to(storage: BlobClientStorage, peer: Peer) -> None:
    txn, path = Txn(), Path(storage.temporaryDirectory(), "new")
    path.write_bytes(b"data")
    storage.tpc_begin(txn)
    with pytest.raises(Unsupported, match="cannot be restored"):
        storage.restoreBlob(A, pack_id(5), b"a record", str(path), None, txn)
    assert path.exists()
