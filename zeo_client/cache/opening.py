"""Which cache a client has: in memory alone, or over a disk cache that the processes of a host share."""

import os

from zeo_client.cache.disk import DiskCache
from zeo_client.cache.layered import LayeredCache
from zeo_client.cache.memory import MemoryCache

__all__ = ["CACHE_BYTES", "DIRECTORY_SUFFIX", "Cache", "cache_path", "open_cache"]

Cache = MemoryCache | LayeredCache

CACHE_BYTES = 20 * 1024 * 1024
"""ZEO's default."""

DIRECTORY_SUFFIX = ".zeodcache"
"""Ends the name of a disk cache's directory: a path that named a cache of ZEO's client, which is a file, serves too."""


def cache_path(
    path: str | os.PathLike[str] | None, client: str | None, var: str | os.PathLike[str] | None, storage: str
) -> str | None:
    """Return the directory of the disk cache that the arguments of a ClientStorage name; None if they name none."""
    if path is None and client is not None:
        path = os.path.join(var or os.curdir, f"{client}-{storage}")
    return None if path is None else os.path.abspath(path) + DIRECTORY_SUFFIX


def open_cache(path: str | None, identity: str, max_bytes: int, memory_max_bytes: int | None) -> Cache:
    """Open the cache in the directory `path`, in memory alone if that is None. OSError if the directory cannot be made.

    `max_bytes` is the disk cache's size then, and the memory's is `memory_max_bytes`.
    """
    if path is None:
        return MemoryCache(max_bytes if memory_max_bytes is None else memory_max_bytes)
    memory = MemoryCache(min(max_bytes, CACHE_BYTES) if memory_max_bytes is None else memory_max_bytes)
    return LayeredCache(memory, DiskCache(path, identity, max_bytes))
