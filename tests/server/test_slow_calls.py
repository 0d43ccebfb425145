"""Slow calls: one after the other, in threads, bounded."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from zeo_server.slow_calls import SlowCalls

LIMIT_S = 20


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


async def test_they_run_in_order_in_a_thread_and_are_answered_in_the_loop(threads: ThreadPoolExecutor) -> None:
    loop = asyncio.get_running_loop()
    calls = SlowCalls(loop, threads)
    ran: list[tuple[int, bool]] = []
    answers: list[object] = []
    done = asyncio.Event()
    here = threading.get_ident()

    def fail() -> None:
        raise ValueError("no")

    def run(number: int) -> None:
        ran.append((number, threading.get_ident() == here))

    def last(outcome: object) -> None:
        answers.append(outcome)
        done.set()

    for number in range(20):
        calls.add(partial(run, number), answers.append)
    calls.add(fail, answers.append)
    calls.add(lambda: "last", last)
    await asyncio.wait_for(done.wait(), LIMIT_S)
    assert ran == [(number, False) for number in range(20)]
    assert answers[:20] == [None] * 20
    assert str(answers[20]) == "no"
    assert answers[21:] == ["last"]


async def test_what_waits_is_forgotten_at_the_end(threads: ThreadPoolExecutor) -> None:
    calls = SlowCalls(asyncio.get_running_loop(), threads)
    go_on, began, ended = threading.Event(), threading.Event(), asyncio.Event()

    def first() -> None:
        began.set()
        go_on.wait(LIMIT_S)

    answers: list[object] = []
    calls.add(first, answers.append)
    assert began.wait(LIMIT_S)
    calls.add(lambda: None, answers.append)
    calls.end(ended.set)
    assert not ended.is_set()  # what the running call uses must not be taken from it
    go_on.set()
    await asyncio.wait_for(ended.wait(), LIMIT_S)
    assert answers == []


async def test_the_end_of_an_idle_line_is_at_once(threads: ThreadPoolExecutor) -> None:
    ended: list[bool] = []
    SlowCalls(asyncio.get_running_loop(), threads).end(lambda: ended.append(True))
    assert ended == [True]


async def test_a_call_that_fails_after_the_end_is_not_missed_by_asyncio(threads: ThreadPoolExecutor) -> None:
    """An exception that nobody asks for is logged as an error, with a traceback, when the future goes."""
    loop = asyncio.get_running_loop()
    missed: list[object] = []
    loop.set_exception_handler(lambda _loop, context: missed.append(context))
    calls = SlowCalls(loop, threads)
    go_on, ended = threading.Event(), asyncio.Event()

    def fail() -> None:
        go_on.wait(LIMIT_S)
        raise ValueError("no")

    calls.add(fail, lambda _outcome: None)
    calls.end(ended.set)
    go_on.set()
    await asyncio.wait_for(ended.wait(), LIMIT_S)
    await asyncio.sleep(0)
    gc.collect()
    assert missed == []
