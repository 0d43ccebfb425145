import asyncio

from zeo_server.commit.timeout import Timeouts


async def test_each_runs_out_in_its_turn() -> None:
    expired: list[str] = []
    done = asyncio.Event()

    def expire(key: str) -> None:
        expired.append(key)
        if key == "last":
            done.set()

    loop = asyncio.get_running_loop()
    timeouts: Timeouts[str] = Timeouts(loop, 0.02, expire)
    started_s = loop.time()
    for key in ("first", "stopped", "last"):
        timeouts.start(key)
    assert len(timeouts) == 3
    timeouts.stop("stopped")
    timeouts.stop("unknown")
    await asyncio.wait_for(done.wait(), 10)
    assert expired == ["first", "last"]
    assert loop.time() - started_s >= 0.02
    assert len(timeouts) == 0


async def test_one_that_starts_later_ends_later() -> None:
    ended: list[float] = []
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    def expire(key: int) -> None:
        ended.append(loop.time())
        if key == 1:
            timeouts.start(2)
        else:
            done.set()

    timeouts: Timeouts[int] = Timeouts(loop, 0.02, expire)
    timeouts.start(1)
    await asyncio.wait_for(done.wait(), 10)
    assert ended[1] - ended[0] >= 0.02


async def test_nothing_runs_out_without_a_timeout_or_after_close() -> None:
    expired: list[str] = []
    loop = asyncio.get_running_loop()
    endless: Timeouts[str] = Timeouts(loop, 0, expired.append)
    endless.start("never")
    closed: Timeouts[str] = Timeouts(loop, 0.001, expired.append)
    closed.start("closed")
    closed.close()
    closed.close()
    later = asyncio.Event()
    loop.call_later(0.01, later.set)
    await later.wait()
    assert expired == []


async def test_how_long_the_oldest_is_here() -> None:
    timeouts: Timeouts[str] = Timeouts(asyncio.get_running_loop(), 0, lambda key: None)
    assert timeouts.longest_s() is None
    timeouts.start("one")
    longest_s = timeouts.longest_s()
    assert longest_s is not None
    assert 0 <= longest_s < 10


async def test_another_timeout_holds_for_those_whose_time_runs() -> None:
    expired = asyncio.Event()
    timeouts: Timeouts[str] = Timeouts(asyncio.get_running_loop(), 3600, lambda key: expired.set())
    timeouts.start("one")
    timeouts.change(0)
    timeouts.change(0.01)
    await asyncio.wait_for(expired.wait(), 10)
    assert len(timeouts) == 0
