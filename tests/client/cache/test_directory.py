import multiprocessing
from pathlib import Path

import pytest

from zeo_client.cache.directory import CacheDirectory


@pytest.fixture
def directory(tmp_path: Path) -> CacheDirectory:
    return CacheDirectory(str(tmp_path / "a" / "b"))


def names(directory: CacheDirectory) -> list[str]:
    return sorted(path.name for path in Path(directory.path).iterdir())


def test_a_new_directory_has_no_file(directory: CacheDirectory) -> None:
    assert directory.current() is None
    assert directory.following() == f"{directory.path}/1.cache"


def test_the_highest_number_is_in_use(directory: CacheDirectory) -> None:
    for name in ("2.cache", "10.cache", "11.cache-wal", "x12.cache", "99.cached"):
        (Path(directory.path) / name).touch()
    assert directory.current() == f"{directory.path}/10.cache"
    assert directory.following() == f"{directory.path}/11.cache"


def test_a_replaced_file_goes_with_all_that_belongs_to_it(directory: CacheDirectory) -> None:
    for name in ("1.cache", "1.cache-wal", "1.cache-users", "2.cache", "2.cache-wal", "note"):
        (Path(directory.path) / name).touch()
    directory.discard_older()
    assert names(directory) == ["2.cache", "2.cache-wal", "note"]


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        CacheDirectory(str(tmp_path / "file" / "cache"))


def _begin(path: str, has_begun: "multiprocessing.synchronize.Event") -> None:
    with CacheDirectory(path).locked():
        has_begun.set()


def test_the_lock_keeps_other_processes_out(directory: CacheDirectory) -> None:
    context = multiprocessing.get_context("spawn")
    has_begun = context.Event()
    other = context.Process(target=_begin, args=(directory.path, has_begun))
    with directory.locked():
        other.start()
        assert not has_begun.wait(0.5)
    assert has_begun.wait(20)
    other.join()
