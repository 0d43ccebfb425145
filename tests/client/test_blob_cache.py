"""The blob cache of a client: ZEO's layout, files that appear whole, and a clean-up that harms nobody."""

import itertools
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zc.lockfile
import ZEO.ClientStorage

from tests.client.peer import Background, in_threads, until
from zeo_client.blob_cache import ABANDONED_AFTER_S, GRACE_S, BlobCache, hold_open, move
from zeo_core.errors import StorageError
from zeo_core.ids import Oid, Tid, pack_id

TID = pack_id(7)


def put(cache: BlobCache, oid: Oid, tid: Tid, data: bytes, *, age_s: float = 0) -> str:
    file, temporary = cache.new_file()
    with file:
        file.write(data)
    path = cache.path_of(oid, tid)
    with cache.locked(path):
        cache.keep(temporary, path)
    if age_s:
        os.utime(path, (time.time() - age_s,) * 2)
    return path


def bring_down(directory: Path, size: int, percent: int = 10) -> None:
    """Open the cache with a limit, and wait until it has been brought down to it."""
    cache = BlobCache(str(directory), size, percent)
    until(lambda: not any(thread.name.startswith("zeod blob cache") for thread in threading.enumerate()))
    cache.close()


def blobs(cache: BlobCache) -> set[str]:
    return {os.path.join(at, name) for at, _, names in os.walk(cache.path) for name in names if name.endswith(".blob")}


@pytest.mark.parametrize("number", [0, 1, 996, 997, 2**40 + 5, 2**64 - 1])
def test_the_layout_is_that_of_zeos_clients(tmp_path: Path, number: int) -> None:
    cache = BlobCache(str(tmp_path / "cache"))
    oid = pack_id(number)
    theirs = ZEO.ClientStorage.BlobCacheLayout().getBlobFilePath(oid, TID)
    assert cache.path_of(oid, TID) == os.path.join(cache.path, theirs)
    assert (tmp_path / "cache" / ".layout").read_text() == "zeocache"


def test_a_kept_file_is_read_only_and_found(tmp_path: Path) -> None:
    cache = BlobCache(str(tmp_path))
    assert cache.find(pack_id(1), TID) is None
    path = put(cache, pack_id(1), TID, b"data", age_s=100)
    assert cache.find(pack_id(1), TID) == path
    assert Path(path).read_bytes() == b"data"
    assert not os.stat(path).st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    assert time.time() - os.stat(path).st_atime < 50  # to find it is to use it
    assert os.listdir(cache.temporary) == []


def test_a_server_s_directory_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / ".layout").write_text("bushy\n")
    with pytest.raises(StorageError, match="its layout is bushy"):
        BlobCache(str(tmp_path))


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"):
        BlobCache(str(tmp_path / "file" / "cache"))


@pytest.mark.parametrize("percent", [-1, 100])
def test_a_percentage_that_is_none(tmp_path: Path, percent: int) -> None:
    with pytest.raises(ValueError, match=f"blob_cache_size_check is {percent}"):
        BlobCache(str(tmp_path), 100, percent)


def test_what_others_left_long_ago_is_removed_at_the_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = BlobCache(str(tmp_path))
    Path(cache.temporary, "left").touch()
    BlobCache(str(tmp_path))
    assert os.listdir(cache.temporary) == ["left"]  # it may be in use
    monkeypatch.setattr("zeo_client.blob_cache.ABANDONED_AFTER_S", -ABANDONED_AFTER_S)
    BlobCache(str(tmp_path))
    assert os.listdir(cache.temporary) == []


def test_one_at_a_time_holds_the_lock_and_zeos_clients_respect_it(tmp_path: Path) -> None:
    cache = BlobCache(str(tmp_path))
    path = cache.path_of(pack_id(1), TID)
    lock = os.path.join(os.path.dirname(path), ".lock")
    with cache.locked(path):
        with pytest.raises(zc.lockfile.LockError):
            zc.lockfile.LockFile(lock)
        other = Background(lambda: _enter(cache, path))
        assert not other.done()
    assert other.result()
    zc.lockfile.LockFile(lock).close()


def _enter(cache: BlobCache, path: str) -> bool:
    with cache.locked(path):
        return True


# -- its size ---------------------------------------------------------------------------------------------------------


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    unlimited = BlobCache(str(tmp_path))
    paths = [put(unlimited, pack_id(n), TID, b"x" * 100, age_s=1000 - n) for n in range(20)]
    bring_down(tmp_path, 1000)
    assert blobs(unlimited) == set(
        paths[-9:]
    )  # down to the limit less the percentage, so that there is room for some time


