"""Functions in worker threads: what comes back, and cancellation before, while and after they run."""

import asyncio
import threading
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from zeo_client.aio.workers import Workers, check_cancelled
from zeo_core.errors import ConnectionStateError

PATIENCE_S = 30


class Gate:
    """A function that says when it has begun, and ends when it is let through."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()
        self.ended = threading.Event()
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        self.begun.set()
        assert self.open.wait(PATIENCE_S)
        self.ended.set()
        return "through"

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, PATIENCE_S)


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(2)
    yield workers
    workers.close()


async def test_a_result_and_an_error_come_back(workers: Workers) -> None:
    assert await workers.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await workers.run(divmod, 7, 0)


async def test_an_error_that_a_future_cannot_carry_comes_back_too(workers: Workers) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await workers.run(next, iter(()))


async def test_the_loop_goes_on_while_a_function_runs(workers: Workers) -> None:
    gate = Gate()
    task = asyncio.create_task(workers.run(gate))
    await gate.has_begun()
    gate.open.set()  # by the loop, which is free
    assert await task == "through"


async def test_no_more_functions_run_than_there_are_workers(workers: Workers) -> None:
    gates = [Gate() for _ in range(3)]
    tasks = [asyncio.create_task(workers.run(gate)) for gate in gates]
    await gates[0].has_begun()
    await gates[1].has_begun()
    assert not gates[2].begun.is_set()
    gates[0].open.set()
    await gates[2].has_begun()
    for gate in gates:
        gate.open.set()
    assert await asyncio.gather(*tasks) == ["through"] * 3


async def test_context_variables_are_those_of_the_task(workers: Workers) -> None:
    user: ContextVar[str] = ContextVar("user")

    async def ask(name: str) -> str:
        user.set(name)
        return await workers.run(user.get)

    assert await asyncio.gather(*(asyncio.create_task(ask(name)) for name in "abcd")) == list("abcd")


async def test_a_cancelled_function_that_has_not_begun_never_does(workers: Workers) -> None:
    busy = [Gate(), Gate()]
    tasks = [asyncio.create_task(workers.run(gate)) for gate in busy]
    for gate in busy:
        await gate.has_begun()
    third = Gate()
    waiting = asyncio.create_task(workers.run(third))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting  # while both threads are still busy
    for gate in busy:
        gate.open.set()
    await asyncio.gather(*tasks)
    assert third.calls == 0


async def test_a_cancelled_task_waits_for_its_function(workers: Workers) -> None:
    gate = Gate()
    task = asyncio.create_task(workers.run(gate))
    await gate.has_begun()
    for _ in range(3):  # patience does not run out at the third
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()
    gate.open.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gate.ended.is_set()


async def test_what_a_function_of_a_cancelled_task_raises_is_the_cause(workers: Workers) -> None:
    gate = Gate()

    def fail() -> None:
        gate()
        raise ValueError("too late")

    task = asyncio.create_task(workers.run(fail))
    await gate.has_begun()
    task.cancel()
    gate.open.set()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert isinstance(caught.value.__cause__, ValueError)


async def test_a_function_can_ask_whether_it_is_of_use(workers: Workers) -> None:
    check_cancelled()  # nobody waits for the loop's thread
    gate = Gate()
    beyond = False

    def work() -> None:
        nonlocal beyond
        check_cancelled()
        gate()
        check_cancelled()
        beyond = True

    task = asyncio.create_task(workers.run(work))
    await gate.has_begun()
    task.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gate.open.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not beyond


async def test_what_tidies_up_runs_in_any_case(workers: Workers) -> None:
    busy = [Gate(), Gate()]
    tasks = [asyncio.create_task(workers.run(gate)) for gate in busy]
    for gate in busy:
        await gate.has_begun()
    third = Gate()
    third.open.set()
    waiting = asyncio.create_task(workers.run(third, in_any_case=True))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    busy[0].open.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert third.ended.is_set()
    busy[1].open.set()
    await asyncio.gather(*tasks)


async def test_a_coroutine_function_is_refused(workers: Workers) -> None:
    async def work() -> None: ...

    with pytest.raises(TypeError, match="is a coroutine function"):
        _ = await workers.run(work)


async def test_after_the_end_nothing_runs(workers: Workers) -> None:
    workers.close()
    with pytest.raises(ConnectionStateError, match="closed"):
        await workers.run(divmod, 1, 1)


def test_there_is_at_least_one_worker() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        Workers(0)
