import os
from pathlib import Path

import pytest

from zeo_client.cache.layered import LayeredCache
from zeo_client.cache.memory import MemoryCache
from zeo_client.cache.opening import CACHE_BYTES, cache_path, open_cache


def test_where_the_cache_is() -> None:
    assert cache_path(None, None, None, "1") is None
    assert cache_path(None, None, "/var", "1") is None
    assert cache_path("/var/cache/app", None, None, "1") == "/var/cache/app.zeodcache"
    assert cache_path(Path("/var/cache/app"), "app", "/tmp", "1") == "/var/cache/app.zeodcache"
    assert cache_path(None, "app", "/var", "main") == "/var/app-main.zeodcache"
    assert cache_path(None, "app", None, "1") == f"{os.getcwd()}/app-1.zeodcache"


def test_in_memory() -> None:
    for cache_bytes, memory_bytes, expected in ((5000, None, 5000), (5000, 100, 100)):
        cache = open_cache(None, "one", cache_bytes, memory_bytes)
        assert isinstance(cache, MemoryCache)
        assert cache.max_bytes == expected
        cache.close()


@pytest.mark.parametrize(
    ("disk_bytes", "memory_bytes", "expected"),
    [(10 * CACHE_BYTES, None, CACHE_BYTES), (5000, None, 5000), (10 * CACHE_BYTES, 0, 0)],
)
def test_over_a_disk(tmp_path: Path, disk_bytes: int, memory_bytes: int | None, expected: int) -> None:
    cache = open_cache(str(tmp_path / "cache"), "one", disk_bytes, memory_bytes)
    assert isinstance(cache, LayeredCache)
    stats = cache.stats()
    assert (stats["max_bytes"], stats["disk_max_bytes"]) == (expected, disk_bytes)
    cache.close()


def test_a_cache_where_none_can_be(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(FileExistsError, match="cache"):
        open_cache(str(tmp_path / "cache"), "one", 1000, None)