def test_it_is_looked_at_when_enough_has_come_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeo_client.blob_cache.GRACE_S", -GRACE_S)
    cache = BlobCache(str(tmp_path), 1000, 10)
    numbers = itertools.count()

    def enough_went() -> bool:
        # A look may miss what comes in while it looks; that is dealt with when as much more has come in.
        put(cache, pack_id(next(numbers)), TID, b"x" * 100)
        return next(numbers) > 60 and len(blobs(cache)) <= 10

    until(enough_went)
    cache.close()


def test_what_was_used_just_now_stays(tmp_path: Path) -> None:
    unlimited = BlobCache(str(tmp_path))
    old = put(unlimited, pack_id(1), TID, b"x" * 100, age_s=1000)
    new = put(unlimited, pack_id(2), TID, b"x" * 100, age_s=GRACE_S / 2)
    assert blobs(unlimited) == {old, new}
    bring_down(tmp_path, 10)
    assert blobs(unlimited) == {new}


def test_what_is_open_stays(tmp_path: Path) -> None:
    cache = BlobCache(str(tmp_path))
    path = put(cache, pack_id(1), TID, b"x" * 100, age_s=1000)
    with open(path, "rb") as file:
        hold_open(file)
        bring_down(tmp_path, 10)
        assert blobs(cache) == {path}
    bring_down(tmp_path, 10)
    assert blobs(cache) == set()


def test_what_is_being_fetched_stays(tmp_path: Path) -> None:
    cache = BlobCache(str(tmp_path))
    path = put(cache, pack_id(1), TID, b"x" * 100, age_s=1000)
    with cache.locked(path):
        bring_down(tmp_path, 10)
    assert blobs(cache) == {path}


def test_who_finds_somebody_at_it_has_them_look_once_more(tmp_path: Path) -> None:
    cache = BlobCache(str(tmp_path))
    put(cache, pack_id(1), TID, b"x" * 100, age_s=1000)
    lock = zc.lockfile.LockFile(str(tmp_path / "check_size.lock"))
    bring_down(tmp_path, 10)
    assert (tmp_path / "check_size.attempt").exists()
    assert len(blobs(cache)) == 1
    lock.close()
    bring_down(tmp_path, 10)
    assert not (tmp_path / "check_size.attempt").exists()
    assert blobs(cache) == set()


def test_a_cache_that_is_closed_is_not_brought_down(tmp_path: Path) -> None:
    cache = BlobCache(str(tmp_path), 10)
    cache.close()
    put(cache, pack_id(1), TID, b"x" * 100, age_s=1000)
    cache.check()
    assert len(blobs(cache)) == 1


def test_zeos_script_brings_our_cache_down(tmp_path: Path) -> None:
    cache = BlobCache(str(tmp_path))
    for number in range(20):
        put(cache, pack_id(number), TID, b"x" * 100, age_s=1000)
    ZEO.ClientStorage.check_blob_size_script([str(tmp_path), "500"])
    assert len(blobs(cache)) == 5


def test_readers_and_the_clean_up_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeo_client.blob_cache.GRACE_S", -GRACE_S)
    cache = BlobCache(str(tmp_path), 500, 50)

    def read(number: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(50):
                path = put(cache, pack_id(number), TID, bytes([number]) * 100)
                try:
                    with open(path, "rb") as file:
                        assert file.read() == bytes([number]) * 100
                except FileNotFoundError:
                    pass  # gone before it was opened; but never a part of it, or another's

        return run

    in_threads(*(read(number) for number in range(8)))
    cache.close()


# -- moving files -----------------------------------------------------------------------------------------------------


def test_a_file_is_moved_or_else_copied(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"data")
    (tmp_path / "to").mkdir()
    path = move(str(source), str(tmp_path / "to"), "a", ".tmp")
    assert Path(path).read_bytes() == b"data"
    assert not source.exists()
    assert os.path.basename(path).startswith("a")
    elsewhere = Path("/dev/shm") / f"zeod-test-{os.getpid()}"
    elsewhere.write_bytes(b"other")
    assert Path(move(str(elsewhere), str(tmp_path / "to"), "", "")).read_bytes() == b"other"
    assert not elsewhere.exists()


def test_a_file_that_cannot_be_moved_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        move(str(tmp_path / "missing"), str(tmp_path), "", "")
    assert os.listdir(tmp_path) == []
