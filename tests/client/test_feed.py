"""What arrives, into the cache and to the sink; test_storage.py has the wire before it."""

import contextlib
from collections.abc import Iterator, Sequence

import pytest

from tests.client.peer import Peer
from zeo_client.cache.memory import MemoryCache
from zeo_client.feed import Feed
from zeo_client.storage import ClientStorage
from zeo_client.transport.channel import Call, Channel
from zeo_core.errors import RemoteProtocolError
from zeo_core.ids import Oid, Tid, pack_id, successor

A = pack_id(1)
T1, T2, T3 = (pack_id(number) for number in (11, 12, 13))


class Order:
    """A sink that notes what the cache says while it is told."""

    def __init__(self, cache: MemoryCache) -> None:
        self.seen: list[tuple[Tid, Tid, bool]] = []
        self._cache = cache

    def invalidate(self, tid: Tid, oids: Sequence[Oid]) -> None:
        known = self._cache.load_before(A, successor(tid))
        self.seen.append((tid, self._cache.last_tid(), known is None))

    def invalidateCache(self) -> None:  # noqa: N802
        self.seen.append((T1, self._cache.last_tid(), True))


@pytest.fixture
def channel(peer: Peer) -> Iterator[Channel]:
    with contextlib.closing(ClientStorage(str(peer.address))) as storage:
        yield storage._supervisor.channel()


@pytest.fixture
def cache() -> MemoryCache:
    return MemoryCache(1_000_000)


@pytest.fixture
def feed(cache: MemoryCache) -> Feed:
    feed = Feed(cache)
    feed.sink = Order(cache)
    feed.reset(T1)
    return feed


def test_the_last_tid_moves_last(feed: Feed, cache: MemoryCache, channel: Channel) -> None:
    feed.loaded(Call("loadBefore", (A, T2), None), (b"one", T1, None))
    feed.invalidated(channel, T2, [A])
    assert isinstance(feed.sink, Order)
    assert feed.sink.seen[1:] == [(T2, T1, True)]
    assert cache.last_tid() == T2


def test_a_load_that_an_invalidation_passed_is_older(feed: Feed, cache: MemoryCache) -> None:
    call = Call("loadBefore", (A, T2), None)
    call.superseded = ((T2, {A}),)
    feed._cache.advance(T2)
    assert feed.loaded(call, (b"one", T1, None)) == (b"one", T1, T2)
    assert cache.load_before(A, successor(T2)) is None


def test_what_is_newer_than_all_that_is_known_is_not_kept(feed: Feed, cache: MemoryCache) -> None:
    assert feed.loaded(Call("loadBefore", (A, T3), None), (b"new", T2, None)) == (b"new", T2, None)
    assert cache.load_before(A, T3) is None


def test_tids_grow(feed: Feed, channel: Channel) -> None:
    with pytest.raises(RemoteProtocolError, match="was announced after"):
        feed.invalidated(channel, T1, [A])
